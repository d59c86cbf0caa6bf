"""What weights and tensors are called elsewhere, in both directions: PyTorch in every layout that transformers ever
saved or built, big_vision, GGUF, gemma.cpp, and llama.cpp's graph.

All names stand in :mod:`npgemma.base.table`.  Gemma 2 has two norms more than Gemma and gives one of Gemma's names,
``post_attention_layernorm``, to another norm.  GGUF and gemma.cpp name weights only, so a tensor there goes by the
weight that makes it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from npgemma.base.table import ROWS, WEIGHTS, Row, Weight
from npgemma.base.tensors import in_blocks, schema
from npgemma.config import Config


@dataclass(frozen=True)
class Layout:
    """What stands before a tensor's name in one generation of files, and the name of the output head."""

    seen_in: str
    vision: str
    connector: str
    text: str
    head: str


LAYOUTS = {
    "A": Layout(
        "files of the releases; transformers 4.41 to 4.51",
        "vision_tower.vision_model.", "multi_modal_projector.", "language_model.model.",
        "language_model.lm_head.weight",
    ),
    "A5": Layout(
        "files that transformers 5.x saves",
        "vision_tower.", "multi_modal_projector.", "language_model.model.", "language_model.lm_head.weight",
    ),
    "B": Layout(
        "modules of transformers 4.52 to 4.57",
        "model.vision_tower.vision_model.", "model.multi_modal_projector.", "model.language_model.", "lm_head.weight",
    ),
    "C": Layout(
        "modules of transformers 5.x",
        "model.vision_tower.", "model.multi_modal_projector.", "model.language_model.", "lm_head.weight",
    ),
}
# The layouts of modules in memory, by version of transformers.
MODULES = {"4.41-4.51": "A", "4.52-4.57": "B", "5.x": "C"}


@dataclass(frozen=True)
class Elsewhere:
    """One tensor's other names; an empty string where there is none.

    Parameters
    ----------
    modules : dict of str to str
        PyTorch's module, by version of transformers.
    which : str
        What of the module: its output, its input, or inside.
    big_vision : str
        The weight's array, or the module.
    gguf, gemma_cpp : str
        The weight that makes the tensor.
    graph : str
        In llama.cpp's graph.
    """

    modules: dict[str, str]
    which: str
    big_vision: str
    gguf: str
    gemma_cpp: str
    graph: str


def elsewhere(name: str, cfg: Config) -> Elsewhere:
    """Give the other names of one of npgemma's tensors."""
    row, weight = rows_of(cfg)[name], weights_of(cfg).get(name)
    n = number_of(name)
    files = ("", "") if weight is None else (weight.gguf.format(n=n), weight.gemma_cpp.format(n=n))
    if weight is not None and not row.torch:
        place, which, array = f"{part_of(name)} {weight.torch}", "output", weight.big_vision
        which = f"output; {row.meaning}" if name == "text.embedded" else which
    else:
        place, _, which = row.torch.partition(": ")
        array = row.big_vision
    part, _, module = filled(place, name, cfg).partition(" ")
    modules = {version: module_in(LAYOUTS[layout], part, module) for version, layout in MODULES.items()}
    return Elsewhere(modules, which, array.format(n=n), *files, row.graph.format(n=n))


def module_in(layout: Layout, part: str, module: str) -> str:
    """The full path of a module in one layout."""
    if part == "model":
        return "(the whole model)"
    root = layout.head.removesuffix(".weight") if part == "head" else getattr(layout, part)
    return f"{root}{module}".rstrip(".")


def filled(text: str, name: str, cfg: Config) -> str:
    """Fill in a block's number, and the norm before the MLP, whose name depends on the generation."""
    norm = "pre_feedforward_layernorm" if cfg.text.post_norms else "post_attention_layernorm"
    return text.format(n=number_of(name), norm_before_mlp=norm)


def number_of(name: str) -> str:
    """The number of a name's block; empty outside the blocks."""
    parts = name.split(".")
    return parts[2] if parts[1:2] == ["blocks"] else ""


def part_of(name: str) -> str:
    """The part of a layout that a weight lies in: ``vision``, ``connector`` or ``text``."""
    return name.split(".")[0]


@cache
def rows_of(cfg: Config) -> dict[str, Row]:
    """The rows of the table by full name."""
    return dict(in_blocks(ROWS, cfg))


@cache
def weights_of(cfg: Config) -> dict[str, Weight]:
    """The weights of the table by full name, without ``.weight``."""
    return dict(in_blocks(WEIGHTS, cfg))


def key(ours: str, cfg: Config, layout: str) -> str:
    """The key of one weight, ``text.norm.weight``, in files of a layout."""
    name, _, kind = ours.rpartition(".")
    return f"{getattr(LAYOUTS[layout], part_of(name))}{filled(weights_of(cfg)[name].torch, name, cfg)}.{kind}"


def keys(cfg: Config, layout: str) -> dict[str, str]:
    """Map npgemma's names to the keys of one layout: ``A``, ``A5``, ``B`` or ``C``."""
    return {ours: key(ours, cfg, layout) for ours in schema(cfg)}


@cache
def ours_by_key(cfg: Config) -> dict[str, str]:
    """Map the keys of all layouts to npgemma's names."""
    return {theirs: ours for layout in LAYOUTS for ours, theirs in keys(cfg, layout).items()}


def layout_of(stored: Iterable[str], cfg: Config) -> str | None:
    """Name the first layout that has all the model's keys that are among ``stored``; None for a mixture."""
    known = set(stored) & ours_by_key(cfg).keys()
    return next((name for name in LAYOUTS if known <= set(keys(cfg, name).values())), None)


def big_vision_array(ours: str, cfg: Config) -> str:
    """The array of big_vision's checkpoint that holds one weight, of its last axes; matrices are transposed there."""
    name, _, kind = ours.rpartition(".")
    array = weights_of(cfg)[name].big_vision.format(n=number_of(name))
    return array.replace("/kernel", "/bias").replace("/scale", "/bias") if kind == "bias" else array


def find(theirs: str, cfg: Config) -> list[str]:
    """npgemma's names of what another program calls ``theirs``: a whole name, else the end of one behind . or /."""
    wanted = theirs.removesuffix(".weight").removesuffix(".bias")
    named = all_names(cfg).items()
    whole = [ours for ours, names in named if wanted in names]
    ends = (f".{wanted}", f"/{wanted}")
    return whole or [ours for ours, names in named if any(name.endswith(ends) for name in names)]


@cache
def all_names(cfg: Config) -> dict[str, tuple[str, ...]]:
    """Every tensor's names elsewhere, those of its weight among them."""
    found, weights = {}, weights_of(cfg)
    for name in rows_of(cfg):
        other = elsewhere(name, cfg)
        output = other.which.startswith(("output", "input"))
        modules = set(other.modules.values()) if output else set()
        if name in weights:
            modules |= {key(f"{name}.weight", cfg, layout).removesuffix(".weight") for layout in LAYOUTS}
        named = (*sorted(modules), other.big_vision, other.gguf, other.gemma_cpp, other.graph)
        found[name] = tuple(theirs for theirs in named if theirs)
    return found
