"""Scores of boxes and masks against COCOeval, and what can be seen by eye."""

import json
import math

import numpy as np
import pytest

import golden
from npgemma.places.detection import THRESHOLDS, Target, average_precision, mask_iou, overlap, reliability
from npgemma.places.evaluate import target_of

CASES = json.loads((golden.GOLDEN / "scores" / "cases.json").read_text())["detection"]
CAT = Target("cat", (0.0, 0.0, 10.0, 10.0))


def targets(case, name):
    return [[target_of(one) for one in picture[name]] for picture in case["pictures"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['pictures'])} pictures")
def test_average_precision_is_that_of_coco(case):
    assert len(CASES) == 5 and any(one["crowd"] for case in CASES for p in case["pictures"] for one in p["objects"])
    ours = average_precision(targets(case, "boxes"), targets(case, "objects"))
    np.testing.assert_allclose(ours, case["precisions"], rtol=0, atol=1e-9)


def test_thresholds_run_from_one_half_to_095():
    assert THRESHOLDS.tolist() == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])


def test_a_box_found_twice_counts_once():
    assert average_precision([[CAT]], [[CAT]]).tolist() == pytest.approx([1.0] * 10)
    # The second comes after full recall, and spoils nothing; before it, it halves the precision.
    assert average_precision([[CAT, CAT]], [[CAT]])[0] == pytest.approx(1.0)
    other = Target("cat", (20.0, 20.0, 30.0, 30.0), 2.0)
    assert average_precision([[CAT, other]], [[CAT]])[0] == pytest.approx(0.5)


def test_a_crowd_gets_only_what_has_found_nothing_else():
    crowd = Target("cat", (0.0, 0.0, 100.0, 100.0), crowd=True)
    near = Target("cat", (0.0, 0.0, 10.0, 12.0))  # 5/6 of the cat, and all of it in the crowd
    assert average_precision([[near]], [[crowd, CAT]])[0] == pytest.approx(1.0)
    inside = Target("cat", (50.0, 50.0, 60.0, 60.0), 2.0)  # counts neither way
    assert average_precision([[inside, near]], [[crowd, CAT]])[0] == pytest.approx(1.0)


def test_another_label_or_no_box_at_all_is_nothing():
    dog = Target("dog", CAT.corners)
    assert average_precision([[dog]], [[CAT]])[0] == 0.0
    assert average_precision([[]], [[CAT]])[0] == 0.0
    assert math.isnan(average_precision([[CAT]], [[]])[0])


def test_overlap_is_shared_over_covered():
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
    assert overlap((0, 0, 2, 2), (1, 1, 3, 3), crowd=True) == pytest.approx(1 / 4)
    assert overlap((0, 0, 2, 2), (2, 0, 3, 2)) == 0.0
    assert overlap((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0


def test_the_iou_of_masks_counts_pixels():
    one, two = np.zeros((2, 3), bool), np.zeros((2, 3), bool)
    assert mask_iou(one, two) == 0.0
    one[0], two[:, 0] = True, True
    assert mask_iou(one, two) == pytest.approx(1 / 4)


def test_reliability_sorts_into_bins():
    table = reliability([0.05, 0.15, 0.15, 1.0], [False, True, False, True])
    assert [count for count, _, _ in table] == [1, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert table[1][1:] == pytest.approx((0.15, 0.5)) and table[9][1:] == (1.0, 1.0)
    assert math.isnan(table[4][2])
