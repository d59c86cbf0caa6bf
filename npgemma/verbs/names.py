"""``npgemma names``: every tensor's axes, formula, source line, and what it is called elsewhere; and the way back."""

import argparse
import difflib
import re
from pathlib import Path

from npgemma.base import printer
from npgemma.base.elsewhere import LAYOUTS, all_names, elsewhere, find, key
from npgemma.base.errors import InputError
from npgemma.base.expressions import explained, inputs_of
from npgemma.base.tensors import Call, Tensor, schema, tensors
from npgemma.config import VARIANTS, Config
from npgemma.tracing.selection import as_patterns, check_patterns, matches
from npgemma.tracing.sources import made_at
from npgemma.verbs.options import add_verb

DESCRIPTION = """The map of names: what each tensor is, where it is made, and what it is called elsewhere.

  npgemma names                                 one line a tensor, blocks written once
  npgemma names 'text.blocks.3.attn.*'          all that is known of some tensors
  npgemma names layers.0.self_attn.q_proj       the tensor of a PyTorch module, or of any other program's name
  npgemma names Qcur-0                          llama.cpp's graph; also blk.0.attn_q, llm/layers/mlp/linear[0], …
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
    chosen = {name: table[name] for name in wanted(as_patterns(args.glob or ()), table, cfg)}
    if args.json:
        printer.say_json([record(name, tensor, cfg) for name, tensor in chosen.items()], indent=1)
    elif args.glob:
        printer.say("\n\n".join(entry(record(name, tensor, cfg)) for name, tensor in chosen.items()))
    else:
        printer.say("\n".join(overview(chosen, cfg)))
    return 0


def wanted(patterns: tuple[str, ...], table: dict[str, Tensor], cfg: Config) -> list[str]:
    """The names that fit: npgemma's by their pattern, or those that another program calls so."""
    if not patterns:
        return list(table)
    found: set[str] = set()
    for pattern in patterns:
        fitting = [name for name in table if matches(name, [pattern])] or find(pattern, cfg)
        if not fitting and (near := near_elsewhere(pattern, table, cfg)):
            raise InputError(f"{pattern!r} is no tensor's name, here or elsewhere; nearest: {', '.join(near)}")
        if not fitting:
            check_patterns([pattern], table)
        found.update(fitting)
    return [name for name in table if name in found]


def near_elsewhere(theirs: str, table: dict[str, Tensor], cfg: Config) -> list[str]:
    """The names, or ends of as many parts, that resemble another program's most; none where one begins as ours do."""
    if theirs.partition(".")[0] in {name.partition(".")[0] for name in table}:
        return []
    parts = len(re.findall(r"[./]", theirs)) + 1
    behind = re.compile(rf"(?:[^./]+[./]){{0,{parts - 1}}}[^./]+$")
    ends = {found[0] for names in all_names(cfg).values() for name in names if (found := behind.search(name))}
    return difflib.get_close_matches(theirs, sorted(ends), n=3, cutoff=0.7)


def record(name: str, tensor: Tensor, cfg: Config) -> dict:
    """All that is known of a tensor, for machines."""
    file, line = made_at(tensor.row.kept_in, name)
    other, weights = elsewhere(name, cfg), schema(cfg)
    has_weight = f"{name}.weight" in weights
    keys = {layout.seen_in: key(f"{name}.weight", cfg, each) for each, layout in LAYOUTS.items() if has_weight}
    return {
        "name": name,
        "axes": tensor.letters,
        "formula": explained(name, tensor, cfg),
        "expression": tensor.row.expression,
        "inputs": inputs_of(name, tensor, cfg, Call(), {**tensors(cfg), **weights}),
        "function": tensor.row.kept_in,
        "source": f"{short(file)}:{line}",
        "pytorch": other.modules,
        "which": other.which,
        "keys": keys,
        "big_vision": other.big_vision,
        "gguf": other.gguf,
        "gemma.cpp": other.gemma_cpp,
        "llama.cpp": other.graph,
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
    if item["inputs"]:
        lines.append(f"  made of     {', '.join(item['inputs'])}")
    for version, module in item["pytorch"].items():
        lines.append(f"  {'PyTorch' if version.startswith('4.41') else '':8}{version:10}{module}  [{item['which']}]")
    lines.append(f"  big_vision  {item['big_vision']}")
    for kind in ("gguf", "gemma.cpp"):
        if item[kind]:
            lines.append(f"  {kind:10}  {item[kind]}  [the weight that makes it]")
    if item["llama.cpp"]:
        lines.append(f"  llama.cpp   {item['llama.cpp']}  [in its graph]")
    return "\n".join(lines)


def overview(chosen: dict[str, Tensor], cfg: Config) -> list[str]:
    """One line a tensor; a block's tensors once, with N for its number."""
    lines: dict[str, str] = {}
    for name, tensor in chosen.items():
        file, line = made_at(tensor.row.kept_in, name)
        general = re.sub(r"\.\d+\.", ".N.", name)
        what = explained(name, tensor, cfg)
        lines.setdefault(general, f"{general:28} {tensor.letters:12} {short(file)}:{line:<5} {what}")
    return list(lines.values())
