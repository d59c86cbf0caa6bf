"""Factors of matrix products made to break naive code: seven sets, from a published counter, the same everywhere.

Each gives x (M, K) and weight (N, K), float32 arrays of bfloat16 values.  The idea of the first six is that of TOSA's
sets 0 to 5; the numbers are our own.
"""

import numpy as np

from npgemma.base.precision import round_bf16

ROWS = COLUMNS = 32  # 1,024 results: enough that sums of errors mean something


def uniform(seed, count):
    """``count`` numbers in [0, 1), by SplitMix64 (Steele et al. 2014): element n depends on seed and n alone.

    Twelve lines in any language: z = seed * 2**32 + n times an odd constant, then two rounds of shift and multiply.
    """
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53


def between(seed, shape, low, high):
    """Evenly spread numbers in [low, high)."""
    return (low + (high - low) * uniform(seed, int(np.prod(shape)))).reshape(shape)


def signs(seed, shape):
    """-1 or 1."""
    return np.where(uniform(seed, int(np.prod(shape))) < 0.5, -1.0, 1.0).reshape(shape)


def bell(seed, shape):
    """Normal numbers, by Box and Muller."""
    count = int(np.prod(shape))
    radius = np.sqrt(-2.0 * np.log1p(-uniform(seed, count)))
    return (radius * np.cos(2.0 * np.pi * uniform(seed + 1, count))).reshape(shape)


def zeros(seed, M, N, K):
    """Every product but the two at the ends has a zero factor; so the sum is that of the two, whatever the order."""
    alive = uniform(seed, K) < 0.5
    alive_x, alive_w = alive.copy(), ~alive
    alive_x[[0, -1]] = alive_w[[0, -1]] = True
    x = between(seed + 1, (M, K), 0.5, 1.0) * signs(seed + 2, (M, K)) * alive_x
    return x, between(seed + 3, (N, K), 0.5, 1.0) * signs(seed + 4, (N, K)) * alive_w


def wide_exponents(seed, M, N, K):
    """Large numbers: products near 2**100, whose sum still fits; a float16 accumulator does not hold one."""
    x = between(seed, (M, K), 0.5, 1.0) * signs(seed + 1, (M, K)) * 2.0**50
    return x, between(seed + 2, (N, K), 0.5, 1.0) * signs(seed + 3, (N, K)) * 2.0**50


def small_after_large(seed, M, N, K):
    """Products of like size onto one that is much larger and comes first: alone they vanish, together they count."""
    x = between(seed, (M, K), 0.75, 1.0) * 2.0**-5
    weight = between(seed + 1, (N, K), 0.75, 1.0) * 2.0**-5
    x[:, 0] = weight[:, 0] = 1.0
    return x, weight


def varied_after_large(seed, M, N, K):
    """The same with products of many sizes."""
    x = between(seed, (M, K), 0.5, 1.0) * 2.0 ** np.floor(between(seed + 1, (M, K), -9.0, -3.0))
    weight = between(seed + 2, (N, K), 0.5, 1.0) * 2.0 ** np.floor(between(seed + 3, (N, K), -5.0, -3.0))
    x[:, 0] = weight[:, 0] = 1.0
    x[:, -1] = weight[:, -1] = 0.125
    return x, weight


def alternating_zeros(seed, M, N, K):
    """Every second product is zero; the one in the middle is -1/4 everywhere."""
    x = between(seed, (M, K), -1.0, 1.0)
    weight = between(seed + 1, (N, K), -1.0, 1.0)
    x[:, 1:-1:2] = 0.0
    x[:, K // 2], weight[:, K // 2] = 0.5, -0.5
    x[:, [0, -1]] = between(seed + 2, (M, 2), 0.75, 1.0)
    weight[:, [0, -1]] = between(seed + 3, (N, 2), 0.75, 1.0)
    return x, weight


def signed_wide(seed, M, N, K):
    """Both signs, five binary orders of size."""
    x = between(seed, (M, K), 0.5, 1.0) * signs(seed + 1, (M, K)) * 2.0 ** np.floor(between(seed + 2, (M, K), -2, 3))
    weight = between(seed + 3, (N, K), 0.5, 1.0) * signs(seed + 4, (N, K))
    return x, weight


def gaussian(seed, M, N, K):
    """What weights and activations look like, without their outliers."""
    return bell(seed, (M, K)), bell(seed + 2, (N, K)) * 0.05


SETS = {
    "zeros": zeros,
    "wide-exponents": wide_exponents,
    "small-after-large": small_after_large,
    "varied-after-large": varied_after_large,
    "alternating-zeros": alternating_zeros,
    "signed-wide": signed_wide,
    "gaussian": gaussian,
}
# Sums of these lean to one side, and so may their errors: every rounding of a growing sum is alike.
ONE_SIDED = ("zeros", "small-after-large", "varied-after-large")


def factors(name, length, seed=0, rows=ROWS, columns=COLUMNS):
    """Give x (rows, length) and weight (columns, length) of a set, bfloat16 values in float32."""
    number = 100 * list(SETS).index(name) + 10 * seed
    x, weight = SETS[name](1000 + number, rows, columns, length)
    return round_bf16(x.astype(np.float32)), round_bf16(weight.astype(np.float32))
