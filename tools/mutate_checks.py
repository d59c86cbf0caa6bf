"""Take each check of the package away in turn, and see that a test falls.

    python tools/mutate_checks.py                            all checks: two minutes
    python tools/mutate_checks.py npgemma/files/reader.py    those of some files
    python tools/mutate_checks.py --list

A check is a ``raise`` of one of npgemma's errors.  Each is put behind a switch; all tests run once and tell which of
them meet which check; then each check is switched off alone, and the tests that meet it run again: a condition is then
met without a word, and a foreign exception goes on as it is.  Ends with 1 if a check can be off unnoticed, or is met by
no test.
"""

import argparse
import ast
import builtins
import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("base", "files", "words", "checkpoints", "generation", "tracing", "verbs")
TESTS = [*(f"tests/{room}" for room in ROOMS), "tests/test_cli.py", "tests/show"]
# Slow, and of nothing that a check is about.
LEFT_OUT = ("tests/generation/test_answers_equal_transformers.py", "tests/verbs/test_killed.py")


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


class Loop:
    """Pytest's loop over the tests: all of them once, then for each check those that meet it."""

    def __init__(self, checks):
        self.checks = checks
        self.off = None
        self.met = {}
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
            self.running = item
            if any(report.failed for report in runtestprotocol(item, log=False, nextitem=after)):
                item.session._setupstate.teardown_exact(None)
                return item.nodeid
        return None

    def pytest_runtestloop(self, session):
        fallen = self.passes(session.items)
        if fallen:
            raise session.Failed(f"{fallen} falls with all checks on")
        met = {place: [item for item in items if item is not None] for place, items in self.met.items()}
        for place, text in self.checks:
            self.off = place
            fallen = self.passes(met[place]) if met.get(place) else None
            verdict = f"noticed by {fallen}" if fallen else "UNNOTICED" if met.get(place) else "MET BY NO TEST"
            self.unnoticed += [] if fallen else [place]
            sys.__stdout__.write(f"{verdict} | {place}: {text}\n")
            sys.__stdout__.flush()
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--list", action="store_true", help="show the checks")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT)]
    paths = [Path(name).resolve() for name in args.files]
    paths = paths or [path for room in ROOMS for path in sorted((ROOT / "npgemma" / room).glob("*.py"))]
    checks, sources = [], {}
    for path in paths:
        switches = Switches(str(path.relative_to(ROOT)))
        tree = ast.fix_missing_locations(switches.visit(ast.parse(path.read_text())))
        sources[path] = ast.unparse(tree)
        checks += switches.found
    if args.list:
        print("\n".join(f"{place}: {text}" for place, text in checks))
        return 0
    sys.meta_path.insert(0, Instead(sources))
    loop = Loop(checks)
    left_out = [f"--ignore={each}" for each in LEFT_OUT]
    code = pytest.main(["-q", "-p", "no:cacheprovider", *left_out, *TESTS], plugins=[loop])
    if code:
        print("the tests fail with all checks on")
        return 2
    print(f"{len(checks)} checks, {len(loop.unnoticed)} can be off unnoticed")
    return 1 if loop.unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
