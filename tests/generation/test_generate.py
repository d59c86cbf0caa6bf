"""Answers as a whole: limits, batches, sharing, streaming, and what is refused."""

import collections
import dataclasses

import numpy as np
import pytest
from generation_models import NAMES, golden_answers, golden_model, request, saying, tokenizer, wordy_model

from npgemma.base.errors import InputError, NpgemmaError, PromptError
from npgemma.generation.generate import generate, generate_batch
from npgemma.generation.requests import Ready, Request, Seen, length_classes

PICTURE = (np.arange(9 * 9 * 3).reshape(9, 9, 3) % 251).astype(np.uint8)
OTHER = PICTURE[::-1].copy()


def ids_of(answers):
    return [list(each.ids) for answer in answers for each in (answer, *answer.others)]


def ask(name, row, **settings):
    asked = request(name, row)
    return generate(golden_model(name), ids=asked.ids, pixels=asked.pixels, **settings)


# ---- limits ----


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("row", (0, 6, 8))
def test_greedy_is_one_beam_is_top_k_1_is_temperature_towards_0(name, row):
    greedy = ask(name, row, max_new_tokens=25)
    limits = (
        {"num_beams": 1},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1e-4},
        {"temperature": 0},
        {"temperature": 0.0, "top_p": 0.5},
        {"temperature": 1.0, "top_p": 1e-6},
        {"min_p": 1.0},
    )
    for limit in limits:
        assert ask(name, row, max_new_tokens=25, **limit).ids == greedy.ids, limit


@pytest.mark.parametrize("name", NAMES)
def test_wide_limits_change_no_draw(name):
    plain = ask(name, 1, max_new_tokens=25, temperature=1.0, seed=3)
    V = golden_model(name).config.text.vocab_size
    for limit in ({"top_k": V}, {"top_p": 1.0}, {"min_p": 0.0}, {"repetition_penalty": 1.0}):
        assert ask(name, 1, max_new_tokens=25, temperature=1.0, seed=3, **limit).ids == plain.ids


def test_logprobs_are_the_models_own_whatever_shapes_the_choice():
    ids = ask("gen-2", 0, max_new_tokens=8).ids
    plain = ask("gen-2", 0, max_new_tokens=8)
    for shaped in ({"temperature": 0.1, "top_k": 1}, {"num_beams": 1, "repetition_penalty": 1.0 + 1e-9}):
        answer = ask("gen-2", 0, max_new_tokens=8, **shaped)
        assert answer.ids == ids
        assert answer.logprobs == plain.logprobs
    assert all(logprob < 0 for logprob in plain.logprobs)
    assert plain.score == pytest.approx(sum(plain.logprobs))


def test_beam_score_is_the_sum_of_logprobs_over_the_length():
    answer = ask("gen-1", 0, max_new_tokens=9, num_beams=3, length_penalty=1.0)
    assert answer.score == pytest.approx(sum(answer.logprobs) / len(answer.ids), rel=1e-5)


# ---- batches and sharing ----


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "settings", ({}, {"temperature": 0.8, "seed": 5}, {"repetition_penalty": 1.4}, {"num_beams": 3}), ids=str
)
def test_a_batch_of_different_lengths_is_answered_as_one_at_a_time(name, settings):
    requests = [request(name, row) for row in (1, 7, 8, 4, 0)]
    together = generate_batch(golden_model(name), requests, max_new_tokens=15, **settings)
    alone = [generate_batch(golden_model(name), [each], max_new_tokens=15, **settings)[0] for each in requests]
    assert ids_of(together) == ids_of(alone)
    for batch, single in zip(together, alone, strict=True):
        np.testing.assert_allclose(batch.logprobs, single.logprobs, atol=1e-4)
        assert batch.prompt_ids == single.prompt_ids


def test_row_81_padding_stands_on_the_left_and_positions_count_real_tokens():
    seen = []

    def observe(name, x):
        if name in ("ids", "positions"):
            seen.append(x.tolist())

    generate_batch(
        wordy_model(), [Request(ids=[2, 30]), Request(ids=[2, 30, 41, 52])], max_new_tokens=2, observe=observe
    )
    ids, positions, _, next_positions = seen
    assert ids == [[0, 0, 2, 30], [2, 30, 41, 52]]
    assert positions == [[1, 1, 1, 2], [1, 2, 3, 4]]
    assert next_positions == [[3], [5]]


def count_calls(names, axis=0):
    """Count how often names are observed, for each size of one axis."""
    seen = collections.Counter()

    def observe(name, x):
        for part in names:
            if name == part:
                seen[name, *x.shape[axis : axis + 1]] += 1

    return seen, observe


def test_the_vision_tower_runs_once_for_an_answer_of_many_tokens():
    seen, observe = count_calls(["vision.norm", "connector.out", "text.logits"])
    answer = generate(golden_model("gen-1"), **about("gen-1", 0), max_new_tokens=12, min_new_tokens=12, observe=observe)
    assert len(answer.ids) == 12
    assert seen == {("vision.norm", 1): 1, ("connector.out", 1): 1, ("text.logits", 1): 12}


def about(name, row):
    asked = request(name, row)
    return {"ids": asked.ids, "pixels": asked.pixels}


def test_prompts_about_one_picture_share_one_vision_pass():
    seen, observe = count_calls(["vision.norm"])
    # Rows 0, 2 and 4 are about one picture, row 1 about another.
    requests = [request("gen-2", row) for row in (0, 1, 2, 4)]
    generate_batch(golden_model("gen-2"), requests, max_new_tokens=2, observe=observe)
    assert seen == {("vision.norm", 2): 1}


def test_a_picture_seen_in_one_batch_is_not_looked_at_in_the_next():
    model, seen = golden_model("gen-2"), Seen()
    rows = (0, 1, 2, 4)
    together = generate_batch(model, [request("gen-2", row) for row in rows], max_new_tokens=4)
    apart = [generate_batch(model, [request("gen-2", row)], seen=seen, max_new_tokens=4)[0] for row in rows]
    assert (seen.asked, seen.looked) == (4, 2)
    assert ids_of(apart) == ids_of(together)
    assert seen.saved()[0].startswith("the vision tower ran 2 times for 4 pictures, which saved about ")
    assert Seen().saved() == []


def test_pictures_needed_longest_ago_are_forgotten_first():
    model = golden_model("gen-2")
    w, cfg = model.weights, model.config
    R, size = cfg.vision.image_size, cfg.vision.num_patches * cfg.text.width * 4
    a, b, c = (np.full((R, R, 3), number, np.float32) for number in (-1, 0, 1))
    seen = Seen(room=2 * size)
    looked = []
    for pictures in ([a], [b], [a], [c], [a], [b]):
        seen.soft_tokens(w, cfg, pictures)
        looked.append(seen.looked)
    assert looked == [1, 2, 2, 3, 3, 4]
    assert np.array_equal(seen.soft_tokens(w, cfg, [b, b])[1], Seen().soft_tokens(w, cfg, [b])[0])


def test_only_prompts_of_about_one_length_are_read_side_by_side():
    lengths = [300, 4, 262, 36, 261, 1040, 37]
    classes = length_classes([Ready([1] * length, np.zeros(0)) for length in lengths])
    assert [[lengths[number] for number in each] for each in classes] == [[4, 36], [37], [261, 262, 300], [1040]]
    shapes, observe = count_calls(["text.embedded"], axis=1)
    questions = [Request(ids=[2] * length) for length in (60, 3, 50, 4)]
    answers = generate_batch(golden_model("gen-1"), questions, max_new_tokens=1, observe=observe)
    assert [len(answer.prompt_ids) for answer in answers] == [60, 3, 50, 4]
    assert shapes == {("text.embedded", 4): 1, ("text.embedded", 60): 1}


def test_several_answers_share_one_prefill_and_are_those_of_a_single_run():
    seen, observe = count_calls(["text.blocks.0.out"])
    many = ask_with(observe, num_return=3, seed=4)
    assert seen["text.blocks.0.out", 1] == 1  # the prefill is of one row, the steps of three or fewer
    assert len({each.ids for each in (many, *many.others)}) == 3
    assert ask_with(None, num_return=1, seed=4).ids == many.ids


def ask_with(observe, **settings):
    return generate(
        golden_model("gen-1"), **about("gen-1", 3), max_new_tokens=6, temperature=1.2, observe=observe, **settings
    )


def test_n_best_beams_come_best_first_and_all_differ():
    best = ask("gen-2", 0, max_new_tokens=10, num_beams=5, num_return=4)
    scores = [each.score for each in (best, *best.others)]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    assert len({each.ids for each in (best, *best.others)}) == 4


def test_equal_seeds_draw_equally_and_others_differ():
    drawn = [ask("gen-1", 2, max_new_tokens=12, temperature=1.0, seed=seed).ids for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3


def test_without_a_seed_one_is_drawn_and_told():
    answer = ask("gen-1", 2, max_new_tokens=12, temperature=1.0, seed=None)
    told = int(answer.notes[-1].removeprefix("drawn with seed "))
    assert ask("gen-1", 2, max_new_tokens=12, temperature=1.0, seed=told).ids == answer.ids


def test_inputs_stay_as_they_were():
    asked = request("gen-1", 0)
    before = asked.pixels.copy(), list(asked.ids)
    generate_batch(golden_model("gen-1"), [asked], max_new_tokens=3, num_beams=2)
    assert np.array_equal(asked.pixels, before[0]) and list(asked.ids) == before[1]


# ---- text ----


def test_text_of_an_answer_leaves_the_stop_out_and_ids_keep_it():
    answer = generate(saying("a cat"), PICTURE, "caption en")
    assert answer.text == "a cat"
    assert answer.ids == (*tokenizer().encode("a cat"), tokenizer().eos)
    assert answer.finish_reason == "stop"
    assert len(answer.logprobs) == len(answer.ids)
    assert set(answer.seconds) == {"vision", "prefill", "per_token"}


def test_row_79_an_answer_without_a_stop_ends_by_length():
    answer = generate(saying("one two three"), PICTURE, "count", max_new_tokens=2)
    assert answer.finish_reason == "length"
    assert len(answer.ids) == 2


@pytest.mark.parametrize("text", ("猫は🐈‍⬛窓に", "é🙂ü 🙃", "नमस्ते", "한국어 😀"))
def test_streamed_characters_are_whole_and_add_up_to_the_text(text):
    told = []
    answer = generate(saying(text), PICTURE, "caption en", on_token=told.append)
    assert "".join(token.text for token in told) == answer.text == text
    assert all("\ufffd" not in token.text for token in told)
    assert tuple(token.id for token in told) == answer.ids
    assert tuple(token.logprob for token in told) == answer.logprobs


def test_a_stop_string_that_straddles_tokens_is_never_shown():
    told = []
    answer = generate(saying("a cat ; dog"), PICTURE, "x", stop=["t ; d"], on_token=told.append)
    assert answer.text == "".join(token.text for token in told) == "a ca"
    assert answer.finish_reason == "stop"
    assert answer.ids[-1] != tokenizer().eos


def test_what_only_looked_like_a_stop_string_is_shown():
    told = []
    answer = generate(saying("a cat ; d"), PICTURE, "x", stop=[" ; dog"], on_token=told.append)
    assert "".join(token.text for token in told) == answer.text == "a cat ; d"


def test_beams_end_at_stop_strings_too():
    answer = generate(saying("a cat ; dog"), PICTURE, "x", num_beams=2, stop=[" ;"], max_new_tokens=12)
    assert answer.text == "a cat"
    assert answer.finish_reason == "stop"


def test_row_63_an_empty_prompt_is_allowed_and_said():
    answer = generate(saying("a cat"), PICTURE, "")
    assert answer.prompt_ids[-2:] == (tokenizer().bos, tokenizer().newline)
    assert any("empty" in note for note in answer.notes)


def test_text_only_is_bos_prompt_newline():
    words = tokenizer()
    answer = generate(saying("cat"), None, "what")
    assert answer.prompt_ids == (words.bos, *words.encode("what"), words.newline)


def test_a_model_without_a_tokenizer_takes_and_gives_ids():
    model = dataclasses.replace(wordy_model(), tokenizer=None)
    answer = generate(model, ids=[2, 30, 40], max_new_tokens=3)
    assert (answer.text, len(answer.ids)) == ("", 3)
    with pytest.raises(InputError, match=r"the model 'wordy' has no tokenizer .*, so it takes no prompt; pass ids"):
        generate(model, PICTURE, "caption en")
    with pytest.raises(InputError, match="stop: the model has no tokenizer"):
        generate(model, ids=[2], stop=["x"])


BOXES = "<loc0000><loc0341><loc1023><loc0682> big cat ; <loc0100><loc0200><loc0300> dog"


def test_places_in_an_answer_are_boxes_in_pixels_of_the_picture_as_it_was_given():
    wide = np.zeros((30, 60, 3), np.uint8)
    answer = generate(saying(BOXES), wide, "detect big cat ; dog")
    (box,) = answer.boxes
    # 341 and 682 of 1023 are a third and two thirds of the width; 0 and 1023 the whole height.
    assert (box.label, box.corners) == ("big cat", pytest.approx((20, 0, 40, 30)))
    assert [each.text for each in answer.unread] == ["<loc0100><loc0200><loc0300> dog"]


def test_without_a_picture_or_with_several_places_stay_text():
    for image in (None, [PICTURE, OTHER]):
        answer = generate(saying(BOXES), image, "detect cat")
        assert (answer.text, answer.boxes, answer.unread) == (BOXES, (), ())


def test_answers_that_are_not_the_first_have_boxes_too():
    answer = generate(saying(BOXES), PICTURE, "detect cat", temperature=0.01, num_return=2)
    assert len(answer.boxes) == len(answer.others[0].boxes) == 1


# ---- what is refused ----


@pytest.mark.parametrize("text", ("a <image> b", "<loc0012>", "<seg001>"))
def test_rows_66_and_67_commands_in_a_prompt_are_refused_unless_allowed(text):
    with pytest.raises(PromptError, match="specials='allow'"):
        generate(wordy_model(), PICTURE, text, max_new_tokens=1)
    pictures = PICTURE if "image" in text else None
    assert generate(wordy_model(), pictures, text, specials="allow", max_new_tokens=1).ids


@pytest.mark.parametrize("prompt", (None, b"caption", ["caption"], 7))
def test_row_71_a_prompt_that_is_no_text_is_a_type_error(prompt):
    with pytest.raises(TypeError, match="want one str") as caught:
        generate(wordy_model(), PICTURE, prompt)
    assert isinstance(caught.value, NpgemmaError)


def test_row_73_more_than_the_context_is_refused_with_counts():
    with pytest.raises(NpgemmaError, match=r"4 image tokens and .* of text make .*512"):
        generate(wordy_model(), PICTURE, "cat " * 600)
    with pytest.raises(InputError, match=r"3 positions of prompt .* and 510 of answer;\s+the trained context is 512"):
        generate(wordy_model(), ids=[2, 30, 40], max_new_tokens=510)


def test_without_a_length_the_answer_gets_what_the_context_leaves():
    context = wordy_model().config.text.max_positions
    answer = generate(saying("cat " * 300), ids=[2] * (context - 7))
    assert (len(answer.ids), answer.finish_reason) == (7, "length")


def test_row_78_no_tokens_are_an_empty_answer():
    for beams in (1, 3):
        answer = generate(wordy_model(), PICTURE, "x", max_new_tokens=0, num_beams=beams)
        assert (answer.text, answer.ids, answer.finish_reason) == ("", (), "length")


def test_row_80_image_tokens_without_their_pictures_are_refused_with_both_numbers():
    model = wordy_model()
    image = model.config.image_token_id
    with pytest.raises(InputError, match=r"5 image tokens .* 1 pictures of 4 soft tokens"):
        generate(model, PICTURE, ids=[image] * 5 + [2, 30, 8])
    with pytest.raises(InputError, match=r"0 image tokens .* 1 pictures"):
        generate(model, PICTURE, ids=[2, 30, 8])


@pytest.mark.parametrize("ids", ([], "2,3", 5, [2, -1], [2, 1.5], [2, True], [[2, 3]], [2, 10**6]))
def test_ids_that_are_none_are_refused(ids):
    with pytest.raises(InputError, match="ids"):
        generate(wordy_model(), ids=ids, max_new_tokens=2)


@pytest.mark.parametrize("shape", ((9, 9, 3), (1, 3, 9, 9), (1, 8, 9, 3), (1, 1, 9, 9, 3)))
def test_pixels_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"pixels: came as .* want \(pictures of the prompt, 9, 9, 3\)"):
        generate(wordy_model(), pixels=np.zeros(shape, np.float32), prompt="x")


def test_two_ways_to_say_one_thing_are_refused():
    with pytest.raises(InputError, match="prompt and ids are both given"):
        generate(wordy_model(), None, "cat", ids=[2])
    with pytest.raises(InputError, match="image and pixels are both given"):
        generate(wordy_model(), PICTURE, "cat", pixels=np.zeros((1, 9, 9, 3)))


def test_one_listener_cannot_hear_several_answers():
    for settings in ({"num_beams": 2}, {"num_return": 2, "temperature": 1.0}):
        with pytest.raises(InputError, match="on_token: tells of one growing answer"):
            generate(wordy_model(), PICTURE, "x", on_token=print, **settings)
    with pytest.raises(InputError, match="on_token"):
        generate_batch(wordy_model(), [Request(prompt="a"), Request(prompt="b")], on_token=print)


def test_a_batch_of_nothing_is_nothing():
    assert generate_batch(wordy_model(), []) == []


def test_prompts_of_the_goldens_have_different_lengths():
    lengths = {len(prompt["ids"]) for prompt in golden_answers("gen-1")["prompts"]}
    assert len(lengths) >= 6
