"""``npgemma trace --backward ANSWER``: a line for the gradient of each tensor and weight, the last first."""

import argparse
import bdb
from dataclasses import asdict

from npgemma.base import printer
from npgemma.base.describe import line_of, summarise
from npgemma.base.errors import InputError
from npgemma.base.tensors import schema, tensors
from npgemma.cli import DONE, INTERRUPTED
from npgemma.files.writer import check_target, write_file
from npgemma.generation.requests import Request, prepare
from npgemma.generation.scoring import suffix_ids
from npgemma.learn.teaching import gradients_of, make_batch
from npgemma.paligemma import Model
from npgemma.show.sensitivity import draw_sensitivity
from npgemma.tracing.breaking import break_on
from npgemma.verbs.options import tell

# What of `npgemma trace` says nothing about gradients.
FORWARD_ONLY = ("rows", "stop_after", "max_tokens", "output", "replace", "against")


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that belong to the run, not to the way back."""
    for name in FORWARD_ONLY:
        if getattr(args, name):
            option = {"output": "-o"}.get(name, "--" + name.replace("_", "-"))
            raise InputError(f"{option} says nothing about gradients; leave it out, or --backward")
    if args.map is not None:
        check_target(args.map, args.force)


def show_gradients(model: Model, request: Request, args: argparse.Namespace) -> int:
    """Go back from the surprise at an answer, and return the exit code."""
    ready = prepare(model, request)
    if args.map is not None and len(ready.pixels) != 1:
        raise InputError(f"--map draws one picture; the prompt has {len(ready.pixels)}")
    suffix = suffix_ids(model, args.backward, request.specials)
    batch = make_batch(model.config, [(ready.ids, suffix)], ready.pixels if len(ready.pixels) else None)
    only = None if args.only is None else [*args.only, *(["pixels"] if args.map is not None else [])]
    try:
        found = gradients_of(model, batch, only, None if args.breaks is None else break_on(args.breaks))
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


def say_lines(model: Model, batch, found, as_json: bool) -> None:
    """Print a line a gradient: tensors in the trace's order reversed, then weights."""
    pictures = 0 if batch.pixels is None else len(batch.pixels)
    named = tensors(model.config, len(batch.ids), pictures, batch.ids.shape[1])
    letters = {name: tensor.letters for name, tensor in named.items()}
    letters |= {name: weight.letters for name, weight in schema(model.config).items()}
    for name, d in (found.tensors | found.weights).items():
        summary = summarise(d)
        if as_json:
            printer.say_json({"name": f"grad {name}", "axes": letters[name]} | asdict(summary))
        else:
            printer.say(line_of(summary, f"grad {name}", letters[name]))
