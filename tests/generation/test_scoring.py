"""Likelihoods of given answers against the plain way: one forward pass for each."""

import dataclasses

import numpy as np
import pytest
from generation_models import golden_model, request, saying, wordy_model

from npgemma import forward
from npgemma.base.errors import InputError, PromptError
from npgemma.generation import scoring
from npgemma.generation.generate import generate
from npgemma.generation.processors import log_softmax
from npgemma.generation.scoring import groups, score

PICTURE = np.zeros((9, 9, 3), np.uint8)
ANSWERS = ([9, 60, 1], [14, 14, 80, 3, 51, 22, 1], [1], [130, 6, 1])


def plainly(model, asked, answer):
    """Log-probability of each id of an answer, by a forward pass over prompt and answer."""
    ids = np.array([[*asked.ids, *answer]])
    types = np.array([[0] * len(asked.ids) + [1] * len(answer)])
    logits = forward(model, ids, asked.pixels[None], token_types=types)
    return log_softmax(logits[0, len(asked.ids) - 1 : -1])[np.arange(len(answer)), answer]


@pytest.mark.parametrize("name", ("gen-1", "gen-2"))
def test_one_prefill_scores_as_a_forward_pass_for_each_answer(name):
    model, asked = golden_model(name, "float64"), request(name, 1)
    found = score(model, ids=asked.ids, pixels=asked.pixels, answers=ANSWERS)
    for ours, answer in zip(found.answers, ANSWERS, strict=True):
        np.testing.assert_allclose(ours.logprobs, plainly(model, asked, answer), atol=1e-12)
        assert ours.total == pytest.approx(sum(ours.logprobs))
        assert ours.mean == pytest.approx(ours.total / len(answer))


def test_scoring_what_was_generated_gives_the_logprobs_of_generation():
    model, asked = golden_model("gen-2"), request("gen-2", 0)
    answer = generate(model, ids=asked.ids, pixels=asked.pixels, max_new_tokens=15)
    found = score(model, ids=asked.ids, pixels=asked.pixels, answers=[answer.ids])
    np.testing.assert_allclose(found.answers[0].logprobs, answer.logprobs, atol=1e-4)


def test_answers_in_small_groups_score_the_same(monkeypatch):
    model, asked = golden_model("gen-1", "float64"), request("gen-1", 1)
    whole = score(model, ids=asked.ids, pixels=asked.pixels, answers=ANSWERS)
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 8 * model.config.text.vocab_size)
    parts = score(model, ids=asked.ids, pixels=asked.pixels, answers=ANSWERS)
    assert len(list(groups([list(each) for each in ANSWERS], 8))) > 1
    for a, b in zip(whole.answers, parts.answers, strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-12)


def test_groups_count_their_padding():
    assert list(groups([[1], [1, 1, 1], [1], [1] * 9], 6)) == [[[1], [1, 1, 1]], [[1]], [[1] * 9]]


def test_the_two_losses_of_a_batch_are_two_means():
    first, second = (scoring.Score((1,) * len(each), each, each) for each in ((-1.0, -2.0, -3.0), (-6.0,)))
    scores = scoring.Scores((first, second), ())
    assert scores.hf_loss == 12.0 / 4  # all tokens alike
    assert scores.big_vision_loss == (2.0 + 6.0) / 2  # all answers alike


def test_without_a_final_cap_both_log_probabilities_agree():
    asked = request("gen-1", 0)
    for each in score(golden_model("gen-1"), ids=asked.ids, pixels=asked.pixels, answers=ANSWERS).answers:
        assert each.logprobs == each.uncapped_logprobs


def test_the_prompt_is_read_and_the_picture_seen_once():
    seen = []
    asked = request("gen-1", 0)

    def observe(name, x):
        if name in ("vision.norm", "ids"):
            seen.append((name, x.shape))

    score(golden_model("gen-1"), ids=asked.ids, pixels=asked.pixels, answers=ANSWERS, observe=observe)
    assert [name for name, _ in seen] == ["vision.norm", "ids", "ids"]
    assert [shape for name, shape in seen if name == "ids"] == [(1, len(asked.ids)), (4, 6)]


def test_the_likeliest_text_is_what_the_model_says():
    found = score(saying("cat"), PICTURE, "caption en", ["dog", "cat", "a longer text"])
    totals = [each.total for each in found.answers]
    assert totals.index(max(totals)) == 1


@pytest.mark.parametrize(
    "answers, message",
    (([], "answers: came empty"), ([[]], "one has no ids"), ([[99999]], "ids came in"), ([[-1, 5]], "came as -1")),
)
def test_answers_that_are_none_are_refused(answers, message):
    with pytest.raises(InputError, match=message):
        score(wordy_model(), PICTURE, "x", answers)


def test_commands_in_an_answer_are_refused_unless_allowed():
    with pytest.raises(PromptError, match="<loc0001>"):
        score(wordy_model(), PICTURE, "x", ["<loc0001> cat"])
    assert score(wordy_model(), PICTURE, "x", ["<loc0001> cat"], specials="allow").answers[0].total < 0


def test_text_needs_a_tokenizer():
    with pytest.raises(InputError, match="takes no answers as text"):
        score(dataclasses.replace(wordy_model(), tokenizer=None), ids=[2, 5], answers=["cat"])


@pytest.mark.parametrize("answers", ("yes", None, 5, [5], [[1.5]], [["a"]]))
def test_what_is_no_list_of_answers_is_refused(answers):
    with pytest.raises(InputError, match="^answers: came as "):
        score(wordy_model(), PICTURE, "x", answers)
