"""``npgemma trace --backward ANSWER``: a line for the gradient of each tensor and weight, the last first."""

import argparse
import bdb
import contextlib
from dataclasses import asdict
from pathlib import Path

from npgemma.base import printer
from npgemma.base.describe import line_of, summarise
from npgemma.base.errors import InputError
from npgemma.base.progress import Progress
from npgemma.base.tensors import schema, tensors
from npgemma.cli import DONE, INTERRUPTED
from npgemma.files.writer import check_target, write_file
from npgemma.generation.requests import Request, prepare
from npgemma.generation.scoring import suffix_ids
from npgemma.learn.teaching import Batch, gradients_of, make_batch
from npgemma.paligemma import Model
from npgemma.show.breaking import break_on
from npgemma.show.sensitivity import draw_sensitivity
from npgemma.show.walk_back import HELP, WalkBack
from npgemma.tracing.replacing import check_replacements, read_replacements, replace_with
from npgemma.tracing.selection import as_patterns, check_patterns
from npgemma.tracing.trace import Stopped
from npgemma.verbs.following import following
from npgemma.verbs.options import tell

# What of `npgemma trace` says nothing about gradients.
FORWARD_ONLY = ("rows", "stop_after", "max_tokens", "output", "against")


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that belong to the run, not to the way back."""
    for name in FORWARD_ONLY:
        if getattr(args, name):
            option = {"output": "-o"}.get(name, "--" + name.replace("_", "-"))
            raise InputError(f"{option} says nothing about gradients; leave it out, or --backward")
    if args.map is not None:
        if Path(args.map).suffix != ".png":
            raise InputError(f"--map {args.map}: want a name that ends in .png")
        check_target(args.map, args.force)


def show_gradients(model: Model, request: Request, args: argparse.Namespace) -> int:
    """Go back from the surprise at an answer, and return the exit code."""
    ready, batch = read_question(model, request, args.backward)
    if args.map is not None and len(ready.pixels) != 1:
        raise InputError(f"--map draws one picture; the prompt has {len(ready.pixels)}")
    only = None if args.only is None else [*args.only, *(["pixels"] if args.map is not None else [])]
    observe = observer_of(args, tensors_of(model, batch), model.weights.precision.dtype)
    try:
        with Progress("going forth and back") as progress:
            # The way back makes two products where the way forth makes one.
            followed = following(model, progress, batch.ids.size, len(ready.pixels), again=1, deeper=2.0)
            found = gradients_of(followed if args.breaks is None else model, batch, only, observe)
    except bdb.BdbQuit:
        tell(["left in the debugger"])
        return INTERRUPTED
    tell([*ready.notes, f"the loss is {found.loss:.6g}, the mean over {batch.count} tokens of the answer"])
    if not args.quiet:
        say_lines(model, batch, found, args.json)
    if args.map is not None:
        write_file(args.map, draw_sensitivity(ready.pixels[0], found.tensors["pixels"][0]), args.force)
        tell([f"written to {args.map}"])
    return DONE


def observer_of(args: argparse.Namespace, names, floating):
    """The observer that replaces gradients and stops at them, as the options ask; None if there is nothing to do."""
    replacements, breaks = read_replacements(args.replace or ()), as_patterns(args.breaks or ())
    check_patterns(breaks, names)
    check_replacements(replacements, names, floating)
    replacing = replace_with(replacements) if replacements else None
    return break_on(breaks, then=replacing) if breaks else replacing


def walk_back(model: Model, request: Request, args: argparse.Namespace) -> int:
    """Walk through the gradients in a terminal, and return the exit code."""
    ready, batch = read_question(model, request, args.backward)
    names = tensors_of(model, batch)
    walk = WalkBack(names)
    if args.to is not None:
        walk.until = as_patterns(args.to.removeprefix("grad "))
        check_patterns(walk.until, names)
    tell(ready.notes)
    printer.say(f"Gradients of the surprise at {args.backward!r}. Commands:\n{HELP}")
    with contextlib.suppress(Stopped, bdb.BdbQuit):
        gradients_of(model, batch, observe=walk)
        printer.say("\nThat was the first tensor.")
    return DONE


def read_question(model: Model, request: Request, answer: str):
    """The prompt as the model reads it, and with its answer as a batch of one row."""
    ready = prepare(model, request)
    suffix = suffix_ids(model, answer, request.specials)
    return ready, make_batch(model.config, [(ready.ids, suffix)], ready.pixels if len(ready.pixels) else None)


def tensors_of(model: Model, batch: Batch):
    """The tensors of the run that is gone back through."""
    pictures = 0 if batch.pixels is None else len(batch.pixels)
    return tensors(model.config, len(batch.ids), pictures, batch.ids.shape[1])


def say_lines(model: Model, batch, found, as_json: bool) -> None:
    """Print a line a gradient: tensors in the trace's order reversed, then weights."""
    letters = {name: tensor.letters for name, tensor in tensors_of(model, batch).items()}
    letters |= {name: weight.letters for name, weight in schema(model.config).items()}
    for name, d in (found.tensors | found.weights).items():
        summary = summarise(d)
        if as_json:
            printer.say_json({"name": f"grad {name}", "axes": letters[name]} | asdict(summary))
        else:
            printer.say(line_of(summary, f"grad {name}", letters[name]))
