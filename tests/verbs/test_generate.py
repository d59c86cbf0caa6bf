"""npgemma generate: streaming, JSON, pictures from everywhere, Ctrl-C."""

import dataclasses
import io
import json
import sys

import pytest
from generation_models import GOLDEN, golden_answers, saying, tokenizer, wordy_model
from PIL import Image

from npgemma import cli
from npgemma.checkpoints import memory
from npgemma.checkpoints.loading import TINY
from npgemma.verbs import options


def run(capsys, *words):
    code = cli.main(["generate", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_answer_is_all_that_stands_on_stdout(speak, picture, capsys):
    speak(saying("a cat on a mat"))
    code, out, err = run(capsys, picture, "caption en", "--model", "some")
    assert (code, out, err) == (0, "a cat on a mat\n", "")


def test_without_model_it_says_once_which_one_it_is_and_how_to_use_another(speak, picture, capsys):
    calls = speak(saying("a cat"))
    code, out, err = run(capsys, picture)
    assert (code, out) == (0, "a cat\n")
    assert err.count("model in the box") == 1
    assert "--model google/paligemma2-3b-mix-224" in err
    assert calls[0][0] == (None, "float32", None)


def test_what_will_be_slow_is_said_in_one_line(picture, monkeypatch, capsys):
    monkeypatch.setattr(memory, "available_memory", lambda: 3_000_000)
    code, out, err = run(capsys, picture, "--dtype", "bfloat16", "--max-tokens", "1", "--model", str(TINY))
    assert code == 0 and out
    assert err.startswith(f"npgemma: {TINY}: 0.00") and "every token reads from disk" in err.splitlines()[0]
    assert "Warning" not in err


def test_model_dtype_and_precision_reach_the_loader(speak, picture, capsys):
    calls = speak(saying("a cat"))
    run(
        capsys, picture, "--model", "folder", "--dtype", "bfloat16", "--precision", "bf16-hf-eager", "--allow-nonfinite"
    )
    (args, kwargs) = calls[0]
    assert args == ("folder", "bfloat16", "bf16-hf-eager")
    assert kwargs["allow_nonfinite"] is True


def test_json_is_one_object_with_everything(speak, picture, capsys):
    speak(saying("a cat"))
    code, out, err = run(capsys, picture, "caption en", "--json", "--model", "some")
    found = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert found["text"] == "a cat"
    assert found["ids"] == [*tokenizer().encode("a cat"), tokenizer().eos]
    assert found["finish_reason"] == "stop"
    assert len(found["logprobs"]) == len(found["ids"])
    assert found["prompt_ids"] == [*[tokenizer().image] * 4, *tokenizer().encode("<bos>caption en\n", "allow")]
    assert set(found["seconds"]) == {"load", "vision", "prefill", "per_token"}
    assert found["notes"] == []


def test_text_is_written_as_it_comes(speak, picture, monkeypatch, capsys):
    speak(saying("a cat 🙂 on"))
    written = []
    monkeypatch.setattr(sys.stdout, "write", lambda text: written.append(text) or len(text))
    assert cli.main(["generate", picture, "x", "--model", "some"]) == 0
    assert "".join(written) == "a cat 🙂 on\n"
    assert len(written) > 4


def test_a_picture_from_standard_input(speak, picture, monkeypatch, capsys):
    speak(saying("a cat"))
    with open(picture, "rb") as file:
        data = file.read()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run(capsys, "-", "ocr", "--model", "some")[:2] == (0, "a cat\n")


def test_two_pictures_and_one_prompt(speak, picture, capsys):
    speak(saying("a cat"))
    _, out, _ = run(capsys, picture, "x", "--image", picture, "--json", "--model", "some")
    assert json.loads(out)["prompt_ids"].count(tokenizer().image) == 8


def test_text_only(speak, capsys):
    speak(saying("four"))
    _, out, _ = run(capsys, "--no-image", "cat", "--json", "--model", "some")
    assert json.loads(out)["prompt_ids"] == tokenizer().encode("<bos>cat\n", "allow")


def test_ids_in_and_ids_out_without_a_tokenizer_equal_transformers(capsys):
    case = next(case for case in golden_answers("gen-1")["cases"] if case["name"] == "greedy, prompt 5 alone")
    prompt = golden_answers("gen-1")["prompts"][5]["ids"]
    folder = str(GOLDEN / "generation" / "gen-1")
    options = ["--max-tokens", "40", "--min-tokens", "40", "--suppress-id", "140"]
    code, out, _ = run(capsys, "--model", folder, "--ids", ",".join(map(str, prompt)), *options)
    assert code == 0
    assert [int(word) for word in out.split()] == case["ids"][0]


def test_beams_give_the_best_first_a_line_each(speak, picture, capsys):
    speak(wordy_model())
    code, out, _ = run(
        capsys, picture, "x", "--beams", "3", "-n", "2", "--max-tokens", "4", "--json", "--model", "some"
    )
    found = json.loads(out)
    assert code == 0
    assert len(found["others"]) == 1
    assert found["score"] >= found["others"][0]["score"]


def test_stop_strings_and_limits_reach_the_answer(speak, picture, capsys):
    speak(saying("a cat ; a dog"))
    assert run(capsys, picture, "x", "--stop", " ;", "--model", "some")[1] == "a cat\n"
    speak(saying("one two three"))
    code, _, err = run(capsys, picture, "x", "--max-tokens", "2", "--model", "some")
    assert code == 0
    assert "cut after 2 tokens" in err


def test_a_detection_is_held_to_its_pattern(speak, picture, capsys):
    speak(wordy_model())
    _, out, _ = run(capsys, picture, "detect cat", "--boxes-only", "--max-tokens", "5", "--model", "some")
    assert out == "\n" or out.count("<loc") == 4


def test_notes_are_on_stderr_and_in_the_object(speak, picture, capsys):
    speak(saying("a cat"))
    _, _, err = run(capsys, picture, "", "--model", "some")
    assert err == "npgemma: note: the prompt is empty: released models then caption the picture, others need not\n"
    speak(saying("a cat"))
    _, out, err = run(capsys, picture, "", "--json", "--model", "some")
    assert err == ""
    assert len(json.loads(out)["notes"]) == 1


@pytest.mark.parametrize("json_wanted", (False, True))
def test_row_84_ctrl_c_leaves_with_what_there_is(speak, picture, capsys, json_wanted):
    model, steps = saying("a cat on a mat"), []

    def interrupt(name, x):
        steps.append(name)
        if steps.count("text.logits") == 3:
            raise KeyboardInterrupt
        return model.weights.observe(name, x)

    speak(dataclasses.replace(model, weights=model.weights.watched_by(interrupt)))
    code, out, err = run(capsys, picture, "x", "--model", "some", *(["--json"] if json_wanted else []))
    assert code == 130
    assert err == "npgemma: interrupted\n"
    if json_wanted:
        found = json.loads(out)
        assert (found["finish_reason"], len(found["ids"])) == ("interrupted", 2)
        out = found["text"] + "\n"
    assert out.endswith("\n") and 0 < len(out.strip()) < len("a cat on a mat")
    assert "a cat on a mat".startswith(out.strip())


def test_ctrl_c_before_the_first_token_leaves_stdout_empty(speak, picture, capsys):
    def interrupt(name, x):
        raise KeyboardInterrupt

    model = wordy_model()
    speak(dataclasses.replace(model, weights=model.weights.watched_by(interrupt)))
    assert run(capsys, picture, "x", "--beams", "2", "--model", "some") == (130, "", "npgemma: interrupted\n")


@pytest.mark.parametrize(
    "words, message",
    (
        (["nowhere.png", "caption en"], "nowhere.png: there is no such picture; check the path"),
        (["--no-image", "two", "prompts"], "'prompts': with --no-image there is only a prompt"),
        (["--ids", "2,5", "--no-image", "cat"], "--ids stands instead of the prompt 'cat'"),
        (["--no-image", "cat", "--temperature", "-1"], "--temperature: came as -1.0; want 0, or 0.0001"),
        (["--no-image", "cat", "--top-p", "nan"], "--top-p: came as nan; want above 0, at most 1"),
        (["--no-image", "cat", "-n", "2"], "greedy answers are all the same"),
        (["--no-image", "cat", "--max-tokens", "-1"], "--max-tokens: came as -1"),
        (["--no-image", "cat", "--max-tokens", "1000000000"], "the trained context is 512"),
        (["--no-image", "<loc0001>"], "<loc0001>"),
        (["-", "x", "--image", "-"], "standard input holds one picture only"),
        (["--no-image", "cat", "-o", "out.jsonl"], "--output: holds the answers of --batch"),
    ),
)
def test_wrong_input_is_one_line_and_exit_code_1(speak, capsys, words, message):
    speak(wordy_model())
    code, out, err = run(capsys, *words, "--model", "some")
    assert (code, out) == (1, "")
    assert message in err and err.count("\n") == 1


def test_a_broken_picture_exits_with_2(speak, tmp_path, capsys):
    speak(wordy_model())
    path = tmp_path / "page.png"
    path.write_bytes(b"<!DOCTYPE html><html>")
    code, _, err = run(capsys, str(path), "x", "--model", "some")
    assert code == 2
    assert "HTML" in err


def test_specials_are_allowed_on_demand(speak, picture, capsys):
    speak(saying("cat"))
    assert run(capsys, picture, "<loc0001> what", "--allow-specials", "--model", "some")[0] == 0


def test_options_may_stand_between_the_picture_and_the_prompt(speak, picture, capsys):
    speak(saying("a cat on a mat"))
    assert run(capsys, picture, "--max-tokens", "30", "caption en", "--model", "some") == (0, "a cat on a mat\n", "")


@pytest.mark.parametrize(
    "words, message",
    (
        (["x", "--max-tokens", "-1"], "npgemma: --max-tokens: came as -1"),
        (["x", "--max-tokens", "99999"], "or lower --max-tokens\n"),
        (["x", "--beams", "2", "-n", "3"], "npgemma: -n: 3 answers from 2 beams"),
        (
            ["x", "--beams", "2", "--temperature", "1"],
            "npgemma: --beams: beams are searched, not drawn; leave out temperature, top_k",
        ),
        (["x", "--temperature", "1e-300"], "npgemma: --temperature: came as 1e-300; want 0, or 0.0001 to 10000\n"),
        (["<eos>"], "or pass --allow-specials\n"),
    ),
)
def test_mistakes_name_the_options_of_the_command(speak, picture, capsys, words, message):
    speak(wordy_model())
    code, out, err = run(capsys, picture, *words, "--model", "some")
    assert (code, out) == (1, "")
    assert message in err


def test_a_picture_that_no_image_makes_the_prompt_is_said(speak, picture, capsys):
    speak(wordy_model())
    code, _, err = run(capsys, "--no-image", picture, "--model", "some")
    assert code == 1 and "is a file, and --no-image makes it the prompt" in err


def test_more_mistakes_are_one_line(speak, picture, tmp_path, monkeypatch, capsys):
    speak(dataclasses.replace(wordy_model(), tokenizer=None))
    wide = tmp_path / "wide.png"
    Image.new("RGB", (17_000, 2)).save(wide)
    (tmp_path / "q.jsonl").write_text('{"prompt": "cat"}')
    batch = ["--batch", str(tmp_path / "q.jsonl"), "--model", "some"]
    for words, message in (
        (["--ids", "2", "--no-image", "--boxes-only", "--model", "some"], "--boxes-only: the model has no tokenizer"),
        ([*batch, "--profile"], "--profile: is of one answer; leave out --batch"),
        ([*batch, "--force"], "--force: is for --draw; a file of answers is continued"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 1 and message in err.splitlines()[-1]
    speak(saying("<loc0000><loc0341><loc1023><loc0682> cat"))
    target = str(tmp_path / "wide.webp")
    code, _, err = run(capsys, str(wide), "x", "--draw", target, "--model", "some")
    assert code == 1 and f"{target}: 17000 x 2 pixels cannot be saved so" in err.splitlines()[-1]
    monkeypatch.setattr(options, "TINY", tmp_path / "nothing")
    code, _, err = run(capsys, "--model", "some")
    assert code == 1 and "no IMAGE was given, and there is none in the box" in err
