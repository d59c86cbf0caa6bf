"""``npgemma finetune``: a model learns from examples, whole or by a low-rank adapter."""

import argparse
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from npgemma.base import printer
from npgemma.base.errors import InputError
from npgemma.base.heap import keep_memory
from npgemma.base.progress import Progress
from npgemma.checkpoints.hub_cache import find_model
from npgemma.checkpoints.loading import TINY
from npgemma.cli import DONE, INTERRUPTED
from npgemma.files.writer import check_folder_name, check_target
from npgemma.learn.data import read_examples, split
from npgemma.learn.finetune import STATE, Course, Report, finetune, write_result
from npgemma.learn.optimisers import Settings
from npgemma.learn.schedules import SCHEDULES
from npgemma.verbs.options import add_model_options, add_verb, load_model

MOST = 65_536  # examples a step
STEPS = 200  # where nobody says how many

DESCRIPTION = """Teach a model from lines of {"image": "cat.jpg", "prefix": "caption en", "suffix": "a cat"}.

  npgemma finetune data.jsonl -o learnt --lora 8                      an adapter beside the decoder's matrices
  npgemma finetune data.jsonl -o learnt --lora 8 --on 'text.*.attn.*' --model google/paligemma2-3b-pt-224
  npgemma finetune data.jsonl -o learnt --freeze 'vision.*'           the weights themselves

Ctrl-C saves; the same command goes on.  The guide is npgemma/learn/GUIDE.md."""


def add(subparsers) -> None:
    """Describe the verb."""
    parser = add_verb(subparsers, "finetune", "teach a model from examples", DESCRIPTION, run, "DATA.jsonl -o OUT")
    parser.add_argument("data", metavar="DATA.jsonl", help="examples; pictures are named from its folder")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="a folder for the state and the result")
    group = parser.add_argument_group("what learns")
    group.add_argument("--lora", type=int, default=0, metavar="RANK", help="an adapter of this rank (default: none)")
    group.add_argument("--alpha", type=float, default=16.0, help="the adapter's scale is alpha / rank (default: 16)")
    group.add_argument("--on", action="append", default=[], metavar="GLOB",
                       help="what learns, such as 'text.*.attn.*' (default: all; of an adapter 'text.blocks.*')")
    group.add_argument("--freeze", action="append", default=[], metavar="GLOB", help="what does not: 'vision.*'")
    group = parser.add_argument_group("how")
    group.add_argument("--steps", type=int, help=f"(default: {STEPS})")
    group.add_argument("--epochs", type=int, metavar="N", help="instead of --steps: rounds through the examples")
    group.add_argument("--batch", type=int, default=16, help="examples a step (default: 16)")
    group.add_argument("--micro", type=int, default=8, help="examples in memory at once (default: 8)")
    group.add_argument("--rate", type=float, help="largest learning rate (default: 1e-3 of an adapter, else 1e-5)")
    group.add_argument("--schedule", choices=tuple(SCHEDULES), default="cosine", help="(default: cosine)")
    group.add_argument("--warm-up", type=int, default=10, metavar="STEPS", help="(default: 10)")
    group.add_argument("--clip", type=float, default=1.0, help="longest gradient (default: 1)")
    group.add_argument("--decay", type=float, default=0.0, help="of matrices inside blocks (default: 0)")
    group.add_argument("--muon", action="store_true", help="Muon for matrices inside blocks instead of AdamW")
    group.add_argument("--seed", type=int, default=0, help="(default: 0)")
    group = parser.add_argument_group("on the way")
    group.add_argument("--held-out", type=int, metavar="N",
                       help="examples to be judged by (default: a tenth, at most 50)")
    group.add_argument("--every", type=int, default=20, metavar="STEPS", help="a line of figures (default: 20)")
    group.add_argument("--save-every", type=int, default=100, metavar="STEPS", help="save and judge (default: 100)")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Check everything, learn, write what was learnt, and return the exit code."""
    keep_memory()
    course, out = course_of(args), Path(args.output)
    base = TINY if args.model is None else find_model(args.model)
    if out.exists() and out.resolve() == base.resolve():
        raise InputError(f"-o: {out} is the folder of the base model, which would be lost; choose another")
    if args.adapter is not None and args.lora:
        raise InputError("--adapter changes the base that a new adapter would belong to; leave one of them out")
    check_folder_name(args.output)
    check_target(out / STATE, force=True) if out.exists() else check_target(out)
    model, _ = load_model(args)
    with Progress("looking at the examples") as progress:
        examples = read_examples(args.data, model, progress=progress)
    held_out = min(50, len(examples) // 10) if args.held_out is None else args.held_out
    taught, judged = split(examples, held_out, args.seed)
    if args.epochs is not None:
        course = replace(course, steps=max(1, -(-args.epochs * len(taught) // course.batch)))
    printer.tell(plan_of(course, len(taught), len(judged)))
    with asked_to_stop() as stop, Progress("learning") as progress:
        done = finetune(model, taught, judged, course, out, Lines(course, progress), stop, progress)
    if not done:
        printer.tell(f"interrupted; saved in {out}: the same command goes on")
        return INTERRUPTED
    with Progress("writing what was learnt") as progress:
        told = write_result(model, course, out, base, args.model or "the model in the box", progress)
    printer.tell(told)
    return DONE


def plan_of(course: Course, taught: int, judged: int) -> str:
    """Say beforehand what is going to happen."""
    times = course.steps * course.batch / max(taught, 1)
    return (
        f"{taught} examples to learn from, {judged} to be judged by; {course.steps} steps of {course.batch}, "
        f"each example about {times:.2g} times; how long that takes is said after the first step"
    )


def course_of(args: argparse.Namespace) -> Course:
    """Give the course that the options describe, or refuse numbers that make none."""
    if args.steps is not None and args.epochs is not None:
        raise InputError("--epochs stands instead of --steps; leave one of them out")
    for name in ("steps", "epochs", "batch", "micro", "every", "save_every"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')}: came as {getattr(args, name)}; want 1 or more")
    if args.batch > MOST:
        raise InputError(f"--batch: came as {args.batch}; want at most {MOST:,}")
    rate = (1e-3 if args.lora else 1e-5) if args.rate is None else args.rate
    for name, value in (("rate", rate), ("clip", args.clip), ("alpha", args.alpha)):
        if not 0.0 < value < float("inf"):
            raise InputError(f"--{name}: came as {value:g}; want a number above 0")
    for name in ("lora", "warm_up", "seed", "decay"):
        if not getattr(args, name) >= 0:
            raise InputError(f"--{name.replace('_', '-')}: came as {getattr(args, name)}; want 0 or more")
    return Course(
        args.steps or STEPS, args.batch, args.micro, rate, args.schedule, args.warm_up, args.clip,
        Settings(decay=args.decay, muon=args.muon), args.lora, args.alpha, tuple(args.on), tuple(args.freeze),
        args.seed, args.every, args.save_every,
    )


class Lines:
    """Says a line of figures, and how long it will take; progress makes way for it."""

    def __init__(self, course: Course, progress: Progress) -> None:
        self.course, self.progress = course, progress
        self.began: tuple[float, int] | None = None

    def __call__(self, report: Report) -> None:
        if self.began is None:
            self.began = time.monotonic(), report.step
            pace = report.seconds
        else:
            pace = (time.monotonic() - self.began[0]) / max(report.step - self.began[1], 1)
        left = pace * (self.course.steps - report.step)
        line = f"step {report.step}/{self.course.steps}  loss {report.loss:.4f}  rate {report.rate:.2g}"
        line += f"  gradient {report.norm:.2g}  {left:.0f} s left"
        if report.held_out_loss is not None and report.held_out_right is not None:
            line += f"  held out: loss {report.held_out_loss:.4f}, {100 * report.held_out_right:.1f} % right"
        self.progress.wipe()
        printer.say(line)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Give a question that is True once Ctrl-C was pressed; a second one ends the command at once."""
    asked: list[bool] = []

    def end(number, frame):
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        printer.tell("will save and stop after this step; once more ends at once")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, end)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
