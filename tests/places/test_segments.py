"""Masks in the picture's pixels, and masks as codes, against the steps of big_vision."""

import json

import numpy as np
import pytest
from random_codecs import codec, codec_inputs

import golden
from npgemma.base.errors import InputError
from npgemma.places.run_lengths import encode_runs
from npgemma.places.segments import WAYS, encode_mask, paint_mask
from npgemma.words.locations import Box, read_boxes, write_boxes

GOLDEN = json.loads((golden.GOLDEN / "masks" / "cases.json").read_text())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", GOLDEN["painted"], ids=lambda case: str(case["size"]))
def test_a_mask_is_painted_as_its_published_reader_paints_it(case, way):
    text = "".join(f"<loc{place:04d}>" for place in case["locations"])
    text += "".join(f"<seg{code:03d}>" for code in case["codes"])
    [box], unread = read_boxes(text, case["size"], WAYS[way])
    mask = paint_mask(codec(GOLDEN["widths"], "float32"), box, case["size"], way)
    assert not unread
    assert (None if mask is None else encode_runs(mask)["counts"]) == case[way]


@pytest.mark.parametrize("case", GOLDEN["encoded"], ids=lambda case: str(case["size"]))
def test_a_mask_is_encoded_as_from_jax_s_resizing(case):
    assert min(case["gaps"]) > 1e-3
    height, width = case["size"]
    blots = codec_inputs.uniform(case["seed"], (height // 4 + 1, width // 4 + 1)) < 0.5
    mask = np.kron(blots, np.ones((4, 4)))[:height, :width]
    box = encode_mask(codec(GOLDEN["widths"], "float64"), mask, case["corners"], "blot")
    assert list(box.segments) == case["codes"]
    assert box.label == "blot" and box.corners == tuple(case["corners"])


def test_an_encoded_mask_is_an_answer_to_learn():
    box = encode_mask(codec("awkward", "float32"), np.ones((100, 50), bool), (0, 0, 50, 100), "wall")
    text = write_boxes([box], (50, 100))
    assert text.startswith("<loc0000><loc0000><loc1023><loc1023><seg") and text.endswith(" wall")
    assert text.count("<seg") == 16 and read_boxes(text, (50, 100))[0] == [box]


@pytest.mark.parametrize(
    "mask, corners, reason",
    [
        (np.ones((4, 4, 1)), (0, 0, 1, 1), "mask: came as"),
        (np.array([["a"]]), (0, 0, 1, 1), "mask: came as"),
        (np.ones((4, 4)), (0, 0, 5, 4), "corners: came as"),
        (np.ones((4, 4)), (3, 0, 2, 4), "corners: came as"),
        (np.ones((4, 4)), (float("nan"), 0, 2, 4), "corners: came as"),
        (np.ones((4, 4)), (1.1, 0, 1.4, 4), "holds no whole pixel"),
    ],
)
def test_what_cannot_be_encoded_is_refused(mask, corners, reason):
    with pytest.raises(InputError, match=reason):
        encode_mask(codec("awkward", "float32"), mask, corners)


def test_an_unknown_way_is_refused():
    with pytest.raises(InputError, match="way: came as 'mine'; want one of big_vision, demo"):
        paint_mask(codec("awkward", "float32"), Box("", (0, 0, 1, 1), (0,) * 16), (2, 2), "mine")
