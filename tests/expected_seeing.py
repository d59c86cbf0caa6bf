"""For each number that the panels of the tower say, what it must be by a whole trace."""

import math
import struct

import numpy as np
from expected import MIDDLE, listed, rms, spread, v, words


def cosines(f):
    """Of the vector of the place in the middle with each place's, and that place."""
    table = f.model.weights["vision.positions.weight"]
    side = math.isqrt(len(table))
    here = (side // 2) * side + side // 2
    sizes = np.sqrt(np.sum(table**2, axis=-1))
    return [float(row @ table[here] / size / sizes[here]) for row, size in zip(table, sizes, strict=True)], here, side


def nearest(f, sign):
    values, here, side = cosines(f)
    place = min((number for number in range(len(values)) if number != here), key=lambda number: sign * values[number])
    return place // side, place % side, values[place]


def size_in_file(f):
    """Width and height from the head of a PNG."""
    return struct.unpack(">II", f.picture.read_bytes()[16:24])


EXPECTED = {
    "patches": {
        "wide": lambda f: size_in_file(f)[0],
        "tall": lambda f: size_in_file(f)[1],
        "square": lambda f: f.whole["pixels"].shape[1],
        "low": lambda f: np.min(f.whole["pixels"]),
        "high": lambda f: np.max(f.whole["pixels"]),
        "side": lambda f: math.isqrt(f.whole["vision.patches"].shape[1]),
        "numbers": lambda f: f.model.weights.arrays["vision.patches.weight"].shape[1],
        "width": lambda f: f.whole["vision.patches"].shape[2],
        "count": lambda f: f.whole["vision.patches"].shape[1],
    },
    "positions": {
        "count": lambda f: f.whole["vision.embedded"].shape[1],
        "row": lambda f: math.isqrt(f.whole["vision.embedded"].shape[1]) // 2,
        "column": lambda f: math.isqrt(f.whole["vision.embedded"].shape[1]) // 2,
        "near_row": lambda f: nearest(f, -1)[0],
        "near_column": lambda f: nearest(f, -1)[1],
        "near": lambda f: nearest(f, -1)[2],
        "far_row": lambda f: nearest(f, 1)[0],
        "far_column": lambda f: nearest(f, 1)[1],
        "far": lambda f: nearest(f, 1)[2],
    },
    "vision-block": {
        "depth": lambda f: sum(name.endswith(".middle") and name.startswith("vision") for name in f.whole),
        "number": lambda f: MIDDLE[f.case][0],
        "normed": lambda f: rms(v(f, "attn_norm")),
        "heads": lambda f: v(f, "attn.q").shape[2],
        "size": lambda f: v(f, "attn.q").shape[3],
        "strongest": lambda f: np.max(v(f, "attn.probs")),
        "wide": lambda f: v(f, "mlp.up").shape[2],
        "negative": lambda f: np.count_nonzero(v(f, "mlp.up") < 0) / v(f, "mlp.up").size,
        "low": lambda f: np.min(v(f, "mlp.up")),
        "high": lambda f: np.max(v(f, "mlp.up")),
    },
    "tower-looks": {
        "heads": lambda f: v(f, "attn.probs").shape[1],
        "blocks": lambda f: listed(range(f.cfg.vision.depth)),
        "depth": lambda f: f.cfg.vision.depth,
        "first": lambda f: 0,
        "last": lambda f: f.cfg.vision.depth - 1,
        "first_spread": lambda f: spread(f.whole["vision.blocks.0.attn.probs"]),
        "last_spread": lambda f: spread(f.whole[f"vision.blocks.{f.cfg.vision.depth - 1}.attn.probs"]),
        "count": lambda f: v(f, "attn.probs").shape[-1],
    },
    "connector": {
        "text": lambda f: f.whole["connector.out"].shape[2],
        "vision": lambda f: f.whole["vision.norm"].shape[2],
        "count": lambda f: f.whole["connector.out"].shape[1],
        "soft": lambda f: rms(f.whole["connector.out"]),
        "word": lambda f: rms(words(f)),
    },
}
