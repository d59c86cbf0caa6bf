"""What attacks have found, and what README promises, each with the tests that hold it: they are there, by these names.

The table of bad inputs itself is in ``test_bad_inputs.py``.
"""

import re
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# By the file of the test, and the test: what was wrong.
FOUND = {
    "base/test_printer.py": {
        "test_json_is_json_and_steers_nothing": "NaN in JSON",
        "test_an_encoding_that_has_not_all_characters_is_no_reason_to_die": "ASCII and cp1252",
        "test_what_steers_a_terminal_is_written_as_an_escape": "escapes reach no terminal",
        "test_a_warning_is_one_line_for_the_time_of_a_command": "warnings are one line",
    },
    "checkpoints/test_checkpoint.py": {
        "test_row_23_weights_of_the_other_paligemma_are_named_as_such": "the other PaliGemma's weights",
        "test_row_24_a_hundred_thousand_unknown_tensors_are_refused_in_no_time": "100,000 unknown tensors",
    },
    "checkpoints/test_hf_config.py": {
        "test_a_side_that_the_patches_do_not_fill_is_said": "an image_size that the patch does not divide",
    },
    "checkpoints/test_hub_cache.py": {
        "test_a_branch_that_names_no_revision_is_refused": "refs/main that is no UTF-8",
    },
    "checkpoints/test_shards.py": {
        "test_a_wrong_total_size_is_said": "a wrong total_size",
        "test_row_32_index_values_that_are_no_names": "surrogates in an index",
        "test_row_32_shards_whose_name_no_file_can_have": "a shard's name of 300 characters",
    },
    "files/test_arrays.py": {
        "test_row_40_a_pipe_is_not_waited_for": "devices and pipes as arrays",
        "test_row_43_a_broken_archive_is_refused": "an archive that would fill the memory",
    },
    "files/test_bad_pictures.py": {
        "test_row_54_broken_exif_is_no_reason_to_die": "broken EXIF",
        "test_row_48_a_frame_that_outgrows_its_picture_is_refused_before_it_is_made": "a GIF whose frame is larger",
    },
    "files/test_image.py": {
        "test_numbers_of_hundreds_of_digits_are_refused": "400 digits in the preprocessor",
    },
    "files/test_reader.py": {
        "test_row_35_json_is_strict": "a key of any JSON twice",
        "test_row_39_links_in_a_circle_and_out_of_the_folder": "links in a circle",
        "test_row_40_what_is_no_regular_file_is_refused_at_once": "devices and pipes as input",
    },
    "files/test_safetensors_file.py": {
        "test_row_15_a_size_of_nothing_hides_no_size_that_cannot_be": "a size of 0 beside 2**62",
    },
    "files/test_writer.py": {
        "test_what_is_no_regular_file_is_never_replaced": "devices and pipes as output",
        "test_the_error_that_matters_is_not_hidden_by_cleaning_up": "the error that matters",
        "test_a_full_disk_names_the_file_and_leaves_nothing": "a full disk anywhere",
        "test_what_is_there_stays_unless_it_is_forced": "nothing is replaced without --force",
    },
    "generation/test_finite.py": {
        "test_row_20_generate_says_at_which_tensor_it_began": "logits that are not finite",
        "test_row_20_score_says_so_too": "scores that are not finite",
        "test_the_command_ends_with_2_and_its_advice_can_be_followed": "and what to do, exit 2",
    },
    "generation/test_generate.py": {
        "test_pixels_of_another_shape_are_refused": "ragged pixels",
    },
    "generation/test_processors.py": {
        "test_what_a_callback_gives_is_held_against_the_vocabulary": "callbacks that give no ids",
    },
    "judge/test_pack.py": {
        "test_row_44_two_processes_do_not_write_one_pack": "two processes on one folder",
        "test_row_44_damage_is_told_in_one_line_with_exit_code_2": "a pack's link in a circle",
    },
    "test_cli.py": {
        "test_closed_standard_streams_are_one_line_or_none": "closed streams",
        "test_row_84_a_closed_pipe_ends_quietly": "a closed pipe",
        "test_ctrl_c_while_numpy_is_imported_is_one_line": "Ctrl-C while NumPy is imported",
        "test_the_version_is_told": "--version",
        "test_with_little_address_space_there_is_an_answer_or_a_line_and_no_signal": "ulimit -v",
        "test_256_megabytes_of_address_space_are_enough_for_an_answer": "256 MB are enough",
        "test_a_signal_ends_a_command_with_one_line_and_what_is_left_to_clean_is_cleaned": "signals clean up",
    },
    "test_found.py": {
        "test_what_was_found_is_mended": "what the fuzzer found",
    },
    "test_promises.py": {
        "test_nothing_is_opened_but_the_folder_and_the_inputs_nothing_started_nothing_sent": "the audit hook",
    },
    "tracing/test_trace_file.py": {
        "test_damaged_metadata_are_refused_by_name": "damaged traces",
    },
    "verbs/test_bad_words.py": {
        "test_a_bad_word_is_one_line_and_its_exit_code": ".npy as safetensors; 500,000 characters",
    },
    "verbs/test_batch.py": {
        "test_a_file_that_is_not_its_own_is_never_touched": "a batch erases no file that is not its own",
        "test_the_questions_themselves_are_never_the_output": "nor its own questions",
        "test_two_processes_on_one_output_are_refused": "two processes on one output",
        "test_whatever_changes_an_answer_is_in_the_mark": "whatever changes an answer is in the mark",
        "test_a_model_that_was_trained_on_under_the_same_name_is_another": "the weights too",
        "test_one_bad_line_ends_no_batch":
            "a key twice; a list without pictures; surrogates, ids of 2^63, deep JSON, 400 digits",
        "test_outputs_of_other_runs_are_left_alone": "deep JSON in an answer file",
        "test_row_84_a_full_disk_names_the_file_and_keeps_whole_lines": "a full disk in a batch",
    },
    "verbs/test_generate_places.py": {
        "test_what_cannot_be_drawn_is_refused_before_the_model_is_loaded": "a drawing neither",
    },
    "verbs/test_killed.py": {
        "test_row_84_a_trace_is_whole_or_not_there": "killed: a trace",
        "test_row_84_a_picture_is_whole_or_not_there": "killed: a picture",
        "test_rows_44_and_84_a_pack_is_whole_or_not_there": "killed: a pack",
        "test_row_84_a_batch_loses_and_doubles_no_answer": "killed: a batch",
    },
    "verbs/test_trace.py": {
        "test_a_replacement_that_does_not_fit_names_both": "replacements that are none",
    },
    "words/test_bad_tokenizers.py": {
        "test_row_75_a_user_defined_piece_without_text_is_refused": "an empty user-defined piece",
        "test_row_75_ids_of_listed_tokens_are_plain_numbers": "a key of 5,000 digits",
    },
}  # fmt: skip


@cache
def named_in(path):
    return set(re.findall(r"^def (test_\w+)\(", (HERE / path).read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", FOUND)
def test_each_fault_that_was_found_has_its_test(path):
    assert set(FOUND[path]) <= named_in(path)


def test_each_promise_of_the_readme_names_tests_that_are_there():
    promises = (HERE.parent / "README.md").read_text().partition("## Promises")[2].partition("\n## ")[0]
    sentences = [each for each in re.split(r"\.\s+(?=[A-Z])", " ".join(promises.split())) if each]
    assert len(sentences) >= 4
    for sentence in sentences:
        named = re.findall(r"`tests/([\w/]+\.py)`", sentence)
        assert named, f"no test: {sentence}"
        assert all(named_in(path) for path in named), sentence
