"""What a model costs before any weight is at hand: parameters, bytes, operations, peak memory, shapes.

Counts come from :func:`npgemma.base.tensors.schema`, shapes of a run from :func:`npgemma.base.tensors.tensors`, so
that a plan cannot differ from what is loaded and run.  One picture, one prompt.  Letters: P image tokens, T positions
of the prefill (picture, ``<bos>``, prompt, newline).
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npgemma.attention import SCORES_AT_ONCE
from npgemma.base.blocks import SCORES_NEAR, workers
from npgemma.base.cache import HEADROOM
from npgemma.base.errors import InputError
from npgemma.base.expressions import full_name, multiplied
from npgemma.base.tensors import Call, Tensor, schema, tensors
from npgemma.checkpoints import hf_config, hub_cache
from npgemma.config import VARIANTS, Config
from npgemma.tracing.selection import matches

# Hugging Face pads the 257,152 rows of the embedding table to 257,216.
HF_EXTRA_ROWS = 64
BYTES = {"float32": 4, "bfloat16": 2}
PROMPT_TOKENS = 16

# When memory is fullest: the tensors of a layer that live then, and those that its callers hold.
SEEING = ("pixels", "vision.patches", "vision.embedded")
READING = ("connector.out", "text.embedded", "text.spliced", "mask.*", "text.cos", "text.sin")
IN_ATTENTION = ("out", "attn_norm", "attn.[!o]*")  # in softmax, before attn.out is made
IN_MLP = ("out", "attn_norm", "attn.out", "attn_post_norm", "middle", "mlp_norm", "mlp.*")
MOMENTS = (
    ("vision", SEEING, IN_ATTENTION),
    ("vision", SEEING, IN_MLP),
    ("text", READING, IN_ATTENTION),
    ("text", READING, IN_MLP),
)
SCORES = (".scores", ".capped", ".probs")


@dataclass(frozen=True)
class Row:
    """One weight or tensor, or the same one in ``times`` blocks."""

    name: str
    letters: str
    shape: tuple[int, ...]
    times: int


@dataclass(frozen=True)
class Plan:
    """What a model costs.

    Parameters
    ----------
    parameters : dict of str to int
        By part: ``vision``, ``connector``, ``text``; the embedding table is a part of ``text``.
    total, total_with_hf_rows : int
        Their sum; and with 64 rows more where the table has 257,152, as Hugging Face's files have.
    weight_bytes, cache_bytes_per_token : dict of str to int
        By dtype, ``float32`` and ``bfloat16``.
    flops : dict of str to int
        ``vision`` (the tower, one picture), ``connector``, ``prefill`` (the decoder, with the logits of the last
        position), ``step`` (one more token behind it).  A multiplication and an addition are two.
    peak_bytes : dict of str to int
        Memory of a prefill by dtype of the weights; arithmetic and cache are float32 in both.
    weights, tensors : tuple of Row
        Layer by layer: what is stored, and what a prefill computes.
    """

    name: str
    image_tokens: int
    positions: int
    parameters: dict[str, int]
    total: int
    total_with_hf_rows: int
    weight_bytes: dict[str, int]
    cache_bytes_per_token: dict[str, int]
    flops: dict[str, int]
    peak_bytes: dict[str, int]
    weights: tuple[Row, ...]
    tensors: tuple[Row, ...]


def find_config(name_or_folder: str | Path) -> Config:
    """Give the configuration of a released variant (``paligemma2-3b-448``), of a folder, or of a hub id in the cache.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if name_or_folder in VARIANTS:
        return VARIANTS[str(name_or_folder)]
    try:
        folder = hub_cache.find_model(name_or_folder)
    except InputError as problem:
        raise InputError(f"{problem}; variants: {', '.join(VARIANTS)}") from None
    return hf_config.read_config(folder)


def plan(cfg: Config, name: str = "model", prompt_tokens: int = PROMPT_TOKENS) -> Plan:
    """Work out what a model costs with one picture and a prompt.

    Parameters
    ----------
    cfg : Config
    name : str
        A title.
    prompt_tokens : int
        ``<bos>``, the prompt, and its newline.
    """
    if type(prompt_tokens) is not int or not 1 <= prompt_tokens <= cfg.text.max_positions - cfg.vision.num_patches:
        room = cfg.text.max_positions - cfg.vision.num_patches
        raise InputError(f"plan: prompt_tokens is {prompt_tokens!r}; want 1 to {room:,}, what the context leaves")
    positions = cfg.vision.num_patches + prompt_tokens
    parts: dict[str, int] = {"vision": 0, "connector": 0, "text": 0}
    for weight, parameter in schema(cfg).items():
        parts[weight.split(".")[0]] += math.prod(parameter.shape)
    total = sum(parts.values())
    padded = HF_EXTRA_ROWS if cfg.text.vocab_size == 257152 else 0
    cached = cfg.text.depth * 2 * cfg.text.num_kv_heads * cfg.text.head_dim
    call = Call(length=positions, last_only=True)
    shapes, prefill = tensors(cfg, length=positions, last_only=True), operations(cfg, call)
    return Plan(
        name=name,
        image_tokens=cfg.vision.num_patches,
        positions=positions,
        parameters=parts,
        total=total,
        total_with_hf_rows=total + padded * cfg.text.width,
        weight_bytes={dtype: size * total for dtype, size in BYTES.items()},
        cache_bytes_per_token={dtype: size * cached for dtype, size in BYTES.items()},
        flops={
            "vision": prefill["vision"],
            "connector": prefill["connector"],
            "prefill": prefill["text"],
            "step": operations(cfg, Call(pictures=0, past=positions))["text"],
        },
        peak_bytes={dtype: size * total + peak_bytes(cfg, positions) for dtype, size in BYTES.items()},
        weights=tuple(rows((key, item.letters, item.shape) for key, item in schema(cfg).items())),
        tensors=tuple(rows((key, item.letters, item.shape) for key, item in shapes.items())),
    )


def operations(cfg: Config, call: Call) -> dict[str, int]:
    """Operations of the matrix products of a call, 2 m n k each, by part of the model.

    Masked scores are computed too, so sliding blocks cost as much as the others, and every block what the first does.
    """
    shapes = tensors(cfg, call.batch, call.pictures, call.length, call.past, call.last_only)
    known = {name: one.shape for name, one in schema(cfg).items()} | {name: one.shape for name, one in shapes.items()}
    parts: dict[str, int] = {}
    for name, tensor in without_later_blocks(shapes).items():
        summed = multiplied(name, tensor.row.expression, cfg, call)
        lengths = [known[str(full_name(short, name, known))][-1] for short in summed]
        part = name.split(".")[0]
        times = getattr(cfg, part).depth if ".blocks." in name else 1
        parts[part] = parts.get(part, 0) + times * sum(2 * math.prod(tensor.shape) * length for length in lengths)
    return parts


def without_later_blocks(shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each tower's blocks leave the first one only."""
    return {name: one for name, one in shapes.items() if ".blocks." not in name or ".blocks.0." in name}


def peak_bytes(cfg: Config, positions: int) -> int:
    """Bytes alive at the fullest moment of a prefill in float32, beside the weights."""
    text = cfg.text
    shapes = without_later_blocks(tensors(cfg, pictures=1, length=positions, last_only=True))
    buffers = positions + HEADROOM + positions // 2
    cache = 4 * text.depth * 2 * text.num_kv_heads * text.head_dim * buffers
    return max(
        moment(shapes, (*around, *(f"{tower}.blocks.0.{name}" for name in inside))) + (cache if tower == "text" else 0)
        for tower, around, inside in MOMENTS
    )


def moment(shapes: dict[str, Tensor], alive: Sequence[str]) -> int:
    """Bytes of the tensors that fit the patterns.

    Scores exist in pieces, and beside those that have names as the bare product and as masked; what is gathered from
    the values of all heads lies in another order first.
    """
    sizes = {name: tensor.nbytes(np.float32) for name, tensor in shapes.items() if matches(name, alive)}
    scores = [of_pieces(size, math.prod(shapes[name].shape[1:3])) for name, size in sizes.items()
              if name.endswith(SCORES)]
    others = [size for name, size in sizes.items() if not name.endswith(SCORES)]
    whole = all(size <= 4 * SCORES_NEAR for name, size in sizes.items() if name.endswith(SCORES))
    gathered = [size for name, size in sizes.items() if name.endswith(".mixed") and whole]
    return sum(others) + sum(scores) + 2 * max(scores, default=0) + sum(gathered)


def of_pieces(size: int, heads: int) -> int:
    """Bytes of scores that exist at the same time, of so many in all: see ``npgemma.base.blocks.heads_and_rows``."""
    of_all_heads = min(size, 4 * SCORES_AT_ONCE)
    return of_all_heads * min(heads, workers()) // heads if size > 4 * SCORES_NEAR else of_all_heads


def rows(named: Iterable[tuple[str, str, tuple[int, ...]]]) -> list[Row]:
    """Write what every block has once, with the number of blocks: ``text.blocks.*.attn.q``."""
    merged: dict[str, Row] = {}
    for name, letters, shape in named:
        general = re.sub(r"\.blocks\.\d+\.", ".blocks.*.", name)
        times = merged[general].times + 1 if general in merged else 1
        merged[general] = Row(general, letters, shape, times)
    return list(merged.values())


def as_text(costs: Plan, shapes: bool = True) -> str:
    """Write a plan for people; ``shapes`` adds the two tables of shapes."""
    parts = ", ".join(f"{part} {count:,}" for part, count in costs.parameters.items())
    context = f"{costs.image_tokens:,} image tokens + {costs.positions - costs.image_tokens} of text"
    cache = {dtype: size * costs.positions for dtype, size in costs.cache_bytes_per_token.items()}
    lines = [
        costs.name,
        f"  parameters     {costs.total:,} ({parts})",
        f"                 {costs.total_with_hf_rows:,} with the rows that Hugging Face adds to the table",
        f"  weights        {both(costs.weight_bytes)}",
        f"  cache          {both(cache)} for {context}; {costs.cache_bytes_per_token['float32']:,} bytes a token",
        f"  vision         {amount(costs.flops['vision'] + costs.flops['connector'], 'FLOP')}, once a picture",
        f"  prefill        {amount(costs.flops['prefill'], 'FLOP')}",
        f"  a token        {amount(costs.flops['step'], 'FLOP')}",
        f"  peak memory    {both(costs.peak_bytes)} (the bfloat16 weights stay in their file's pages)",
    ]
    if shapes:
        lines += ["", "weights", *table(costs.weights), "", "tensors of a prefill", *table(costs.tensors)]
    return "\n".join(lines)


def both(amounts: dict[str, int]) -> str:
    """Bytes by dtype."""
    return ", ".join(f"{amount(size, 'B')} {dtype}" for dtype, size in amounts.items())


def amount(number: float, unit: str) -> str:
    """A number with a decimal prefix and three digits: ``11.7 GB``."""
    for prefix in ("", "k", "M", "G", "T"):
        if number < 999.5:
            break
        number /= 1000
    return f"{number:.3g} {prefix}{unit}"


def table(listed: Iterable[Row]) -> list[str]:
    """One line a row: name, shape in letters and numbers, in how many blocks."""
    return [
        f"  {row.name:<36} {row.letters:<10} {row.shape!s:<22} {f'x {row.times}' if row.times > 1 else ''}".rstrip()
        for row in listed
    ]
