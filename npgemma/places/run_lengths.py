"""Masks as run-lengths, the compressed form of COCO: what pycocotools' ``encode`` and ``decode`` speak."""

from typing import Any

import numpy as np

from npgemma.base.errors import InputError

LARGEST = 50_000_000  # pixels of a mask, as of a picture
LONGEST = 12  # groups of a count; a larger number would be no mask's


def encode_runs(mask: np.ndarray) -> dict[str, Any]:
    """Give ``{"size": [H, W], "counts": text}`` of a mask (H, W).

    Notes
    -----
    Pixels are counted column by column, zeros first.  From the third on, a count is written as its difference from
    the last but one; a number is written in groups of five bits, lowest first, a sixth bit saying that more follow, as
    characters from "0" on.  Reference: pycocotools maskApi.c, rleEncode and rleToString.
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    if flat.size and flat[0]:
        counts.insert(0, 0)
    differences = [count - counts[place - 2] if place > 2 else count for place, count in enumerate(counts)]
    return {"size": [int(side) for side in mask.shape], "counts": "".join(map(write_number, differences))}


def write_number(value: int) -> str:
    """Write one number in groups of five bits, the last of which shows its sign."""
    text = ""
    while True:
        low, value = value & 31, value >> 5
        ends = value == (-1 if low & 16 else 0)
        text += chr(48 + low + (0 if ends else 32))
        if ends:
            return text


def read_numbers(text: str) -> list[int]:
    """Read the numbers that :func:`write_number` wrote one after the other."""
    numbers, value, shift = [], 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise InputError(f"run-lengths: {character!r} is no part of a count; want characters from '0' to 'o'")
        value |= (group & 31) << shift
        shift += 5
        if shift > 5 * LONGEST:
            raise InputError(f"run-lengths: a count has more than {LONGEST} characters; the text is damaged")
        if not group & 32:
            numbers.append(value - (1 << shift) if group & 16 else value)
            value, shift = 0, 0
    if shift:
        raise InputError("run-lengths: the last count has no end; the text was cut")
    return numbers


def decode_runs(runs: Any) -> np.ndarray:
    """Give the mask (H, W) of run-lengths; counts may be a list of numbers too.

    Raises
    ------
    InputError
        If they are no run-lengths, or do not fill the mask.
    """
    if not isinstance(runs, dict) or not {"size", "counts"} <= runs.keys():
        raise InputError(f"run-lengths: came as {runs!r:.60}; want {{'size': [height, width], 'counts': ...}}")
    size, counts = runs["size"], runs["counts"]
    pair = isinstance(size, list | tuple) and len(size) == 2
    if not pair or not all(type(side) is int and side >= 0 for side in size):
        raise InputError(f"run-lengths: size came as {size!r:.60}; want [height, width]")
    if size[0] * size[1] > LARGEST:
        raise InputError(f"run-lengths: a mask of {size[0]:,} x {size[1]:,} is too large")
    if isinstance(counts, str):
        counts = read_numbers(counts)
        for place in range(3, len(counts)):
            counts[place] += counts[place - 2]
    if not isinstance(counts, list | tuple) or not all(type(count) is int and count >= 0 for count in counts):
        raise InputError(f"run-lengths: counts came as {runs['counts']!r:.60}; want a text, or whole numbers from 0")
    if sum(counts) != size[0] * size[1]:
        raise InputError(f"run-lengths: {sum(counts):,} pixels are counted, {size[0]} x {size[1]} are wanted")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, np.array(counts, np.int64))
    return flat.reshape(size[::-1]).T
