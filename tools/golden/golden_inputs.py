"""Numbers that the exporter and the tests both make, so that goldens need to store outputs only.

Only raw bits of PCG64 are used, which NumPy promises never to change; its normal distribution carries no such promise.
NumPy alone is imported: the exporter turns these arrays into torch tensors, the tests use them as they are.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np


def uniform(seed, shape):
    """Reproducible float64 numbers in [0, 1).

    Parameters
    ----------
    seed : int
    shape : tuple of int

    Returns
    -------
    x : shape
    """
    bits = np.random.PCG64(seed).random_raw(math.prod(shape))
    return ((bits >> np.uint64(11)) * 2.0**-53).reshape(shape)


def bell(seed, shape, spread=1.0, centre=0.0):
    """Reproducible bell-shaped numbers, all of them bfloat16 values, so that each precision starts from the same input.

    Parameters
    ----------
    seed : int
    shape : tuple of int
    spread, centre : float
        Standard deviation and mean.

    Returns
    -------
    x : shape, float64

    Notes
    -----
    The sum of four uniforms has variance 1/3; no logarithm or cosine is used, whose last bit differs between machines.
    """
    total = uniform(seed, (4, *shape)).sum(axis=0) - 2.0
    return round_to_bf16(total * (math.sqrt(3.0) * spread) + centre).astype(np.float64)


def round_to_bf16(x):
    """Nearest bfloat16 value (ties to even) of each finite number, by way of float32.

    Parameters
    ----------
    x : (...)

    Returns
    -------
    rounded : (...), float32
    """
    bits = np.asarray(x, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (rounded & np.uint32(0xFFFF0000)).view(np.float32)


def linear_case(width, seed, bias=True):
    """Inputs of a product over ``width`` numbers: x (60, width), weight (130, width) and, if asked for, bias (130,)."""
    inputs = {"x": bell(seed, (60, width)), "weight": bell(seed + 1, (130, width), spread=width**-0.5)}
    if bias:
        inputs["bias"] = bell(seed + 2, (130,), spread=0.5)
    return inputs


def norm_case(width, seed, centre=0.0, gain=0.0):
    """Inputs of a norm over ``width`` numbers: x (6, width) of very different sizes, weight and bias (width,)."""
    sizes = np.array([0.01, 0.1, 1.0, 3.0, 30.0, 1.0])[:, None]
    x = round_to_bf16((bell(seed, (6, width)) + centre) * sizes).astype(np.float64)
    return {"x": x, "weight": bell(seed + 1, (width,), 0.3, gain), "bias": bell(seed + 2, (width,), spread=0.3)}


def softmax_case(seed):
    """Scores (12, 300) and a mask of that shape, whose rows are free, half masked, masked but for one, fully masked."""
    scores = bell(seed, (12, 300), spread=4.0)
    mask = uniform(seed + 1, (12, 300)) < 0.5
    mask[:4] = True
    mask[8] = False
    mask[8, 17] = True
    mask[9] = False
    return {"scores": scores, "mask": mask}


def rotation_case(head, seed):
    """Queries (1, 7, 3, head) and their positions (1, 7), from the first to the last of the trained context."""
    positions = np.array([[0, 1, 2, 257, 1030, 4099, 8191]])
    return {"x": bell(seed, (1, 7, 3, head)), "positions": positions}


def scores_case(head, seed):
    """Queries (1, 20, 6, head) and keys (1, 30, 2, head) of grouped attention: K = 2, G = 3."""
    return {"q": bell(seed, (1, 20, 6, head)), "k": bell(seed + 1, (1, 30, 2, head))}


def mixed_case(head, seed):
    """Probabilities (1, 2, 3, 20, 30), each row of them summing to about one, and values (1, 30, 2, head)."""
    weights = uniform(seed, (1, 2, 3, 20, 30)) ** 4
    probs = round_to_bf16(weights / weights.sum(axis=-1, keepdims=True)).astype(np.float64)
    return {"probs": probs, "v": bell(seed + 1, (1, 30, 2, head))}


def patch_case(seed):
    """One picture (1, 42, 42, 3) and the kernel (1152, 3, 14, 14) and bias (1152,) that cut it into nine patches."""
    pixels = round_to_bf16(uniform(seed, (1, 42, 42, 3)) * 2.0 - 1.0).astype(np.float64)
    return {"pixels": pixels, "weight": bell(seed + 1, (1152, 3, 14, 14), 0.05), "bias": bell(seed + 2, (1152,), 0.3)}


def gelu_case():
    """Every bfloat16 value in [-14, 14] whose size is at least 2**-8: the bend, the tail and the straight part."""
    patterns = np.arange(2**15, dtype=np.uint32) << np.uint32(16)
    sizes = patterns.view(np.float32)
    sizes = sizes[np.isfinite(sizes) & (sizes >= 2.0**-8) & (sizes <= 14.0)].astype(np.float64)
    return {"x": np.concatenate([-sizes[::-1], sizes])}


def cap_case(seed, spread):
    """Scores (40, 100) that reach beyond the cap."""
    return {"x": bell(seed, (40, 100), spread)}


def angles_case():
    """Positions (1, 136) from 0 to the last of the trained context, 8191."""
    return {"positions": np.append(np.arange(0, 8191, 61), 8191)[None]}


def embed_case(width, seed):
    """Rows of an embedding table: ids (5,), table (11, width)."""
    return {"ids": np.array([3, 0, 10, 3, 7]), "weight": bell(seed, (11, width))}


@dataclasses.dataclass(frozen=True)
class Equation:
    """One equation to hold against PyTorch: which one, how to make its inputs, and its constants."""

    kind: str
    inputs: Callable[..., dict[str, np.ndarray]]
    arguments: tuple
    constants: dict


def _linear(width, bias):
    return Equation("linear", linear_case, (width, 100 + width, bias), {})


def _rms_norm(width):
    return Equation("rms_norm", norm_case, (width, 200 + width), {"eps": 1e-6})


def _scores(head, scale):
    return Equation("scores", scores_case, (head, 300 + head), {"scale": scale})


# Every width is one of a released model, because a bfloat16 recipe shows itself only at the real sizes.
EQUATIONS = {
    "linear.588": _linear(588, bias=True),
    "linear.1152": _linear(1152, bias=True),
    "linear.2048": _linear(2048, bias=False),
    "linear.2304": _linear(2304, bias=False),
    "linear.4304": _linear(4304, bias=True),
    "layer_norm.1152": Equation("layer_norm", norm_case, (1152, 1300, 2.0, 1.0), {"eps": 1e-6}),
    "rms_norm.2048": _rms_norm(2048),
    "rms_norm.2304": _rms_norm(2304),
    "gelu": Equation("gelu", gelu_case, (), {}),
    "softmax": Equation("softmax", softmax_case, (400,), {}),
    "soft_cap.50": Equation("soft_cap", cap_case, (500, 40.0), {"cap": 50.0}),
    "soft_cap.30": Equation("soft_cap", cap_case, (501, 25.0), {"cap": 30.0}),
    "angles.256": Equation("angles", angles_case, (), {"head": 256, "theta": 10000.0}),
    "angles.128": Equation("angles", angles_case, (), {"head": 128, "theta": 10000.0}),
    "rotation.256": Equation("rotation", rotation_case, (256, 600), {"head": 256, "theta": 10000.0}),
    "scores.72": _scores(72, 72**-0.5),
    "scores.256": _scores(256, 256**-0.5),
    "scores.128": _scores(128, 144**-0.5),
    "mixed.72": Equation("mixed", mixed_case, (72, 700), {}),
    "mixed.256": Equation("mixed", mixed_case, (256, 702), {}),
    "patches.14": Equation("patches", patch_case, (800,), {"patch": 14}),
    "embed.2048": Equation("embed", embed_case, (2048, 900), {}),
    "embed.2304": Equation("embed", embed_case, (2304, 901), {}),
    "embed.3584": Equation("embed", embed_case, (3584, 902), {}),
    "embed.4608": Equation("embed", embed_case, (4608, 903), {}),
}

# These are computed by PyTorch in several materialised steps, so that the two bfloat16 recipes differ.
TWO_RECIPES = ("soft_cap", "scores", "angles", "rotation")


@functools.cache
def inputs_of(name):
    """Inputs of the equation ``name``, float64 arrays of bfloat16 values (masks boolean, ids and positions integer)."""
    case = EQUATIONS[name]
    return case.inputs(*case.arguments)


def recipes_of(name):
    """Precisions in which the equation ``name`` has a golden."""
    if EQUATIONS[name].kind in TWO_RECIPES:
        return ("float64", "float32", "bf16-hf-eager", "bf16-f32-inside")
    return ("float64", "float32", "bf16")


def sample(x, precision):
    """Elements of ``x`` that a golden stores: an even stride through its flat order, coprime to the last axis.

    Parameters
    ----------
    x : (...)
    precision : str
        bfloat16 is judged by its share of equal bits, which takes more elements: of 8,000 a share of 99.95 % loses 4.

    Returns
    -------
    picked : (n)
        Some 2,000 to 4,000, in bfloat16 8,000 to 16,000, or all of a smaller array.
    """
    stride = max(1, math.prod(x.shape) // (8000 if precision.startswith("bf16") else 2000))
    while math.gcd(stride, x.shape[-1]) != 1:
        stride += 1
    return x.reshape(-1)[::stride]


def fingerprint(x, seed):
    """What a golden stores of a large array: some of its elements, its products with three random arrays, its size.

    Parameters
    ----------
    x : (...), float64
    seed : int

    Returns
    -------
    numbers : (28)
        24 elements at an even stride (all of a smaller array, and zeros), three inner products, the norm.

    Notes
    -----
    A wrong element that the stride misses moves every product.
    """
    picked = x.reshape(-1)[:: max(1, x.size // 24) | 1][:24]
    products = [np.sum(x * (uniform(seed + number, x.shape) - 0.5)) for number in range(3)]
    return np.concatenate([picked, np.zeros(24 - picked.size), products, [np.sqrt(np.sum(np.square(x)))]])
