"""The table of tensors: for each name its axes, its formula, and the function that makes it, in order of execution.

Letters of an axis: B batch, I pictures, R image side in pixels, P patches, T positions of this call, S positions so
far, C vision width, D text width, N query heads, K key/value heads, G query heads a key/value head, H head size, F MLP
width, V vocabulary rows.
"""

import ast
import difflib
import fnmatch
import importlib
import inspect
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from npgemma.base.describe import axes
from npgemma.base.errors import InputError, InputTypeError
from npgemma.config import Config

NORM = "x / sqrt(mean(x^2) + norm_eps) * (1 + {0}.weight)"
LAYER_NORM = "(x - mean) / sqrt(variance + norm_eps) * {0}.weight + {0}.bias"
SOFTMAX = "exp(s) / sum of exp(s) over the keys s that the query may look at, s = {0}"
ROTATED = "[a cos - b sin, b cos + a sin], {0} = [a, b]"
HEAD = "text.norm @ embedded.weight^T"
CAPPED = "{1} * tanh({0} / {1})"

# One row a tensor: name, axes, formula, the function whose line keeps it.
VISION_FIRST = (
    ("pixels", "I R R 3", "the pictures, uint8 / 127.5 - 1", "paligemma.see"),
    ("vision.patches", "I P C", "the pixels of a patch @ patches.weight^T + patches.bias", "vision.encode"),
    ("vision.embedded", "I P C", "patches + positions.weight", "vision.encode"),
)
VISION_BLOCK = (
    ("attn_norm", "I P C", LAYER_NORM.format("attn_norm"), "vision.block"),
    ("attn.q", "I P N H", "attn_norm @ q.weight^T + q.bias", "attention.vision_attention"),
    ("attn.k", "I P N H", "attn_norm @ k.weight^T + k.bias", "attention.vision_attention"),
    ("attn.v", "I P N H", "attn_norm @ v.weight^T + v.bias", "attention.vision_attention"),
    ("attn.scores", "I N 1 P P", "q @ k^T * query_scale, for each head", "attention.attend"),
    ("attn.probs", "I N 1 P P", SOFTMAX.format("scores"), "attention.attend"),
    ("attn.mixed", "I P C", "probs @ v, the heads side by side", "attention.attend"),
    ("attn.out", "I P C", "mixed @ out.weight^T + out.bias", "attention.vision_attention"),
    ("middle", "I P C", "x + attn.out", "vision.block"),
    ("mlp_norm", "I P C", LAYER_NORM.format("mlp_norm"), "vision.block"),
    ("mlp.up", "I P F", "mlp_norm @ up.weight^T + up.bias", "vision.mlp"),
    ("mlp.hidden", "I P F", "gelu(up)", "vision.mlp"),
    ("mlp.out", "I P C", "hidden @ out.weight^T + out.bias", "vision.mlp"),
    ("out", "I P C", "middle + mlp.out", "vision.block"),
)
VISION_LAST = (
    ("vision.norm", "I P C", LAYER_NORM.format("norm"), "vision.encode"),
    ("connector.out", "I P D", "vision.norm @ out.weight^T + out.bias", "paligemma.connect"),
)
TEXT_FIRST = (
    ("ids", "B T", "token ids, image tokens in place", "paligemma.prefill"),
    ("text.embedded", "B T D", "rows of embedded.weight * sqrt(D)", "text.embed"),
    ("text.spliced", "B T D", "connector.out where ids are image tokens, else text.embedded", "paligemma.splice"),
    ("positions", "B T", "1, 2, 3, ...", "paligemma.placed"),
    ("mask.full", "B T S", "(key <= query or both in the prefix) and key is real", "paligemma.placed"),
    ("mask.sliding", "B T S", "mask.full and (query - key < window or both in the prefix)", "paligemma.placed"),
    ("text.cos", "B T H/2", "cos(positions / rope_theta^(2i/H))", "text.decode"),
    ("text.sin", "B T H/2", "sin(positions / rope_theta^(2i/H))", "text.decode"),
)
TEXT_BLOCK = (
    ("attn_norm", "B T D", NORM.format("attn_norm"), "text.block"),
    ("attn.q", "B T N H", "attn_norm @ q.weight^T", "attention.attention"),
    ("attn.k", "B T K H", "attn_norm @ k.weight^T", "attention.attention"),
    ("attn.v", "B T K H", "attn_norm @ v.weight^T", "attention.attention"),
    ("attn.q_rot", "B T N H", ROTATED.format("q"), "attention.attention"),
    ("attn.k_rot", "B T K H", ROTATED.format("k"), "attention.attention"),
    ("attn.scores", "B K G T S", "q_rot @ k_rot^T * query_scale, for each head", "attention.attend"),
    ("attn.capped", "B K G T S", CAPPED.format("scores", "attn_softcap"), "attention.attend"),
    ("attn.probs", "B K G T S", SOFTMAX.format("{scores}"), "attention.attend"),
    ("attn.mixed", "B T NH", "probs @ v, the heads side by side", "attention.attend"),
    ("attn.out", "B T D", "mixed @ out.weight^T", "attention.attention"),
    ("attn_post_norm", "B T D", NORM.format("attn_post_norm"), "text.block"),
    ("middle", "B T D", "x + {attn_branch}", "text.block"),
    ("mlp_norm", "B T D", NORM.format("mlp_norm"), "text.block"),
    ("mlp.gate", "B T F", "mlp_norm @ gate.weight^T", "text.mlp"),
    ("mlp.opened", "B T F", "gelu(gate)", "text.mlp"),
    ("mlp.up", "B T F", "mlp_norm @ up.weight^T", "text.mlp"),
    ("mlp.hidden", "B T F", "opened * up", "text.mlp"),
    ("mlp.out", "B T D", "hidden @ out.weight^T", "text.mlp"),
    ("mlp_post_norm", "B T D", NORM.format("mlp_post_norm"), "text.block"),
    ("out", "B T D", "middle + {mlp_branch}", "text.block"),
)
TEXT_LAST = (
    ("text.norm", "B T D", NORM.format("norm"), "text.decode"),
    ("text.logits", "B T V", "{logits}", "text.logits"),
)


@dataclass(frozen=True)
class Tensor:
    """One named tensor of a run.

    Parameters
    ----------
    letters : str
        Its axes, ``B K G T S``.
    shape : tuple of int
    kind : str
        ``float``, ``integer`` or ``boolean``.
    formula : str
        In ASCII, one line; names of tensors and weights beside it in the tree.
    maker : str
        ``attention.attend``: module and function of npgemma.
    """

    letters: str
    shape: tuple[int, ...]
    kind: str
    formula: str
    maker: str

    def dtype(self, floating) -> np.dtype:
        """The dtype in a run whose floating arrays are ``floating``."""
        return np.dtype({"float": floating, "integer": np.int64, "boolean": np.bool_}[self.kind])

    def nbytes(self, floating) -> int:
        """Bytes of the array in such a run."""
        return math.prod(self.shape) * self.dtype(floating).itemsize


def tensors(
    cfg: Config, batch: int = 1, pictures: int = 1, length: int = 1, past: int = 0, last_only: bool = False
) -> dict[str, Tensor]:
    """List each tensor of one call, in order of execution.

    Parameters
    ----------
    cfg : Config
    batch : int
        B.
    pictures : int
        I, of the whole batch; 0 leaves the vision tower out.
    length : int
        T.
    past : int
        S - T: more than 0 describes a step, which has no pictures and nothing to splice.
    last_only : bool
        Whether logits are made for one position only.

    Returns
    -------
    tensors : dict of str to Tensor
    """
    rows: list[tuple[str, str, str, str]] = []
    if pictures and not past:
        rows += VISION_FIRST
        for n in range(cfg.vision.depth):
            rows += below(f"vision.blocks.{n}.", VISION_BLOCK)
        rows += VISION_LAST
    rows += TEXT_FIRST
    for n in range(cfg.text.depth):
        rows += below(f"text.blocks.{n}.", TEXT_BLOCK)
    rows += TEXT_LAST
    if last_only:
        rows[-1] = ("text.logits", "B 1 V", *rows[-1][2:])
    sizes = {"B": batch, "I": pictures, "T": length, "S": past + length}
    return {
        name: Tensor(letters, shape_of(name, letters, cfg, sizes), kind_of(name), phrase(formula, cfg), maker)
        for name, letters, formula, maker in rows
        if exists(name, cfg) and not (past and name == "text.spliced")
    }


def below(place: str, rows: Iterable[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """Put a place before the names of some rows."""
    return [(place + name, letters, formula, maker) for name, letters, formula, maker in rows]


def exists(name: str, cfg: Config) -> bool:
    """Tell whether a model of this configuration computes a tensor of the table."""
    if name.endswith("post_norm"):
        return cfg.text.post_norms
    if name.endswith("attn.capped"):
        return cfg.text.attn_softcap is not None
    return name != "mask.sliding" or cfg.text.sliding_window is not None


def kind_of(name: str) -> str:
    """Tell floats from integers and booleans by the name."""
    if name.startswith("mask."):
        return "boolean"
    return "integer" if name in ("ids", "positions") else "float"


def phrase(formula: str, cfg: Config) -> str:
    """Fill in what a formula calls a tensor that depends on the configuration."""
    text = cfg.text
    return formula.format(
        scores="scores" if text.attn_softcap is None else "capped",
        attn_branch="attn_post_norm" if text.post_norms else "attn.out",
        mlp_branch="mlp_post_norm" if text.post_norms else "mlp.out",
        logits=HEAD if text.final_softcap is None else CAPPED.format(f"({HEAD})", "final_softcap"),
    )


def shape_of(name: str, letters: str, cfg: Config, sizes: dict[str, int]) -> tuple[int, ...]:
    """Put numbers for the letters of a tensor's axes."""
    vision, text = cfg.vision, cfg.text
    if name.startswith(("vision.", "pixels")):
        own = {"C": vision.width, "N": vision.num_heads, "H": vision.head_dim, "F": vision.mlp_width}
    else:
        N, K, H = text.num_heads, text.num_kv_heads, text.head_dim
        own = {"N": N, "K": K, "G": N // K, "H": H, "H/2": H // 2, "NH": N * H, "F": text.mlp_width}
    known = sizes | own | {"R": vision.image_size, "P": vision.num_patches, "D": text.width, "V": text.vocab_size}
    return tuple(known[letter] if letter in known else int(letter) for letter in letters.split())


def axes_of(tensor: Tensor) -> str:
    """Write a tensor's axes, each letter with its size: ``(B1 T264 D2048)``."""
    return axes(tensor.shape, tensor.letters)


def made_at(maker: str, name: str) -> tuple[Path, int]:
    """Find the line that keeps a tensor.

    Parameters
    ----------
    maker : str
        ``attention.attend``.
    name : str
        Full or short; its last part is what the line keeps.

    Returns
    -------
    file : Path
    line : int
        Counted from 1.
    """
    file, lines = lines_that_keep(maker)
    short = name if name.startswith("mask.") else name.split(".")[-1]
    if short not in lines:
        raise LookupError(f"{maker} keeps no {short!r}")
    return file, lines[short]


@cache
def lines_that_keep(maker: str) -> tuple[Path, dict[str, int]]:
    """The file of a function, and the line of each name that it hands to a call first."""
    module_name, function_name = maker.split(".")
    module = importlib.import_module(f"npgemma.{module_name}")
    lines, first = inspect.getsourcelines(getattr(module, function_name))
    found = {}
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            found[str(node.args[0].value)] = first + node.lineno - 1
    return Path(str(module.__file__)), found


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether a name fits one of the patterns; ``step.3.`` may be left out of a pattern.

    Parameters
    ----------
    name : str
        ``text.blocks.3.attn.probs``, ``step.0.text.logits``.
    patterns : sequence of str
        Shell patterns: ``text.*``, ``text.blocks.[0-3].out``.
    """
    plain = without_step(name)
    return any(fnmatch.fnmatchcase(name, each) or fnmatch.fnmatchcase(plain, each) for each in patterns)


def without_step(name: str) -> str:
    """The name of a step's tensor as in the prefill."""
    return re.sub(r"^step\.\d+\.", "", name)


def as_patterns(only: str | Iterable[str]) -> tuple[str, ...]:
    """Take one pattern, several between commas, or an iterable of them."""
    listed = [only] if isinstance(only, str) else list(only) if isinstance(only, Iterable) else [only]
    if not all(isinstance(each, str) for each in listed):
        raise InputTypeError(
            f"came as {only!r:.80}; want a pattern such as 'text.blocks.*.out', or several",
            argument="patterns",
        )
    return tuple(part.strip() for each in listed for part in each.split(",") if part.strip())


def check_patterns(patterns: Sequence[str], known: Iterable[str]) -> None:
    """Refuse a pattern that fits no name.

    Raises
    ------
    InputError
        With the nearest names.
    """
    names = list(known)
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            close = ", ".join(nearest(pattern, names))
            raise InputError(f"{pattern!r} fits none of {len(names)} tensors; nearest: {close}")


def nearest(pattern: str, names: Iterable[str], count: int = 4) -> list[str]:
    """The names that resemble a pattern most, blocks of one kind written once: ``text.blocks.*.attn.q``."""
    unnumbered = re.sub(r"\d+|\[[^]]*\]", "*", pattern)
    kinds = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))
    close = difflib.get_close_matches(unnumbered, kinds, n=count, cutoff=0.4)
    return close or kinds[:count]
