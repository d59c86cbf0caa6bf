"""Answers to detect that follow the pattern, whatever the model would rather say."""

import re

import numpy as np
import pytest
from generation_models import saying, tokenizer, wordy_model

from npgemma.generation.constraints import Detections
from npgemma.generation.generate import generate

PICTURE = np.zeros((9, 9, 3), np.uint8)
LABEL = r"[^;<\n]*[^;< \n][^;<\n]*"
PATTERN = re.compile(rf"((<loc\d{{4}}>){{4}}{LABEL}( ; (<loc\d{{4}}>){{4}}{LABEL})*)?")


@pytest.fixture(scope="module")
def detections():
    return Detections(tokenizer(), [tokenizer().eos])


def follows(detections, text):
    """Whether each token of a text, and then the stop, is allowed after the ones before."""
    ids = [*tokenizer().encode(text, "allow"), tokenizer().eos]
    return all(token in detections(ids[:place]) for place, token in enumerate(ids))


BOX = "<loc0001><loc0200><loc1023><loc0200>"


@pytest.mark.parametrize("text", ("", f"{BOX} cat", f"{BOX} big cat ; {BOX} dog", f"{BOX} a cat ; {BOX} x ; {BOX} y"))
def test_what_the_pattern_says_may_come(detections, text):
    assert follows(detections, text)


@pytest.mark.parametrize(
    "text",
    (
        "cat",
        "<loc0001>",
        "<loc0001><loc0002> cat",
        BOX,
        f"{BOX}<loc0001> cat",
        f"{BOX} cat ; ",
        f"{BOX} cat; {BOX} dog",
        f"{BOX} cat {BOX} dog",
        f"{BOX} cat ; dog",
        f"{BOX} cat<seg001>",
        f"{BOX} cat\n",
        f"{BOX}   ",
        f"{BOX} cat ;; {BOX} a",
        "<loc0500><loc0000><loc0499><loc0010> cat",
        "<loc0000><loc0500><loc0010><loc0499> cat",
    ),
)
def test_what_the_pattern_does_not_say_may_not_come(detections, text):
    assert not follows(detections, text)


@pytest.mark.parametrize("seed", range(8))
def test_any_held_answer_parses_or_was_cut_by_its_length(detections, seed):
    # Hot draws: a random model that would say anything at all.
    answer = generate(
        wordy_model(), PICTURE, "detect cat", temperature=3.0, seed=seed, allowed=detections, max_new_tokens=60
    )
    if answer.finish_reason == "stop":
        assert PATTERN.fullmatch(answer.text), answer.text
        assert not answer.unread and len(answer.boxes) * 4 == answer.text.count("<loc")
    parts = re.findall(r"((?:<loc\d{4}>)+)", answer.text)
    assert all(part.count("<loc") == 4 for part in parts[:-1])


def test_a_held_answer_is_the_models_own_where_that_parses(detections):
    text = f"{BOX} cat ; {BOX} dog"
    answer = generate(saying(text), PICTURE, "detect cat ; dog", allowed=detections)
    assert (answer.text, answer.finish_reason) == (text, "stop")


def test_beams_are_held_too(detections):
    answer = generate(wordy_model(), PICTURE, "detect cat", num_beams=3, allowed=detections, max_new_tokens=9)
    assert re.match(r"(<loc\d{4}>){4}|$", answer.text)


def test_a_set_of_ids_is_kept_to():
    answer = generate(wordy_model(), PICTURE, "x", allowed={30, 41, 52}, max_new_tokens=6)
    assert len(answer.ids) == 6 and set(answer.ids) <= {30, 41, 52}
