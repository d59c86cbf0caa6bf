"""Answers as places in their picture: boxes, masks, reasons, confidence."""

import dataclasses
import math

import numpy as np
import pytest
from generation_models import saying, tokenizer
from random_codecs import codec
from token_strings import token_string

from npgemma import encode_mask, generate, locate
from npgemma.base.errors import InputError
from npgemma.generation.answers import Answer
from npgemma.places.segments import paint_mask
from npgemma.words.locations import read_boxes

CODEC = codec("awkward", "float32")
PICTURE = np.zeros((40, 60, 3), np.uint8)
SIZE = (60, 40)
BOX = "<loc0000><loc0341><loc1023><loc0682>"
CODES = "".join(f"<seg{code:03d}>" for code in range(100, 116))
MODEL = saying("")


def answer_of(text, logprobs=None):
    """An answer with this text, each token as likely as it says, or certain."""
    ids = tokenizer().encode(text, "allow")
    return Answer(text, tuple(ids), "stop", tuple([0.0] * len(ids) if logprobs is None else logprobs))


def test_each_object_has_its_box_and_its_mask_in_order():
    places, unread = locate(MODEL, answer_of(f"{BOX}{CODES} cat ; {BOX} dog ; {CODES}"), PICTURE, CODEC)
    assert [place.box.label for place in places] == ["cat", "dog"]
    assert (places[0].mask == paint_mask(CODEC, places[0].box, SIZE)).all() and places[0].mask.any()
    assert places[1].mask is None and places[1].unmasked == ""
    assert unread[0].reason.startswith("it does not begin with <loc")


def test_a_generated_answer_is_read():
    answer = generate(saying(f"{BOX}{CODES} cat"), PICTURE, "segment cat")
    [place], unread = locate(MODEL, answer, PICTURE, CODEC)
    assert not unread and place.box == answer.boxes[0] and place.mask.shape == (40, 60)
    assert place.confidence == pytest.approx(1.0) and place.mask_confidence == pytest.approx(1.0)


def test_without_a_codec_it_says_where_to_put_one():
    [place], _ = locate(MODEL, answer_of(f"{BOX}{CODES}"), PICTURE)
    assert place.mask is None and "--codec FILE" in place.unmasked and "vae-oid.npz" in place.unmasked


def test_a_box_without_a_pixel_is_a_named_reason():
    [place], _ = locate(MODEL, answer_of(f"<loc0001><loc0001><loc0900><loc0002>{CODES}"), PICTURE, CODEC)
    assert place.mask is None and place.unmasked == "its box holds no whole pixel"


def test_the_demonstration_divides_by_1024():
    ours, theirs = (locate(MODEL, answer_of(BOX), PICTURE, way=way)[0][0].box for way in ("big_vision", "demo"))
    assert ours.corners[3] == 40.0 and theirs.corners[3] == 40.0 * 1023 / 1024


def test_an_answer_without_places_has_none():
    assert locate(MODEL, answer_of("a cat ; a dog"), PICTURE, CODEC) == ([], [])
    assert locate(MODEL, answer_of(BOX), None, CODEC) == ([], [])


def test_confidence_is_the_mean_probability_of_a_box_s_tokens_and_of_a_mask_s():
    text = f"{BOX}{CODES} cat"
    count = len(tokenizer().encode(text, "allow"))
    logprobs = [-0.1, -0.2, -0.3, -0.4, *[-0.05] * 15, -2.0, *[-0.6] * (count - 20)]
    [place], _ = locate(MODEL, answer_of(text, logprobs), PICTURE, CODEC)
    label = count - 20
    assert place.confidence == pytest.approx(math.exp(-(1.0 + 0.6 * label) / (4 + label)))
    assert place.mask_confidence == pytest.approx(math.exp(-(15 * 0.05 + 2.0) / 16))
    assert place.probability == pytest.approx(math.exp(sum(logprobs)))


def test_each_object_has_the_tokens_of_its_own():
    text = f"{BOX} cat ; {BOX} dog"
    ids = tokenizer().encode(text, "allow")
    logprobs = [-0.01 * place for place in range(len(ids))]
    corner = tokenizer().encode(BOX, "allow")[0]
    second = ids.index(corner, 1)
    first, other = locate(MODEL, answer_of(text, logprobs), PICTURE)[0]
    assert first.box_logprobs[:4] == tuple(logprobs[:4])
    assert other.box_logprobs == tuple(logprobs[second:])
    assert math.isnan(first.mask_confidence)


def test_unsure_boxes_and_masks_are_left_out():
    text = f"{BOX}{CODES} cat"
    count = len(tokenizer().encode(text, "allow"))
    answer = answer_of(text, [-0.1] * 4 + [-1.0] * 16 + [-0.1] * (count - 20))
    [place], _ = locate(MODEL, answer, PICTURE, CODEC, min_confidence=0.5)
    assert place.mask is None and place.unmasked == "its codes are less sure than 0.5"
    assert locate(MODEL, answer, PICTURE, CODEC, min_confidence=0.95) == ([], [])
    assert locate(MODEL, answer, PICTURE, CODEC, min_confidence=0.3)[0][0].mask is not None


def test_where_probabilities_are_not_known_confidence_is_not():
    [place], _ = locate(MODEL, dataclasses.replace(answer_of(BOX), logprobs=()), PICTURE, min_confidence=0.5)
    assert math.isnan(place.confidence) and math.isnan(place.probability)
    assert "confidence" not in place.as_object()


def test_json_has_run_lengths_polygons_and_reasons():
    [place], _ = locate(MODEL, answer_of(f"{BOX}{CODES} cat"), PICTURE, CODEC)
    solid = dataclasses.replace(place, mask=np.ones((2, 3), bool)).as_object()
    assert solid["mask"] == {"size": [2, 3], "counts": "06"}
    assert solid["polygons"] == [[0, 0, 3, 0, 3, 2, 0, 2]]
    ring = np.pad(np.zeros((1, 1), bool), 1, constant_values=True)
    assert "polygons" not in dataclasses.replace(place, mask=ring).as_object()
    assert dataclasses.replace(place, unmasked="why").as_object()["unmasked"] == "why"


@pytest.mark.parametrize("options, reason", [({"way": "x"}, "way: came as 'x'"), ({"min_confidence": 1.5}, "0 to 1")])
def test_strange_options_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        locate(MODEL, answer_of(BOX), PICTURE, **options)


def test_any_token_string_becomes_boxes_masks_or_named_reasons():
    # tools/fuzz_places.py reads a million of them.
    made = {"mask": 0, "box": 0, "reason": 0}
    for seed in range(1500):
        text, size = token_string(seed), (1 + seed % 41, 1 + seed % 37)
        boxes, unread = read_boxes(text, size)
        assert len(boxes) + len(unread) == (len(text.split(";")) if text.strip() else 0)
        assert all(one.reason for one in unread)
        made["reason"] += len(unread)
        for box in boxes:
            mask = paint_mask(CODEC, box, size) if box.segments else None
            made["mask" if mask is not None else "box"] += 1
            assert mask is None or mask.shape == size[::-1]
    assert min(made.values()) > 100


def test_what_encode_mask_writes_is_read_back_as_the_codec_s_mask():
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    box = encode_mask(CODEC, mask, (20, 10, 50, 30), "wall")
    assert paint_mask(CODEC, box, SIZE)[10:30, 20:50].shape == (20, 30)
    assert not paint_mask(CODEC, box, SIZE)[:, :20].any()
