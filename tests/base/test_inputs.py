import numpy as np
import pytest
from random_models import PALIGEMMA_1, random_model, random_prompt

from npgemma import forward
from npgemma.base import inputs
from npgemma.base.errors import InputError, NpgemmaError
from npgemma.paligemma import prefill, step

CFG = PALIGEMMA_1
MODEL = random_model(CFG)
PROMPT = random_prompt(CFG)  # ids (2, 11): four image tokens, five of text, two of suffix


def ids_with(value):
    ids = PROMPT["ids"].copy()
    ids[0, -1] = value
    return ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ids_with(-1)}, "ids: came in [-1, 37]; want 0..40, or 41 for an image token"),
        ({"ids": [[2**63]]}, f"ids: came with {2**63}; want integers below 2^63"),
        ({"ids": [[2**64]]}, "ids: came as (1, 1) object; want integers (B, T), both at least 1"),
        ({"pixels": [[1.0], [1.0, 2.0]]}, "pixels: came as list; want (B, M, 9, 9, 3)"),
        ({"ids": ids_with(42)}, "ids: came in [3, 42]; want 0..40, or 41 for an image token"),
        ({"ids": PROMPT["ids"].astype(float)}, "ids: came as (2, 11) float64; want integers (B, T), both at least 1"),
        ({"ids": PROMPT["ids"][0]}, "ids: came as (11,) int64; want integers (B, T), both at least 1"),
        ({"ids": [[]]}, "ids: came as (1, 0) float64; want integers (B, T), both at least 1"),
        ({"pixels": None}, "ids: 8 image tokens of pictures, but 0 pictures of 4 soft tokens are 0; want as many"),
        (
            {"pixels": np.zeros((2, 2, 9, 9, 3))},
            "ids: 8 image tokens of pictures, but 4 pictures of 4 soft tokens are 16; want as many",
        ),
        (
            {"pixels": np.zeros((1, 2, 9, 9, 3))},
            "pixels: 1 rows of pictures for 2 rows of ids; want as many",
        ),
        (
            {"pixels": np.zeros((2, 1, 8, 9, 3))},
            "pixels: came as (2, 1, 8, 9, 3); want (B, M, 9, 9, 3), or Hugging Face's (pictures, 3, 9, 9)",
        ),
        (
            {"pixels": np.zeros((2, 1, 9, 9, 3), np.uint8)},
            "pixels: came as uint8; want floats in [-1, 1]: uint8 / 127.5 - 1",
        ),
        ({"pixels": PROMPT["pixels"] * 255}, "pixels: came in [-"),
        ({"pixels": PROMPT["pixels"] * np.nan}, "pixels: came in [nan, nan]; want [-1, 1], nothing NaN"),
        ({"token_types": np.zeros((2, 3), int)}, "token_types: came as (2, 3); want the shape of ids, (2, 11)"),
        ({"token_types": np.full((2, 11), 2)}, "token_types: came in [2, 2]; want 0 and 1 only"),
        ({"attention_mask": np.full((2, 11), -1)}, "attention_mask: came in [-1, -1]; want 0 and 1 only"),
        (
            {"attention_mask": np.array([[1] * 11, [0] * 11])},
            "attention_mask: a row is all padding; want at least one real token in each row",
        ),
        ({"positions": np.full((2, 11), -1)}, "positions: came in [-1, -1]; want 0..64, the trained context"),
        ({"positions": np.full((2, 11), 65)}, "positions: came in [65, 65]; want 0..64, the trained context"),
    ],
)
def test_a_wrong_input_is_refused_in_one_line(change, message):
    with pytest.raises(InputError) as caught:
        forward(MODEL, **(PROMPT | change))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
    assert isinstance(caught.value, NpgemmaError) and isinstance(caught.value, ValueError)


def test_a_row_that_cuts_through_a_picture_is_refused():
    image = CFG.image_token_id
    ids = np.array([[image, image, image, 2, 2], [image, image, image, image, image]])
    with pytest.raises(InputError, match=r"image tokens a row are \[3, 5\]; want multiples of 4"):
        forward(MODEL, ids, PROMPT["pixels"])


def test_more_positions_than_the_trained_context_are_refused_with_the_counts():
    with pytest.raises(InputError, match="ids: 65 positions in all; the trained context is 64; shorten"):
        forward(MODEL, np.full((1, 65), 5))


def test_a_step_beyond_the_context_is_refused_with_the_counts():
    ids = np.full((1, 64), 5)
    ones = np.ones_like(ids)
    _, state = prefill(MODEL.weights, CFG, ids, None, ones * 0, ones, inputs.slot_positions(ids, CFG))
    with pytest.raises(InputError, match="ids: 65 positions in all; the trained context is 64"):
        step(MODEL.weights, CFG, np.array([[5]]), np.array([[64]]), state)


def test_a_step_with_another_number_of_rows_is_refused():
    ids = np.full((2, 4), 5)
    ones = np.ones_like(ids)
    _, state = prefill(MODEL.weights, CFG, ids, None, ones * 0, ones, inputs.slot_positions(ids, CFG))
    with pytest.raises(InputError, match=r"ids: a step came as \(3, 1\); want \(2, T\)"):
        step(MODEL.weights, CFG, np.full((3, 1), 5), np.full((3, 1), 5), state)


def test_an_image_token_in_the_suffix_is_an_ordinary_id():
    ids = np.array([[5, 6, CFG.image_token_id]])
    types = np.array([[0, 0, 1]])
    assert forward(MODEL, ids, token_types=types).shape == (1, 3, 41)


def test_positions_count_slots_or_real_tokens():
    assert inputs.slot_positions(np.zeros((2, 3), int), CFG).tolist() == [[1, 2, 3], [1, 2, 3]]
    real = np.array([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert inputs.counted_positions(real, CFG).tolist() == [[1, 1, 1, 2], [1, 2, 3, 3]]


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="ids: came as rows of different lengths"):
        inputs.as_integers("ids", [[1, 2], [3]])


def test_pictures_and_steps_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"pixels: pictures came as \(0, 9, 9, 3\); want \(pictures, 9, 9, 3\)"):
        inputs.check_pictures(np.zeros((0, 9, 9, 3), np.float32), CFG)
    ids = np.full((2, 4), 5)
    ones = np.ones_like(ids)
    _, state = prefill(MODEL.weights, CFG, ids, None, ones * 0, ones, inputs.slot_positions(ids, CFG))
    with pytest.raises(InputError, match=r"positions: came as \(2, 2\); want the shape of ids, \(2, 1\)"):
        step(MODEL.weights, CFG, np.full((2, 1), 5), np.full((2, 2), 5), state)
