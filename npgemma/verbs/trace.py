"""``npgemma trace``: one line a tensor, and all of them in a file if wanted."""

import argparse
import bdb
import contextlib
from dataclasses import asdict, replace

from npgemma.base import printer
from npgemma.base.describe import line_of, number_of, size_of, summarise
from npgemma.base.errors import InputError
from npgemma.base.precision import PRECISIONS
from npgemma.base.progress import Progress
from npgemma.cli import DONE, INTERRUPTED
from npgemma.files.arrays_writer import format_of
from npgemma.files.writer import check_target
from npgemma.paligemma import Model
from npgemma.show.breaking import break_on
from npgemma.tracing.lockstep import Partner, distance
from npgemma.tracing.plan import Plan, ask, plan
from npgemma.tracing.replacing import check_replacements, read_replacements, replace_with
from npgemma.tracing.selection import as_patterns, check_patterns
from npgemma.tracing.trace import Watch, carry_out, file_size, run_to_file
from npgemma.verbs import gradient_lines
from npgemma.verbs.following import following_question
from npgemma.verbs.options import add_model_options, add_question_options, add_verb, load_model, request_of, tell

DESCRIPTION = """Show every tensor that the model computes, by name, a line each; with -o write them to a file.

  npgemma trace                                             all tensors of a picture in the box
  npgemma trace cat.jpg "caption en" --only 'text.blocks.*.attn.probs' --rows -1
  npgemma trace cat.jpg "caption en" -o out.safetensors
  npgemma trace --only 'text.*' --precision bf16-hf-eager --against float64
  npgemma trace --break text.blocks.0.attn.scores           pdb in the layer, q, k, scores as locals
  npgemma trace --replace text.blocks.3.attn.out=theirs.safetensors --stop-after text.blocks.3.out
  npgemma trace cat.jpg "caption en" --backward "a cat" --only 'text.blocks.*.attn.probs' --map looked.png

Generated tokens (--max-tokens) come as step.0.text.logits, step.1.text.logits and so on."""


def add(subparsers) -> None:
    """Describe the arguments."""
    parser = add_verb(subparsers, "trace", "tensors by name, a line each, or into a file", DESCRIPTION, run)
    add_question_options(parser)
    group = parser.add_argument_group("what to keep")
    group.add_argument("--only", action="append", metavar="GLOB", help="such as 'text.blocks.*.attn.q' (repeatable)")
    group.add_argument("--rows", metavar="ROWS", help="positions of the prompt to keep, such as 0:4,-1")
    group.add_argument("--stop-after", metavar="GLOB", help="the first tensor that fits is the last one computed")
    group.add_argument("--max-tokens", type=int, default=0, metavar="N", help="generate, greedily (default: 0)")
    group.add_argument("-o", "--output", metavar="OUT",
                       help="write tensors: OUT.safetensors with a record of the run, OUT.npz, OUT: a folder of .npy")
    group.add_argument("--force", action="store_true",
                       help="write the file however large it becomes, and in the place of another")
    group.add_argument("--json", action="store_true", help="one JSON object a tensor instead of a line")
    group.add_argument("--quiet", action="store_true", help="no lines")
    group = parser.add_argument_group("on the way")
    group.add_argument("--break", dest="breaks", action="append", metavar="GLOB",
                       help="stop there in the debugger; no lines, unless --only, --json or --against asks for them")
    group.add_argument("--replace", action="append", metavar="NAME=FILE", help="take this tensor from a file")
    group.add_argument("--against", choices=tuple(PRECISIONS), help="say how far each tensor is from this precision's")
    group = parser.add_argument_group("backwards")
    group.add_argument("--backward", metavar="ANSWER",
                       help="gradients of the surprise at this answer instead, of tensors and weights")
    group.add_argument("--map", metavar="OUT.png", help="draw where the picture's gradient is large")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the model under a watch, and return the exit code."""
    request = request_of(args)
    if args.backward is not None:
        gradient_lines.check_options(args)
        return gradient_lines.show_gradients(load_model(args)[0], request, args)
    if args.map is not None:
        raise InputError("--map draws a gradient; give --backward and the answer it is of")
    if args.output is not None:
        format_of(args.output)
        check_target(args.output, args.force)  # before a large model is loaded for nothing
    model, _ = load_model(args)
    question = ask(model, request)
    replacements = read_replacements(args.replace or ())
    observe = observer_of(args.breaks, replacements)
    planned = plan(model, question, args.only, args.rows, args.stop_after, args.max_tokens, observe)
    check_patterns(as_patterns(args.breaks or ()), planned.everything)
    check_replacements(replacements, planned.everything, model.weights.precision.dtype)
    tell([*question.notes, size_line(planned, args.output)])
    try:
        with contextlib.ExitStack() as stack:
            progress = stack.enter_context(Progress("computing"))
            if args.breaks is None:  # a debugger's prompt stands where progress would
                planned = replace(planned, model=followed(planned, args, progress))
            partner = stack.enter_context(Partner(planned, args.against)) if args.against else None
            watch = carry(planned, args, Lines(planned, args, partner, progress))
    except bdb.BdbQuit:
        tell(["left in the debugger"])
        return INTERRUPTED
    tell(closing_notes(args, watch))
    return DONE


def followed(planned: Plan, args: argparse.Namespace, progress: Progress) -> Model:
    """Give the plan's model with weights that tell how far the run is."""
    later, again = max(0, planned.max_new_tokens - 1), int(args.against is not None)
    return following_question(planned.model, progress, planned.question, later=later, again=again)


def observer_of(breaks: list[str] | None, replacements: dict):
    """The observer that replaces and stops, as the options ask; None if there is nothing to do."""
    replacing = replace_with(replacements) if replacements else None
    return replacing if breaks is None else break_on(breaks, then=replacing)


def size_line(planned: Plan, output: str | None) -> str:
    """Say beforehand how much there will be."""
    bound = "at most " if planned.max_new_tokens > 1 else ""
    whole = output is not None and format_of(output) == ".safetensors"
    nbytes = file_size(planned) if whole else planned.nbytes
    what = "in the file" if whole else "of numbers"
    return f"{bound}{number_of(len(planned.tensors), 'tensor')}, {bound}{size_of(nbytes)} ({nbytes:,} bytes) {what}"


class Lines:
    """Prints a line for each tensor as it comes.

    Parameters
    ----------
    planned : Plan
    args : Namespace
    partner : Partner, optional
        The run to say the distance from.
    progress : Progress
        Makes way for each line.
    """

    def __init__(self, planned: Plan, args: argparse.Namespace, partner: Partner | None, progress: Progress) -> None:
        self.progress = progress
        self.planned = planned
        self.args = args
        self.partner = partner
        # A debugger's prompt shall not drown in lines that nobody asked for.
        asked = args.only or args.json or args.against
        self.silent = args.quiet or (args.breaks is not None and not asked)

    def __call__(self, name: str, array) -> None:
        exact = None if self.partner is None else self.partner.tensor(name)
        if self.silent:
            return
        letters = self.planned.tensors[name].letters
        summary = summarise(array, is_attention=name.endswith("probs"))
        self.progress.wipe()
        apart = None if exact is None or array.dtype.kind != "f" else distance(array, exact)
        if self.args.json:
            found = {"name": name, "axes": letters} | asdict(summary)
            if apart is not None:
                found |= {"relative": apart[0], "largest": apart[1]}
            printer.say_json(found)
            return
        text = "" if apart is None else f"  {self.args.against}: off by {apart[0]:.2g}, at most {apart[1]:.2g}"
        printer.say(line_of(summary, name, letters) + text)


def carry(planned: Plan, args: argparse.Namespace, lines: Lines) -> Watch:
    """Run, into the file if there is one; gives the watch, which knows what happened."""
    if args.output is not None:
        return run_to_file(planned, args.output, args.force, lines)
    watch = Watch(planned, lines)
    carry_out(planned, watch)
    return watch


def closing_notes(args: argparse.Namespace, watch: Watch) -> list[str]:
    """What a user should know when the run is over."""
    notes = []
    if watch.first_nonfinite:
        notes.append(f"the first tensor with NaN or infinity is {watch.first_nonfinite}")
    if watch.changed:
        notes.append(f"this was not a plain run: {', '.join(watch.changed)} came from outside")
    if args.output is not None:
        notes.append(f"written to {args.output}")
    return notes
