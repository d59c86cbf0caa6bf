"""Scores of texts against the published judges' own functions."""

import json

import numpy as np
import pytest

import golden
from npgemma.base.errors import InputError
from npgemma.places.captions import caption_words, cider
from npgemma.places.text_scores import anls, edit_distance, normalise_vqa, relaxed, vqa_accuracy

CASES = json.loads((golden.GOLDEN / "scores" / "cases.json").read_text())


def test_answers_are_normalised_as_vqa_s_judges_do():
    assert len(CASES["vqa"]["normalised"]) > 150
    for case in CASES["vqa"]["normalised"]:
        assert normalise_vqa(case["text"]) == case["normal"], case["text"]


def test_vqa_accuracy_is_that_of_the_published_rule():
    scores = {round(case["score"], 9) for case in CASES["vqa"]["judged"]}
    assert {0.0, 0.3, 0.6, 0.9, 1.0} == scores
    for case in CASES["vqa"]["judged"]:
        assert vqa_accuracy(case["text"], case["answers"]) == pytest.approx(case["score"], abs=1e-9)


def test_three_of_ten_are_enough_nine_times_of_ten():
    assert vqa_accuracy("cat", ["cat"] * 3 + ["dog"] * 7) == pytest.approx(0.9)
    assert vqa_accuracy("Cat.", ["cat"] * 4 + ["dog"] * 6) == pytest.approx(1.0)
    assert vqa_accuracy("Cat.", ["cat"] * 10) == 0.0  # where all agree, nothing is normalised


def test_vqa_accuracy_wants_ten_annotators():
    with pytest.raises(InputError, match="9 answers came; the rule wants those of 10"):
        vqa_accuracy("cat", ["cat"] * 9)


def test_anls_is_that_of_big_vision():
    assert sum(0 < case["score"] < 1 for case in CASES["text"]["anls"]) >= 4
    for case in CASES["text"]["anls"]:
        assert anls(case["text"], case["answers"]) == pytest.approx(case["score"], abs=1e-9), case


def test_in_lower_case_anls_is_that_of_the_package_anls():
    cases = CASES["text"]["anls"]
    assert sum(case["folded"] != case["score"] for case in cases) >= 2
    for case in cases:
        folded = anls(case["text"].lower(), [answer.lower() for answer in case["answers"]])
        assert folded == pytest.approx(case["folded"], abs=1e-9), case


WORDS = [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("flaw", "lawn", 2)]


@pytest.mark.parametrize("one, two, far", WORDS)
def test_edits_are_counted(one, two, far):
    assert edit_distance(one, two) == far


def test_half_of_the_letters_wrong_is_all_wrong():
    assert anls("ab", ["ac"]) == 0.0 and anls("abc", ["abd"]) == pytest.approx(2 / 3)


def test_relaxed_accuracy_is_that_of_big_vision():
    assert len(CASES["text"]["relaxed"]) > 300
    for case in CASES["text"]["relaxed"]:
        assert relaxed(case["text"], case["answer"]) == case["score"], case


def test_cider_is_that_of_pycocoevalcap():
    for corpus in CASES["captions"]["corpora"]:
        captions = [one["text"].split() for one in corpus["pictures"]]
        references = [[people.split() for people in one["captions"]] for one in corpus["pictures"]]
        scores = cider(captions, references)
        np.testing.assert_allclose(scores, corpus["scores"], rtol=0, atol=1e-9)
        assert scores.mean() == pytest.approx(corpus["mean"], abs=1e-9)


def test_of_a_single_picture_nothing_is_rare():
    assert cider([["a", "cat"]], [[["a", "cat"]]]).tolist() == [0.0]


def test_captions_are_split_as_pycocoevalcap_s_tokenizer_splits_them():
    assert len(CASES["captions"]["tokens"]) > 15
    for caption, words in CASES["captions"]["tokens"].items():
        assert " ".join(caption_words(caption)) == words
        assert " ".join(caption_words(words)) == words  # what it has split stays as it is
