"""``npgemma names``: every tensor's axes, formula, source line, and what it is called elsewhere."""

import argparse
import re
from pathlib import Path

from npgemma.base import printer
from npgemma.base.errors import InputError
from npgemma.config import VARIANTS, Config
from npgemma.show.elsewhere import elsewhere
from npgemma.tracing.names import Tensor, as_patterns, check_patterns, made_at, matches, tensors
from npgemma.verbs.options import add_verb

DESCRIPTION = """The map of names: what each tensor is, where it is made, and what it is called elsewhere.

  npgemma names                                 one line a tensor, blocks written once
  npgemma names 'text.blocks.3.attn.*'          all that is known of some tensors
  npgemma names text.logits --variant paligemma-3b-224

Letters: B batch, I pictures, R image side, P patches, T positions of this call, S positions so far, C vision width,
D text width, N query heads, K key/value heads, G query heads a key/value head, H head size, F MLP width,
V vocabulary."""


def add(subparsers) -> None:
    """Describe the arguments."""
    parser = add_verb(subparsers, "names", "what each tensor is, and its names elsewhere", DESCRIPTION, run)
    parser.add_argument("glob", metavar="GLOB", nargs="?", help="such as 'text.blocks.*.attn.probs'; all if left out")
    parser.add_argument("--variant", default="paligemma2-3b-224", help="a released model (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON list")


def run(args: argparse.Namespace) -> int:
    """Print the table, or the part of it that was asked for."""
    if args.variant not in VARIANTS:
        raise InputError(f"variant {args.variant!r}; want one of {', '.join(VARIANTS)}")
    cfg = VARIANTS[args.variant]
    table = tensors(cfg)
    patterns = as_patterns(args.glob or ())
    check_patterns(patterns, table)
    chosen = {name: tensor for name, tensor in table.items() if not patterns or matches(name, patterns)}
    if args.json:
        printer.say_json([record(name, tensor, cfg) for name, tensor in chosen.items()], indent=1)
    elif patterns:
        printer.say("\n\n".join(entry(record(name, tensor, cfg)) for name, tensor in chosen.items()))
    else:
        printer.say("\n".join(overview(chosen)))
    return 0


def record(name: str, tensor: Tensor, cfg: Config) -> dict:
    """All that is known of a tensor, for machines."""
    file, line = made_at(tensor.maker, name)
    other = elsewhere(name, cfg)
    return {
        "name": name,
        "axes": tensor.letters,
        "formula": tensor.formula,
        "function": tensor.maker,
        "source": f"{short(file)}:{line}",
        "pytorch": other.modules,
        "which": other.which,
        "big_vision": other.big_vision,
        "gguf": other.gguf,
        "gemma.cpp": other.gemma_cpp,
    }


def short(file: Path) -> str:
    """A file's path from the package on."""
    return f"{file.parent.name}/{file.name}"


def entry(item: dict) -> str:
    """The record of one tensor, for people."""
    lines = [
        f"{item['name']}  ({item['axes']})",
        f"  = {item['formula']}",
        f"  made by     {item['function']}, {item['source']}",
    ]
    for version, module in item["pytorch"].items():
        lines.append(f"  {'PyTorch' if version.startswith('4.41') else '':8}{version:10}{module}  [{item['which']}]")
    lines.append(f"  big_vision  {item['big_vision']}")
    for kind in ("gguf", "gemma.cpp"):
        if item[kind]:
            lines.append(f"  {kind:10}  {item[kind]}  [the weight that makes it]")
    return "\n".join(lines)


def overview(chosen: dict[str, Tensor]) -> list[str]:
    """One line a tensor; a block's tensors once, with N for its number."""
    lines = {}
    for name, tensor in chosen.items():
        file, line = made_at(tensor.maker, name)
        general = re.sub(r"\.\d+\.", ".N.", name)
        lines[general] = f"{general:28} {tensor.letters:12} {short(file)}:{line:<5} {tensor.formula}"
    return list(lines.values())
