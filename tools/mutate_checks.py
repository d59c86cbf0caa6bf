"""Take each check of the package away in turn, and see that a test falls.

    python tools/mutate_checks.py                            all checks, a room at a time
    python tools/mutate_checks.py npgemma/files              those of a room, or of some files
    python tools/mutate_checks.py --list

A check is a ``raise`` of one of npgemma's errors.  Each is put behind a switch; the tests of its room, and those of the
command, run once and tell which of them meet which check; then each check is switched off alone, and the tests that
meet it run again, the room's own and the shortest first: a condition is then met without a word, and a foreign
exception goes on as it is.  Ends with 1 if a check can be off unnoticed, or is met by no test.
"""

import argparse
import ast
import builtins
import importlib.abc
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "base", "files", "words", "checkpoints", "generation", "tracing", "verbs", "show", "places", "learn", "judge",
    "explaining", "backward",
)  # fmt: skip
EVERYWHERE = ("tests/verbs", "tests/test_cli.py")
# What stands on a room and meets its checks too.
ALSO = {
    "base": ("files", "tracing", "generation", "judge/test_pack.py", "places/test_codec.py"),
    "files": ("checkpoints", "words", "tracing", "places/test_codec_file.py", "judge/test_pack.py"),
    "words": ("generation",),
    "show": ("tracing",),
    "judge": ("files/test_arrays.py",),
}
# Slow, and of nothing that a check is about.
LEFT_OUT = (
    "tests/generation/test_answers_equal_transformers.py", "tests/verbs/test_killed.py",
    "tests/explaining/test_browser.py", "tests/judge/test_faults_found.py", "tests/explaining/test_numbers.py",
)  # fmt: skip
SECONDS = 60  # of the tests that are tried for one check
LONGER = 20  # times what a test takes, and half a minute: without a check it may go on for ever, which is noticed too


class Switches(ast.NodeTransformer):
    """Puts each check of a module behind a switch: ``if checked(…): raise …``, in a handler ``else: raise``."""

    def __init__(self, name):
        self.name = name
        self.found = []
        self.handlers = 0

    def visit_ExceptHandler(self, node):
        self.handlers += 1
        self.generic_visit(node)
        self.handlers -= 1
        return node

    def visit_Raise(self, node):
        if not is_ours(node.exc):
            return node
        place = f"{self.name}:{node.lineno}"
        self.found.append((place, " ".join(ast.unparse(node).split())[:110]))
        test = ast.parse(f"__import__('builtins').checked({place!r})", mode="eval").body
        return ast.If(test, [node], [ast.Raise()] if self.handlers else [])


def is_ours(exc):
    """Tell whether what is raised is made there: ``InputError(...)``, ``error(...)``, ``section.fault(...)``."""
    if not isinstance(exc, ast.Call):
        return False
    name = ast.unparse(exc.func).split(".")[-1]
    return name.endswith("Error") and name not in ("LookupError", "NotImplementedError") or name in ("error", "fault")


class Instead(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Gives some modules of the package with other source."""

    def __init__(self, sources):
        self.paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): str(path) for path in sources}
        self.sources = {str(path): source for path, source in sources.items()}

    def find_spec(self, name, path=None, target=None):
        if name not in self.paths:
            return None
        return importlib.util.spec_from_file_location(name, self.paths[name], loader=self)

    def get_filename(self, name):
        return self.paths[name]

    def get_data(self, path):
        return self.sources[path].encode()


def say(line):
    """Write a line beside what pytest captures."""
    sys.__stdout__.write(line + "\n")
    sys.__stdout__.flush()


def too_long(*_):
    """What a test that goes on and on is ended by."""
    raise TimeoutError("this test takes far longer than with all checks on")


class Loop:
    """Pytest's loop over the tests: all of them once, then for each check those that meet it."""

    def __init__(self, checks, room):
        self.checks = checks
        self.room = f"tests/{room}/"
        self.off = None
        self.met, self.took = {}, {}
        self.running = None
        self.unnoticed = []
        builtins.checked = self.checked

    def checked(self, place):
        """Whether a check is on; remembers who met it."""
        self.met.setdefault(place, {}).setdefault(self.running)
        return place != self.off

    def passes(self, items):
        """Run some tests, up to the first that falls."""
        for item, after in zip(items, [*items[1:], None], strict=True):
            self.running, began = item, time.perf_counter()
            signal.setitimer(signal.ITIMER_REAL, 30 + LONGER * self.took[item] if item in self.took else 0)
            failed = any(report.failed for report in runtestprotocol(item, log=False, nextitem=after))
            signal.setitimer(signal.ITIMER_REAL, 0)
            if failed:
                item.session._setupstate.teardown_exact(None)
                return item.nodeid
            self.took.setdefault(item, time.perf_counter() - began)
        return None

    def in_order(self, items):
        """The tests to try for a check: those of its room and the shortest first, as many as there is time for."""
        found, left = [], SECONDS
        for item in sorted(items, key=lambda item: (not item.nodeid.startswith(self.room), self.took[item])):
            if found and left < self.took[item]:
                break
            found.append(item)
            left -= self.took[item]
        return found

    def pytest_runtestloop(self, session):
        items = list(session.items)
        while fallen := self.passes([item for item in items if item not in self.took]):
            # Some look at the source itself, whose lines are others now.
            say(f"LEFT OUT, falls with all checks on: {fallen}")
            items = [item for item in items if item.nodeid != fallen]
        met = {place: self.in_order([item for item in met if item in self.took]) for place, met in self.met.items()}
        for place, text in self.checks:
            self.off = place
            fallen = self.passes(met[place]) if met.get(place) else None
            verdict = f"noticed by {fallen}" if fallen else "UNNOTICED" if met.get(place) else "MET BY NO TEST"
            self.unnoticed += [] if fallen else [place]
            say(f"{verdict} | {place}: {text}")
        return True


def files_of(names):
    """The files that are named, or lie in the rooms that are; by room."""
    found = {}
    for name in names or [f"npgemma/{room}" for room in ROOMS]:
        path = Path(name).resolve()
        for each in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            found.setdefault(each.relative_to(ROOT / "npgemma").parts[0], []).append(each)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="*", metavar="ROOM|FILE")
    parser.add_argument("--list", action="store_true", help="show the checks")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT)]
    rooms = files_of(args.places)
    if len(rooms) > 1 and not args.list:
        # A process each: a module can be replaced only before it is imported.
        codes = [subprocess.run([sys.executable, __file__, *map(str, paths)]).returncode for paths in rooms.values()]
        return max(codes)
    checks, sources = [], {}
    for path in [path for paths in rooms.values() for path in paths]:
        switches = Switches(str(path.relative_to(ROOT)))
        tree = ast.fix_missing_locations(switches.visit(ast.parse(path.read_text())))
        sources[path] = ast.unparse(tree)
        checks += switches.found
    if args.list:
        print("\n".join(f"{place}: {text}" for place, text in checks))
        return 0
    return switched_off(checks, sources, *rooms)


def switched_off(checks, sources, room):
    """Switch each check of a room off in turn."""
    if not checks:
        return 0
    sys.meta_path.insert(0, Instead(sources))
    signal.signal(signal.SIGALRM, too_long)
    loop = Loop(checks, room)
    tests = [f"tests/{each}" for each in (room, *ALSO.get(room, ())) if Path(f"tests/{each}").exists()]
    left_out = [f"--ignore={each}" for each in LEFT_OUT]
    words = ["-q", "-p", "no:cacheprovider", *left_out, *dict.fromkeys([*tests, *EVERYWHERE])]
    if pytest.main(words, plugins=[loop]):
        print(f"{room}: the tests fail with all checks on")
        return 2
    print(f"{room}: {len(checks)} checks, {len(loop.unnoticed)} can be off unnoticed")
    return 1 if loop.unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
