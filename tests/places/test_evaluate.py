"""Scores of a file of answers: what can be had, from which fields, and what is refused."""

import json

import numpy as np
import pytest
from random_codecs import codec

import golden
from npgemma import evaluate
from npgemma.base.errors import InputError
from npgemma.places.evaluate import confidence_table
from npgemma.places.run_lengths import encode_runs

CASES = json.loads((golden.GOLDEN / "scores" / "cases.json").read_text())
CODEC = codec("awkward", "float32")


def segmented():
    return [
        {"text": case["text"], "question": {"objects": [{"label": "", "box": case["box"], "mask": case["mask"]}]}}
        for case in CASES["segmentation"]
    ]


def test_an_answer_is_held_against_its_question():
    lines = [
        {"text": "4", "question": {"image": "a.png", "prompt": "how many?", "answer": "4"}},
        {"text": "Five", "question": {"answer": "five"}},
    ]
    anls = pytest.approx((1 + 0.75) / 2)
    assert evaluate(lines) == {
        "exact": 0.5, "exact/count": 2, "anls": anls, "anls/count": 2, "relaxed": 0.5, "relaxed/count": 2,
    }
    assert evaluate(lines, fold_case=True)["exact"] == 1.0
    assert evaluate(lines, fold_case=True)["anls"] == 1.0


def test_scores_are_the_means_of_their_judges():
    vqa = [{"text": case["text"], "answers": case["answers"]} for case in CASES["vqa"]["judged"]]
    want = np.mean([case["score"] for case in CASES["vqa"]["judged"]])
    assert evaluate(vqa, scores=["vqa"]) == {"vqa": pytest.approx(want, abs=1e-9), "vqa/count": len(vqa)}
    near = [{"text": case["text"], "answer": case["answer"]} for case in CASES["text"]["relaxed"]]
    want = np.mean([case["score"] for case in CASES["text"]["relaxed"]])
    assert evaluate(near, scores=["relaxed"])["relaxed"] == pytest.approx(want, abs=1e-9)
    corpus = CASES["captions"]["corpora"][-1]
    assert evaluate(corpus["pictures"])["cider"] == pytest.approx(corpus["mean"], abs=1e-9)


def test_detection_reads_boxes_of_the_line_or_of_the_text():
    case = CASES["detection"][2]
    lines = [{"text": "", **picture} for picture in case["pictures"]]
    found = evaluate(lines)
    assert found["detection/mAP"] == pytest.approx(np.mean(case["precisions"]), abs=1e-9)
    assert found["detection/AP50"] == pytest.approx(case["precisions"][0], abs=1e-9)
    cat = {"label": "cat", "box": [0, 0, 100, 50]}
    text = {"text": "<loc0000><loc0000><loc1023><loc1023> cat", "size": [100, 50], "objects": [cat]}
    assert evaluate([text])["detection/mAP"] == pytest.approx(1.0)
    assert evaluate([text | {"text": "nothing"}])["detection/mAP"] == 0.0


def test_refcoco_s_scores_are_those_of_big_vision():
    cases = CASES["segmentation"]
    found = evaluate(segmented(), codec=CODEC)
    assert 0 < sum(case["invalid"] for case in cases) < len(cases) / 2
    assert found["masks/mIoU"] == pytest.approx(np.mean([case["iou"] for case in cases]), abs=1e-9)
    assert found["masks/invalid"] == sum(case["invalid"] for case in cases)
    for least in (0.5, 0.75):
        want = np.mean([case["box_iou"] >= least for case in cases])
        assert found[f"boxacc/{least}"] == pytest.approx(want, abs=1e-9)


def test_masks_of_the_line_need_no_codec():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    wanted = {"label": "a", "box": [1, 1, 4, 3], "mask": encode_runs(mask)}
    half = wanted | {"mask": encode_runs(mask & (np.arange(4) < 2)[:, None])}
    assert evaluate([{"text": "x", "boxes": [half], "objects": [wanted]}])["masks/mIoU"] == pytest.approx(0.5)
    larger = wanted | {"mask": encode_runs(np.ones((4, 6), bool))}
    with pytest.raises(InputError, match=r"line 1: the mask is \(4, 6\), the wanted one \(4, 5\)"):
        evaluate([{"text": "x", "boxes": [larger], "objects": [wanted]}])
    with pytest.raises(InputError, match="codec: line 1: its mask is in the text only"):
        evaluate(segmented()[:1])


def test_a_failed_line_counts_as_an_empty_answer():
    lines = [{"error": "no such picture", "question": {"answer": "4"}}, {"text": "4", "question": {"answer": "4"}}]
    assert evaluate(lines)["exact"] == 0.5


@pytest.mark.parametrize(
    "line, reason",
    [
        ("4", "line 1: came as str"),
        ({}, "line 1: has no 'text'"),
        ({"text": 4}, "line 1: has no 'text'"),
        ({"text": "4"}, "nothing to hold 1 answers against; want answer, answers, captions or objects"),
        ({"text": "4", "answer": 4}, "line 1: answer came as 4; want a text"),
        ({"text": "4", "answers": "four"}, "line 1: answers came as 'four'; want a list of texts"),
        ({"text": "4", "captions": []}, "line 1: captions came as"),
        ({"text": "4", "objects": [{"label": "a"}]}, "line 1: objects came as"),
        ({"text": "4", "objects": [{"label": "a", "box": [5, 0, 1, 1]}]}, "line 1: objects came as"),
        ({"text": "<loc0001>", "objects": [{"label": "a", "box": [0, 0, 1, 1]}]}, "want 'size'"),
        ({"text": "x", "size": [1], "objects": [{"label": "a", "box": [0, 0, 1, 1]}], "boxes": 3}, "boxes came as 3"),
    ],
)
def test_what_cannot_be_scored_is_one_named_line(line, reason):
    with pytest.raises(InputError, match=reason):
        evaluate([line])


def test_a_score_that_cannot_be_had_is_refused():
    with pytest.raises(InputError, match="scores: vqa: none of 1 answers has what it is held against"):
        evaluate([{"text": "4", "answer": "4"}], scores=["vqa"])
    with pytest.raises(InputError, match="scores: came as 'bleu'; want one of exact"):
        evaluate([], scores=["bleu"])


def test_confidence_is_worth_what_is_right():
    cat, far = {"label": "cat", "box": [0, 0, 9, 9]}, {"label": "cat", "box": [50, 50, 60, 60]}
    line = {"text": "", "objects": [cat], "boxes": [cat | {"confidence": 0.95}, far | {"confidence": 0.42}]}
    table = confidence_table([line, {"text": "no objects"}])
    assert table[9] == (1, 0.95, 1.0) and table[4] == (1, 0.42, 0.0)
    assert sum(count for count, _, _ in table) == 2
