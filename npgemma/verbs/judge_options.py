"""What the verbs of the judge share: recipes, names of other programs, lists of expected failures, reports."""

import fnmatch

from npgemma.base.errors import CheckpointError, InputError
from npgemma.base.precision import PRECISIONS
from npgemma.cli import DONE, INCOMPARABLE, MISMATCH
from npgemma.files.reader import JSON_LIMIT, named, read_file, read_json


def add_recipe(parser, default="bf16-hf-eager") -> None:
    """Add ``--recipe``."""
    said = default or "what their numbers look like"
    parser.add_argument(
        "--recipe",
        choices=tuple(PRECISIONS),
        default=default,
        help=f"in which numbers, rounded where (default: {said})",
    )


def read_map(path):
    """Read a map of their names to ours; empty without one."""
    if path is None:
        return {}
    found = read_json(named(path), CheckpointError)
    wrong = next((name for name, ours in found.items() if not isinstance(ours, str)), None)
    if wrong is not None:
        raise CheckpointError(
            f"{path}: {wrong!r:.80} is mapped to {found[wrong]!r:.80}; want npgemma's name of a tensor"
        )
    return found


def read_expected(path):
    """Read a list of expected failures: a pattern a line, and comments behind #."""
    if path is None:
        return []
    lines = read_file(named(path), JSON_LIMIT, InputError).decode("utf-8", "replace").splitlines()
    return [line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip()]


def mark_expected(rows, patterns):
    """Mark failures that are expected; gives remarks about patterns that no failure fits."""
    used = set()
    for row in rows:
        fitting = [pattern for pattern in patterns if fnmatch.fnmatchcase(row.name, pattern)]
        if row.status in ("bad", "incomparable") and fitting:
            row.expected = True
            used.update(fitting)
    return [
        f"{pattern!r} is expected to fail, and nothing of that name does" for pattern in patterns if pattern not in used
    ]


def code_of(rows):
    """3 where something is wrong, 4 where something, or everything, could not be compared, else 0."""
    if any(row.status == "bad" and not row.expected for row in rows):
        return MISMATCH
    compared = any(row.status in ("ok", "follows", "bad") for row in rows)
    if not compared or any(row.status == "incomparable" and not row.expected for row in rows):
        return INCOMPARABLE
    return DONE
