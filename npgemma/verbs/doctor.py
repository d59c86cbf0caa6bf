"""``npgemma doctor``: what a checkpoint is, and everything that is wrong with it."""

import argparse
from dataclasses import asdict

from npgemma.base import printer
from npgemma.base.progress import Progress
from npgemma.checkpoints.loading import TINY
from npgemma.cli import BROKEN_FILE, DONE
from npgemma.show.doctor import as_text, examine
from npgemma.verbs.options import add_verb

DESCRIPTION = """Say what a checkpoint is (family, size, resolution, dtype, key layout, tied head, tokenizer, memory it
needs) and everything that is wrong with it.  Each weight is read once; nothing of the folder is run or changed.

  npgemma doctor FOLDER
  npgemma doctor google/paligemma2-3b-mix-224     from the local Hugging Face cache
  npgemma doctor                                  the model in the box

Exit code: 0 if it can be used, 2 if something is wrong."""


def add(subparsers) -> None:
    """Describe the verb."""
    parser = add_verb(subparsers, "doctor", "what a checkpoint is, and what is wrong with it", DESCRIPTION, run)
    parser.add_argument("model", nargs="?", metavar="FOLDER|HUB_ID", help="the model in the box if left out")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Examine, print the report, and return the exit code."""
    with Progress("reading the weights") as progress:
        report = examine(args.model or TINY, progress)
    if args.json:
        findings = [asdict(finding) for finding in report.findings]
        printer.say_json({"folder": str(report.folder), "faults": len(report.faults), "findings": findings})
    else:
        printer.say(as_text(report))
    return BROKEN_FILE if report.faults else DONE
