"""``npgemma compare``: the first tensor of a port that differs, and what the fault looks like."""

import argparse
from pathlib import Path

from npgemma.base import printer
from npgemma.base.errors import InputError
from npgemma.base.heap import keep_memory
from npgemma.base.progress import Progress
from npgemma.checkpoints.loading import load
from npgemma.files import writer
from npgemma.judge import goldens, op_pack, op_report, report
from npgemma.judge.beside import sources_of
from npgemma.judge.provenance import weights_digest
from npgemma.judge.read_pack import open_pack
from npgemma.judge.read_run import open_run
from npgemma.judge.theirs import open_theirs
from npgemma.tracing.plan import ask
from npgemma.verbs import judge_options
from npgemma.verbs.options import add_model_options, add_question_options, add_verb, load_model, request_of, tell

DESCRIPTION = """Say which of a port's tensors is the first that differs, and what the fault looks like.

  npgemma compare mine.safetensors                                  the model and the picture in the box
  npgemma compare mine.safetensors cat.jpg "caption en" --model FOLDER
  npgemma compare mine.safetensors --pack PACK                      without the model: whole tensors only
  npgemma compare mine.safetensors --pack PACK --model FOLDER       each operation by itself too
  npgemma compare results.npz --pack OPS                            a pack of npgemma vectors
  npgemma compare mine.safetensors --pack trace.safetensors         two files: the other is of npgemma trace

THEIRS is .safetensors, .npz, a folder of .npy, or a folder of raw numbers with list.txt; names may be npgemma's,
transformers', big_vision's, GGUF's or those of llama.cpp's graph.  The columns are explained under the
table: error, share of equal bits, and that share where the operation alone is made again on their inputs.
Exit codes: 0 nothing differs, 1 wrong usage or a missing file, 2 broken file, 3 something differs, 4 nothing to
compare."""


def add(subparsers) -> None:
    """Describe the arguments."""
    parser = add_verb(
        subparsers,
        "compare",
        "the first tensor of a port that differs, and why",
        DESCRIPTION,
        run,
        "THEIRS [IMAGE ...] [PROMPT]",
    )
    parser.add_argument("theirs", metavar="THEIRS", help="the port's tensors")
    add_question_options(parser)
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--pack", metavar="PACK", help="hold them against a pack, or a file of npgemma trace; no model is run"
    )
    judge_options.add_recipe(group, None)
    group.add_argument(
        "--map", metavar="NAMES.json", help="their names to npgemma's, where the table does not know them"
    )
    group.add_argument("--expect", metavar="LIST", help="a file of expected failures, a pattern a line")
    group.add_argument(
        "--quantised", action="store_true", help="no bits are judged, only how much of the signal is left"
    )
    group.add_argument("--no-hashes", action="store_true", help="take the pack's bytes for right, without reading all")
    group = parser.add_argument_group("report")
    group.add_argument("--json", action="store_true", help="one JSON object instead of a screen")
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colours: auto where standard output is a terminal and NO_COLOR is not set (default: auto)",
    )
    group.add_argument("--junit", metavar="FILE.xml", help="write a test case a tensor, for CI")
    group.add_argument("--html", metavar="FILE.html", help="write a page")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Compare, report, and return the exit code."""
    keep_memory()
    check_reports(args)
    names_map, expected = judge_options.read_map(args.map), judge_options.read_expected(args.expect)
    theirs = open_theirs(args.theirs)
    if args.pack is None:
        comparison = beside_model(args, theirs, names_map)
    elif Path(args.pack).is_file():
        comparison = beside_run(args, theirs, names_map)
    else:
        with Progress("reading the pack") as progress:
            pack = open_pack(args.pack, not args.no_hashes, progress)
        check_recipe(args, "pack", pack.recipe)
        if pack.manifest["tier"] == "op":
            return run_ops(args, pack, theirs, expected)
        comparison = beside_pack(args, pack, theirs, names_map)
    tell(judge_options.mark_expected(comparison.rows, expected))
    write_reports(args, comparison)
    return judge_options.code_of(comparison.rows)


def check_recipe(args, what, said) -> None:
    """Refuse another recipe than that of what they are held against."""
    if args.recipe not in (None, said):
        raise InputError(f"the {what} is of {said}, --recipe says {args.recipe}; leave it out")


def beside_model(args, theirs, names_map):
    """Hold them against the model, which answers the same question."""
    request = request_of(args)
    model, _ = load_model(args)
    recipe = args.recipe or goldens.guessed_recipe(theirs)
    question, sources = ask(model, request), sources_of(model, request)
    with Progress("comparing") as progress:
        return goldens.compare_beside(model, question, recipe, theirs, names_map, args.quantised, sources, progress)


def beside_run(args, theirs, names_map):
    """Hold them against a file of npgemma trace; the model need not be there."""
    run = open_run(args.pack)
    check_recipe(args, "trace", run.manifest["precision"])
    model = None if args.model is None else load_model(args)[0]
    with Progress("comparing") as progress:
        return goldens.compare_with_run(run, model, theirs, names_map, args.quantised, progress)


def beside_pack(args, pack, theirs, names_map):
    """Hold them against a pack, and run operations again with the model that made it, where that is at hand."""
    said, model, notes = pack.manifest.get("model", {}), None, []
    if args.model is not None:
        model = load_model(args)[0]
    elif said.get("name") in ("tiny", "the model in the box"):
        model = load()
        if weights_digest(model) != said.get("weights_sha256"):
            model, notes = None, ["the pack is of another version's model in the box: operations are not run again"]
    with Progress("comparing") as progress:
        comparison = goldens.compare_with_pack(pack, model, theirs, names_map, args.quantised, progress)
    comparison.port.notes += notes
    return comparison


def check_reports(args) -> None:
    """Refuse reports that cannot be written, before anything is computed."""
    for option, suffix in (("junit", ".xml"), ("html", ".html")):
        path = getattr(args, option)
        if path is not None:
            if Path(path).suffix != suffix:
                raise InputError(f"--{option} writes {suffix}, and {path!r} ends otherwise")
            writer.check_target(path, None)


def run_ops(args, pack, theirs, expected) -> int:
    """Judge the results of single operations."""
    rows = op_pack.judge_ops(pack, theirs)
    tell(judge_options.mark_expected(rows, expected))
    if args.json:
        printer.say_json(op_report.record(rows, pack.recipe))
    else:
        printer.say(op_report.text(rows))
    return judge_options.code_of(rows)


def write_reports(args, comparison) -> None:
    """Write what was asked for."""
    cfg, call = comparison.cfg, comparison.call
    if args.junit is not None:
        writer.write_file(args.junit, report.junit(comparison).encode())
        tell([f"written to {args.junit}"])
    if args.html is not None:
        writer.write_file(args.html, report.page(comparison, cfg, call).encode())
        tell([f"written to {args.html}"])
    if args.json:
        printer.say_json(report.record(comparison))
        return
    printer.say_painted(report.lines(comparison, cfg, call), printer.is_painted(args.color))
