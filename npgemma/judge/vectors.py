"""Every operation by itself, on data made to break naive code: what the op tier of a pack, and ``vectors``, hold.

Reduction lengths are a model's own, because roundings depend on them; other axes are at most 32 long.  A case is named
``rms_norm.2048.signed-wide``: operation, length, set.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from npgemma import masks, ops, rotary
from npgemma.base.precision import round_bf16
from npgemma.judge import datasets
from npgemma.judge.near import Near
from npgemma.judge.near import linear as plain_linear

FUNCTIONS = {
    **{each.__name__: each for each in (ops.layer_norm, ops.rms_norm, ops.gelu, ops.soft_cap, ops.softmax)},
    **{each.__name__: each for each in (ops.embed, ops.patchify, ops.group_heads, ops.merge_heads)},
    **{each.__name__: each for each in (rotary.angles, rotary.rotate)},
    **{each.__name__: each for each in (masks.prefix_lm, masks.sliding_prefix_lm, masks.hide)},
    "linear": plain_linear,
    "cos": np.cos,
    "sin": np.sin,
}


@dataclass(frozen=True)
class Case:
    """One operation on one set of data.

    Parameters
    ----------
    op : str
    name : str
    expression : str
        What is computed: equations of npgemma over the names of arrays and numbers.
    arrays : dict of str to array
        float32 arrays of bfloat16 values, integers, booleans.
    numbers : dict of str to float or int
    product : str
        Expression of the bare matrix product in it, which has an accumulator; empty if there is none.
    """

    op: str
    name: str
    expression: str
    arrays: dict
    numbers: dict = field(default_factory=dict)
    product: str = ""

    def run(self, precision, arrays=None, expression=None):
        """Evaluate the expression in a precision, on the case's arrays or on others of the same names."""
        given = self.arrays if arrays is None else arrays
        names = {"inner": precision.inner, "number": precision.number, "dtype": precision.dtype} | self.numbers | given
        with np.errstate(all="ignore"):
            return eval(expression or self.expression, {"__builtins__": {}} | FUNCTIONS | names)

    def near(self, unit):
        """The case's arrays as exact numbers from which noise is reckoned."""
        return {
            name: Near(array.astype(np.float64), 0.0, unit) if array.dtype.kind == "f" else array
            for name, array in self.arrays.items()
        }


def all_cases(cfg):
    """Every case at the lengths of a configuration, in order."""
    for op, make in MAKERS.items():
        yield from (case for case in make(op, cfg))


def cases(op, cfg):
    """The cases of one operation."""
    return list(MAKERS[op](op, cfg))


def each_set(op, lengths, make):
    """A case for each length and each set; ``make(set, length, number)`` gives a case's fields behind its name."""
    for length in dict.fromkeys(lengths):
        for number, name in enumerate(datasets.SETS):
            yield Case(op, f"{op}.{length}.{name}", *make(name, length, number))


def widths(cfg):
    """Lengths over which the model's matrices are summed: pixels of a patch, widths of both towers and their MLPs."""
    vision, text = cfg.vision, cfg.text
    heads = text.num_heads * text.head_dim
    return [3 * vision.patch_size**2, vision.width, vision.mlp_width, text.width, heads, text.mlp_width]


def lengths(op, cfg):
    """The lengths in the names of an operation's cases; none where it has no such."""
    heads, keys = [cfg.vision.head_dim, cfg.text.head_dim], min(cfg.vision.num_patches + 8, 1032)
    found = {
        "linear": widths(cfg), "layer_norm": [cfg.vision.width], "rms_norm": [cfg.text.width], "softmax": [keys],
        "rotate": [cfg.text.head_dim], "scores": heads, "mixed": [keys], "embed": [cfg.text.width],
        "patchify": [cfg.vision.patch_size],
    }  # fmt: skip
    return found.get(op, [])


def linear(op, cfg):
    """Products with matrices, one of them with a bias."""

    def make(name, length, number):
        x, weight = datasets.factors(name, length)
        return "linear(x, weight)", {"x": x, "weight": weight}, {}, "linear(x, weight)"

    yield from each_set(op, lengths(op, cfg), make)
    x, weight = datasets.factors("gaussian", cfg.vision.width, 1)
    arrays = {"x": x, "weight": weight, "bias": bf16(datasets.bell(7, (len(weight),)))}
    text = "linear(x, weight, bias)"
    yield Case(op, f"{op}.{cfg.vision.width}.with-bias", text, arrays, {}, text)


def rows_of(name, length, count=32):
    """A few vectors (count, length) of a set; its large numbers made such that their squares are finite in float32."""
    x, _ = datasets.factors(name, length, 2, rows=count)
    return x


def rms_norm(op, cfg):
    """Gemma's norm."""

    def make(name, length, number):
        weight = bf16(datasets.bell(20 + number, (length,)) * 0.3)
        return "rms_norm(x, weight, eps)", {"x": rows_of(name, length), "weight": weight}, {"eps": cfg.text.norm_eps}

    yield from each_set(op, lengths(op, cfg), make)


def layer_norm(op, cfg):
    """SigLIP's norm."""

    def make(name, length, number):
        weight, bias = (bf16(datasets.bell(30 + number + part, (length,)) * 0.3) for part in (0, 10))
        # A mean as large as two spreads, as activations have it: sums of squares must not cancel.
        shift = 0.0 if name == "wide-exponents" else 2.0
        x = bf16(rows_of(name, length) + shift)
        return (
            "layer_norm(x, weight, bias, eps)",
            {"x": x, "weight": weight, "bias": bias},
            {"eps": cfg.vision.norm_eps},
        )

    yield from each_set(op, lengths(op, cfg), make)


def gelu(op, cfg):
    """The bend, the tails, and what is far out."""
    patterns = np.arange(0x3B80, 0x4160, 3, dtype=np.uint32) << np.uint32(16)  # 2**-8 to 14
    sizes = patterns.view(np.float32)
    x = np.concatenate([-sizes[::-1], [0.0], sizes]).astype(np.float32)[None]
    yield Case(op, "gelu.bend-and-tails", "gelu(x)", {"x": x})
    yield Case(op, "gelu.wide-exponents", "gelu(x)", {"x": bf16(rows_of("wide-exponents", 64, 16) * 2.0**-30)})


def soft_cap(op, cfg):
    """Each cap of the configuration, on numbers beyond it."""
    for cap in [cap for cap in (cfg.text.attn_softcap, cfg.text.final_softcap) if cap is not None]:
        x = bf16(datasets.bell(40, (32, 32)) * cap)
        yield Case(op, f"{op}.{cap:g}.gaussian", "soft_cap(x, cap, inner)", {"x": x}, {"cap": cap})


def softmax(op, cfg):
    """Rows that see some keys, one, all, none."""

    def make(name, length, number):
        mask = datasets.uniform(50 + number, 32 * length).reshape(32, length) < 0.7
        mask[0], mask[1] = True, False
        mask[2], mask[2, length // 2] = False, True
        x = bf16(4 * rows_of(name, length)).reshape(1, 1, 1, 32, length)
        return "softmax(hide(x, mask))", {"x": x, "mask": mask[None]}

    yield from each_set(op, lengths(op, cfg), make)


def angles(op, cfg):
    """Cosines and sines from the first position to the last."""
    last = cfg.text.max_positions - 1
    positions = np.unique(np.linspace(0, last, 32).astype(np.int64))[None]
    numbers = {"head_dim": cfg.text.head_dim, "theta": cfg.text.rope_theta}
    for name in ("cos", "sin"):
        text = f"inner({name}(angles(positions, head_dim, theta, dtype)))"
        yield Case(op, f"{op}.{cfg.text.head_dim}.{name}", text, {"positions": positions}, numbers)


def rotate(op, cfg):
    """Queries at positions far apart."""
    H = cfg.text.head_dim
    positions = np.unique(np.linspace(0, cfg.text.max_positions - 1, 8).astype(np.int64))[None]
    turned = rotary.angles(positions, H, cfg.text.rope_theta, np.float32)

    def make(name, length, number):
        x = rows_of(name, length).reshape(1, len(positions[0]), -1, length)
        return "rotate(x, cos, sin, inner)", {
            "x": x,
            "cos": round_bf16(np.cos(turned)),
            "sin": round_bf16(np.sin(turned)),
        }

    yield from each_set(op, lengths(op, cfg), make)


def scores(op, cfg):
    """Scores of both towers' heads."""

    def make(name, length, number):
        q, k = datasets.factors(name, length, 3, rows=64)
        arrays = {"q": q.reshape(1, 16, 4, length), "k": k.reshape(1, 16, 2, length)}
        product = "group_heads(q, 2) @ group_heads(k, 2).mT"
        scale = cfg.vision.query_scale if length == cfg.vision.head_dim else cfg.text.query_scale
        return f"inner({product}) * scale", arrays, {"scale": scale}, product

    yield from each_set(op, lengths(op, cfg), make)


def mixed(op, cfg):
    """Values gathered over all keys of a prompt."""

    def make(name, length, number):
        probs, v = datasets.factors(name, length, 4, rows=64)
        arrays = {"probs": probs.reshape(1, 2, 2, 16, length), "v": v.reshape(2, 16, 1, length).transpose(2, 3, 0, 1)}
        product = "probs @ group_heads(v, 2)"
        return f"merge_heads({product})", arrays, {}, product

    yield from each_set(op, lengths(op, cfg), make)


def embed(op, cfg):
    """Rows of a table, scaled."""
    D = cfg.text.width
    table = bf16(datasets.bell(60, (16, D)))
    ids = (datasets.uniform(61, 24) * 16).astype(np.int64).reshape(2, 12)
    yield Case(
        op,
        f"{op}.{D}.gaussian",
        "embed(ids, table) * number(scale)",
        {"ids": ids, "table": table},
        {"scale": math.sqrt(D)},
    )


def patchify(op, cfg):
    """One picture with a remainder of a pixel."""
    side = cfg.vision.patch_size
    pixels = bf16(datasets.between(70, (1, 2 * side + 1, 2 * side + 1, 3), -1.0, 1.0))
    yield Case(op, f"{op}.{side}.uniform", "patchify(pixels, patch_size)", {"pixels": pixels}, {"patch_size": side})


def prefix_lm(op, cfg):
    """Masks with padding on both sides, full and sliding."""
    types, real = np.zeros((2, 12), np.int64), np.ones((2, 12), np.int64)
    types[:, 8:], real[0, 10:], real[1, :3] = 1, 0, 0
    arrays = {"token_types": types, "attention_mask": real}
    text = "prefix_lm(token_types, attention_mask, num_queries)"
    yield Case("prefix_lm", "prefix_lm.12.padded", text, arrays, {"num_queries": 12})
    text = "sliding_prefix_lm(token_types, attention_mask, num_queries, window)"
    yield Case("prefix_lm", "sliding_prefix_lm.12.padded", text, arrays, {"num_queries": 12, "window": 3})


def bf16(x):
    """float32 array of the nearest bfloat16 values."""
    return round_bf16(np.asarray(x, dtype=np.float32))


MAKERS = {
    each.__name__: each
    for each in (linear, layer_norm, rms_norm, gelu, soft_cap, softmax, angles, rotate, scores, mixed, embed, patchify,
                 prefix_lm)
}  # fmt: skip
