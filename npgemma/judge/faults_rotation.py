"""Faults of the rotation: which channels turn together, by which angles, rounded where."""

import numpy as np

from npgemma import rotary
from npgemma.judge.faults import with_equations, with_expressions
from npgemma.judge.near import rounded

ROTATED = "text.blocks.{n}.attn.q_rot text.blocks.{n}.attn.k_rot"
TABLES = "text.cos text.sin"


def interleaved(x, cos, sin, inner):
    """Turns channels 2i and 2i + 1 together."""
    c, s = cos[:, :, None], sin[:, :, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = np.stack([inner(even * c) - inner(odd * s), inner(odd * c) + inner(even * s)], axis=-1)
    return turned.reshape(x.shape)


def sorted_pairs(x, cos, sin, inner):
    """Turns neighbours, then lays the first of all pairs before the second."""
    turned = interleaved(x, cos, sin, inner)
    return np.concatenate([turned[..., 0::2], turned[..., 1::2]], axis=-1)


def half_rotated(x, cos, sin, inner):
    """Turns the first half of the channels, by every second angle."""
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([rotary.rotate(first, cos[..., ::2], sin[..., ::2], inner), second], axis=-1)


def backwards(x, cos, sin, inner):
    """Turns the other way round."""
    return rotary.rotate(x, cos, -sin, inner)


FAULTS = [
    with_equations(
        "rotation-interleaved",
        "channels 2i and 2i+1 turn together; PaliGemma pairs i with i + H/2",
        ROTATED,
        rotate=interleaved,
    ),
    with_equations(
        "rotation-sorted-pairs",
        "neighbours are paired and then sorted; PaliGemma pairs i with i + H/2",
        ROTATED,
        rotate=sorted_pairs,
    ),
    with_equations(
        "rotation-backwards", "the rotation turns the other way: the sign of the sine", ROTATED, rotate=backwards
    ),
    with_expressions(
        "rotation-left-out",
        "queries and keys are not rotated",
        {"text.blocks.{n}.attn.q_rot": "q * 1.0", "text.blocks.{n}.attn.k_rot": "k * 1.0"},
    ),
    with_expressions("keys-not-rotated", "keys are not rotated", {"text.blocks.{n}.attn.k_rot": "k * 1.0"}),
    with_expressions("queries-not-rotated", "queries are not rotated", {"text.blocks.{n}.attn.q_rot": "q * 1.0"}),
    with_equations("rotation-of-half-a-head", "only the first half of each head's channels is rotated", ROTATED,
                   rotate=half_rotated),
    with_equations(
        "rotation-rounded-inside",
        "the products of the rotation are rounded to bfloat16 one by one; this recipe rounds once",
        ROTATED,
        rotate=lambda x, cos, sin, inner: rotary.rotate(x, cos, sin, rounded),
    ),
    with_equations(
        "rotation-rounded-once",
        "the rotation is computed in float32 and rounded once; this recipe rounds each product",
        ROTATED,
        rotate=lambda x, cos, sin, inner: rotary.rotate(x, cos, sin, lambda y: y),
    ),
    with_equations(
        "rotation-by-bf16-tables",
        "cosine and sine are rounded to bfloat16; this recipe keeps them in float32",
        f"{TABLES} {ROTATED}",
        cos=lambda x: rounded(np.cos(x)),
        sin=lambda x: rounded(np.sin(x)),
        rotate=lambda x, cos, sin, inner: rotary.rotate(x, rounded(cos), rounded(sin), inner),
    ),
    with_equations(
        "positions-from-zero",
        "positions begin at 0; here they begin at 1",
        TABLES,
        angles=lambda positions, *rest: rotary.angles(positions - 1, *rest),
    ),
    with_equations(
        "positions-one-late",
        "positions are one too large",
        TABLES,
        angles=lambda positions, *rest: rotary.angles(positions + 1, *rest),
    ),
    *(
        with_equations(
            f"positions-divided-by-{factor}",
            f"positions are divided by {factor}: linear scaling of the rotation",
            TABLES,
            angles=lambda positions, *rest, factor=factor: rotary.angles(positions * (1.0 / factor), *rest),
        )
        for factor in (2, 4, 8)
    ),
    with_equations(
        "positions-all-equal",
        "every position of a row has the first one's angle",
        TABLES,
        angles=lambda positions, *rest: rotary.angles(positions * 0 + positions[:, :1], *rest),
    ),
    *(
        with_equations(
            f"rope-theta-{theta:g}",
            f"the base of the frequencies is {theta:g}, whatever the configuration says",
            TABLES,
            angles=lambda positions, head, _, dtype, theta=theta: (rotary.angles(positions, head, theta, dtype)),
        )
        for theta in (1e6, 5e5, 1e4, 1e3)
    ),
    with_equations(
        "frequencies-of-half-a-head",
        "frequencies fall twice as fast: their exponent is 2i / (H/2), not 2i / H",
        TABLES,
        angles=lambda positions, head, theta, dtype: rotary.angles(positions, head, theta**2, dtype),
    ),
    with_equations(
        "angles-in-bf16",
        "positions times frequencies are rounded to bfloat16 before cosine and sine",
        TABLES,
        cos=lambda x: np.cos(rounded(x)),
        sin=lambda x: np.sin(rounded(x)),
    ),
    with_expressions(
        "cos-and-sin-swapped",
        "cosine and sine stand in each other's place",
        {
            "text.cos": "inner(sin(angles(positions, H, rope_theta, dtype)))",
            "text.sin": "inner(cos(angles(positions, H, rope_theta, dtype)))",
        },
    ),
]
