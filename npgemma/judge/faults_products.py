"""Faults of products with stored matrices: in which numbers, of which terms, with which bias and which weights."""

import numpy as np

from npgemma.judge.faults import with_equations
from npgemma.judge.near import Near, linear, rounded

VISION = "attn.q attn.k attn.v attn.out mlp.up mlp.out"
TEXT = "attn.q attn.k attn.v attn.out mlp.gate mlp.up mlp.out"
BIASED = " ".join([*(f"vision.blocks.{{n}}.{name}" for name in VISION.split()), "vision.patches", "connector.out"])
ROWS = " ".join([BIASED, *(f"text.blocks.{{n}}.{name}" for name in TEXT.split()), "text.logits"])


def to_bits(x, fraction):
    """Round to so many bits behind the leading one; where there is noise, either neighbour may come."""
    if isinstance(x, Near):
        value, low, high = (to_bits(each, fraction) for each in (x.value, x.value - x.noise, x.value + x.noise))
        return Near(value, np.fmax(high - value, value - low), x.unit)
    share, exponent = np.frexp(x[...].astype(np.float64))
    return np.ldexp(np.rint(np.ldexp(share, fraction + 1)), exponent - fraction - 1)


def by_levels(weight, num_levels, in_a_row):
    """A matrix in whole numbers up to ``num_levels``, scaled by the largest of each so many in a row."""
    whole = weight[...].astype(np.float64)
    F, D = whole.shape
    blocks = whole.reshape(F, -1, in_a_row)  # a ValueError, NOT_POSSIBLE, where a row has no whole number of them
    scale = np.max(np.abs(blocks), axis=-1, keepdims=True) / num_levels
    return (np.rint(blocks / np.where(scale == 0.0, 1.0, scale)) * scale).reshape(F, D)


def of_factors(name, sentence, changed):
    """A fault of what is multiplied: ``changed`` takes x and the matrix."""
    return with_equations(name, sentence, ROWS, linear=lambda x, weight, bias=None: linear(*changed(x, weight), bias))


FAULTS = [
    of_factors(
        "products-in-tf32",
        "factors are cut to TF32, 10 bits behind the leading one: a GPU's default for float32 products",
        lambda x, weight: (to_bits(x, 10), to_bits(weight, 10)),
    ),
    of_factors(
        "products-in-bf16",
        "factors are rounded to bfloat16 before they are multiplied: a TPU's default for float32 products",
        lambda x, weight: (rounded(x), to_bits(weight, 7)),
    ),
    of_factors(
        "weights-in-bf16",
        "the weights are rounded to bfloat16; they are wider",
        lambda x, weight: (x, to_bits(weight, 7)),
    ),
    of_factors(
        "weights-in-float16", "the weights are rounded to float16", lambda x, weight: (x, to_bits(weight, 10))
    ),
    of_factors(
        "weights-in-int8-by-rows",
        "the weights are whole numbers up to 127 with a scale a row",
        lambda x, weight: (x, by_levels(weight, 127, weight.shape[1])),
    ),
    of_factors(
        "weights-in-int8-by-32",
        "the weights are whole numbers up to 127 with a scale for each 32 (Q8_0)",
        lambda x, weight: (x, by_levels(weight, 127, 32)),
    ),
    of_factors(
        "last-term-left-out",
        "the last term of each sum is left out",
        lambda x, weight: (x[..., :-1], weight[...][:, :-1]),
    ),
    of_factors(
        "first-term-left-out",
        "the first term of each sum is left out",
        lambda x, weight: (x[..., 1:], weight[...][:, 1:]),
    ),
    with_equations(
        "bias-added-behind-the-rounding",
        "a product is rounded to bfloat16 before its bias is added; add the bias first and round once",
        BIASED,
        linear=lambda x, weight, bias=None: rounded(linear(x, weight)) + bias,
    ),
    with_equations(
        "bias-twice",
        "biases are added twice",
        BIASED,
        linear=lambda x, weight, bias=None: linear(x, weight, bias) + bias,
    ),
]
