"""Checks of what a caller hands to the model: each mistake is one line that names the place, what came, what is wanted.

Also the few values that follow from the others when a caller leaves them out.
"""

import numpy as np

from npgemma.base.device import to_host
from npgemma.base.errors import InputError


def as_integers(name, values):
    """Take a list of lists or an integer array of two axes.

    Returns
    -------
    array : (B, T)

    Raises
    ------
    InputError
        If it is no such thing.
    """
    try:
        array = values if hasattr(values, "dtype") else np.array(values)
    except ValueError:
        raise InputError("came as rows of different lengths; want integers (B, T), padded", argument=name) from None
    if array.ndim != 2 or array.dtype.kind not in "iub" or array.size == 0:
        raise InputError(f"came as {array.shape} {array.dtype}; want integers (B, T), both at least 1", argument=name)
    if array.dtype.kind == "u" and int(np.max(array)) >= 2**63:
        raise InputError(f"came with {int(np.max(array))}; want integers below 2^63", argument=name)
    return array if array.dtype.kind == "i" else array.astype(np.int64)


def as_pixels(values):
    """Take an array of pixels, or nested lists of them; the model checks its shape and its numbers.

    Raises
    ------
    InputError
        If the lists are ragged.
    """
    try:
        return values if hasattr(values, "dtype") else np.array(values)
    except ValueError:
        raise InputError("came as lists of different lengths; want floats (B, M, R, R, 3)", argument="pixels") from None


def slot_positions(ids, cfg):
    """Number the slots of each row from the first position on, padding or not, as Hugging Face's forward does.

    Returns
    -------
    positions : (B, T)
    """
    slots = np.arange(ids.shape[1], like=ids) + cfg.conventions.first_position
    return np.zeros_like(ids) + slots


def counted_positions(attention_mask, cfg):
    """Number the real tokens of each row, as Hugging Face's generate does; padding before them gets the first number.

    Returns
    -------
    positions : (B, T)
    """
    nth = np.cumsum(attention_mask != 0, axis=1) - 1
    return np.maximum(nth, 0) + cfg.conventions.first_position


def flat_pictures(pixels, ids, cfg):
    """Bring either form of pixels to one list of pictures, checked against the rows of ids.

    Parameters
    ----------
    pixels : (B, M, R, R, 3) or (I, 3, R, R) or None
    ids : (B, T)
    cfg : Config

    Returns
    -------
    pictures : (I, R, R, 3) or None

    Raises
    ------
    InputError
        If the form, or the number of rows, is another.
    """
    if pixels is None:
        return None
    R = cfg.vision.image_size
    if getattr(pixels, "ndim", None) == 5 and pixels.shape[2:] == (R, R, 3):
        if pixels.shape[0] != ids.shape[0]:
            raise InputError(
                f"{pixels.shape[0]} rows of pictures for {ids.shape[0]} rows of ids; want as many",
                argument="pixels",
            )
        return pixels.reshape(-1, R, R, 3)
    if getattr(pixels, "ndim", None) == 4 and pixels.shape[1:] == (3, R, R):
        return pixels.transpose(0, 2, 3, 1)
    came = getattr(pixels, "shape", type(pixels).__name__)
    raise InputError(
        f"came as {came}; want (B, M, {R}, {R}, 3), or Hugging Face's (pictures, 3, {R}, {R})",
        argument="pixels",
    )


def check_pictures(pictures, cfg):
    """Refuse pictures of another size, of integers, or outside [-1, 1].

    Raises
    ------
    InputError
    """
    R = cfg.vision.image_size
    if pictures.ndim != 4 or pictures.shape[0] == 0 or pictures.shape[1:] != (R, R, 3):
        raise InputError(
            f"pictures came as {pictures.shape}; want (pictures, {R}, {R}, 3), at least one",
            argument="pixels",
        )
    if pictures.dtype.kind != "f":
        raise InputError(f"came as {pictures.dtype}; want floats in [-1, 1]: uint8 / 127.5 - 1", argument="pixels")
    low, high = float(np.min(pictures)), float(np.max(pictures))
    if not (low >= -1.0 and high <= 1.0):
        raise InputError(f"came in [{low:g}, {high:g}]; want [-1, 1], nothing NaN", argument="pixels")


def check_prompt(ids, token_types, attention_mask, positions, cfg):
    """Refuse what prefill cannot read: shapes, ranges, rows without a real token, too many positions.

    Raises
    ------
    InputError
    """
    for name, array in (("token_types", token_types), ("attention_mask", attention_mask), ("positions", positions)):
        if array.shape != ids.shape:
            raise InputError(f"came as {array.shape}; want the shape of ids, {ids.shape}", argument=name)
    for name, array in (("token_types", token_types), ("attention_mask", attention_mask)):
        if int(np.min(array)) < 0 or int(np.max(array)) > 1:
            raise InputError(f"came in [{int(np.min(array))}, {int(np.max(array))}]; want 0 and 1 only", argument=name)
    check_ids(ids, cfg)
    check_positions(positions, ids.shape[1], cfg)
    if not bool(np.all(np.any(attention_mask != 0, axis=1))):
        raise InputError("a row is all padding; want at least one real token in each row", argument="attention_mask")


def check_image_tokens(image_places, soft, cfg):
    """Refuse a number of image tokens other than the number of soft tokens, or a row that cuts through a picture.

    Raises
    ------
    InputError
    """
    P = cfg.vision.num_patches
    counts = to_host(np.sum(image_places, axis=1)).tolist()
    pictures = 0 if soft is None else soft.shape[0]
    if sum(counts) != pictures * P:
        raise InputError(
            f"{sum(counts)} image tokens of pictures, but {pictures} pictures of {P} soft tokens are {pictures * P};"
            " want as many",
            argument="ids",
        )
    if soft is not None and any(count % P for count in counts):
        raise InputError(
            f"image tokens a row are {counts}; want multiples of {P}, the soft tokens of one picture",
            argument="ids",
        )


def check_step(ids, positions, attention_mask, state, cfg):
    """Refuse a step that does not continue its state.

    Raises
    ------
    InputError
    """
    B, S = state.token_types.shape
    if ids.ndim != 2 or ids.shape[0] != B:
        raise InputError(f"a step came as {ids.shape}; want ({B}, T), a row for each row of the prompt", argument="ids")
    for name, array in (("positions", positions), ("attention_mask", attention_mask)):
        if array.shape != ids.shape:
            raise InputError(f"came as {array.shape}; want the shape of ids, {ids.shape}", argument=name)
    check_ids(ids, cfg)
    check_positions(positions, S + ids.shape[1], cfg)


def check_ids(ids, cfg):
    """Refuse ids outside the vocabulary; a negative one would silently count from the end.

    Raises
    ------
    InputError
    """
    V, image = cfg.text.vocab_size, cfg.image_token_id
    low, high = int(np.min(ids)), int(np.max(np.where(ids == image, 0, ids)))
    if low < 0 or high >= V:
        raise InputError(f"came in [{low}, {high}]; want 0..{V - 1}, or {image} for an image token", argument="ids")


def check_positions(positions, length, cfg):
    """Refuse more positions than the model was trained on, and negative ones.

    Raises
    ------
    InputError
    """
    limit = cfg.text.max_positions
    if length > limit:
        raise InputError(
            f"{length} positions in all; the trained context is {limit}; shorten prompt or answer",
            argument="ids",
        )
    low, high = int(np.min(positions)), int(np.max(positions))
    if low < 0 or high > limit:
        raise InputError(f"came in [{low}, {high}]; want 0..{limit}, the trained context", argument="positions")
