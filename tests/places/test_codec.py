"""The mask codec against Flax (decoder) and PyTorch (encoder), tensor by tensor."""

import numpy as np
import pytest
from random_codecs import codec, codec_inputs

import golden
from npgemma.base.errors import InputError
from npgemma.places.codec import decode, encode, nearest

# float32 codes must agree wherever the nearest word is nearer than the next by this.
CLEAR = 1e-4
CASES = [(name, dtype) for name in codec_inputs.WIDTHS for dtype in ("float64", "float32")]


def run(name, dtype):
    """Codes of the golden's masks, masks of its codes, and everything that was kept on the way."""
    seen = {}
    w = codec(name, dtype).watched_by(lambda place, array: seen.update({place: array}))
    codes = encode(codec_inputs.make_masks().astype(dtype), w)
    masks = decode(codec_inputs.make_codes(), w)
    return codes, masks, seen


@pytest.mark.parametrize("name, dtype", CASES)
def test_every_grid_is_that_of_the_reference(name, dtype):
    _, masks, seen = run(name, dtype)
    expected = golden.read(f"codec/{name}-{dtype}")
    allowed = {"float64": 1e-12, "float32": 1e-5}[dtype]
    compared = [place for place in expected if place not in ("codes", "gaps")]
    assert len(compared) == (2 if name == "released" else 15)
    for place in compared:
        error = np.linalg.norm(seen[place] - expected[place]) / np.linalg.norm(expected[place])
        assert seen[place].dtype == dtype and error <= allowed, f"{place}: {error:.2g}"
    assert (masks == seen["decoder.out"][..., 0]).all()


@pytest.mark.parametrize("name, dtype", CASES)
def test_codes_are_those_of_the_reference(name, dtype):
    codes, _, _ = run(name, dtype)
    expected, exact = golden.read(f"codec/{name}-{dtype}"), golden.read(f"codec/{name}-float64")
    clear = exact["gaps"] > (CLEAR if dtype == "float32" else 0.0)
    assert clear.mean() > 0.9
    assert (codes == expected["codes"])[clear].all()


def test_of_equally_near_words_the_first_is_chosen():
    words = np.array([[3.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert nearest(np.array([[0.9, 0.0], [0.0, 5.0], [2.0, 0.0]]), words).tolist() == [1, 1, 0]


def test_one_mask_is_encoded_as_among_others():
    w, masks = codec("awkward", "float64"), codec_inputs.make_masks()
    assert (encode(masks[1:], w) == encode(masks, w)[1:]).all()


def test_no_masks_have_no_codes_and_no_codes_no_masks():
    w = codec("awkward", "float64")
    assert encode(np.zeros((0, 64, 64)), w).shape == (0, 16)
    assert decode(np.zeros((0, 16), int), w).shape == (0, 64, 64)


@pytest.mark.parametrize("shape", [(64, 64), (1, 32, 64), (1, 64, 64, 1)])
def test_masks_of_another_size_are_refused(shape):
    with pytest.raises(InputError, match=r"want \(B, 64, 64\)"):
        encode(np.zeros(shape), codec("awkward", "float64"))


@pytest.mark.parametrize("codes, reason", [([[128] * 16], "0 to 127"), ([[-1] * 16], "0 to 127"), ([[1] * 15], "want")])
def test_codes_that_stand_for_nothing_are_refused(codes, reason):
    with pytest.raises(InputError, match=reason):
        decode(np.array(codes), codec("awkward", "float64"))
