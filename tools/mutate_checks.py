"""Take each check of the package away in turn, and see that a test falls.

    python tools/mutate_checks.py                            all checks: minutes
    python tools/mutate_checks.py npgemma/files/reader.py    those of some files
    python tools/mutate_checks.py --list

A check is a ``raise`` of one of npgemma's errors.  Taken away, a condition is met without a word, and a foreign
exception goes on as it is.  The tests of the file's room run first, then all others, each until the first failure.
Ends with 1 if a check can be taken away unnoticed.
"""

import argparse
import ast
import importlib.abc
import importlib.util
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("base", "files", "words", "checkpoints", "generation", "tracing", "verbs")
SLOW = ("tests/test_golden.py", "tests/test_faults.py", "tests/generation/test_answers_equal_transformers.py")


class Checks(ast.NodeTransformer):
    """Finds the checks of a module; takes away the one whose number is ``wanted``."""

    def __init__(self, wanted=None):
        self.wanted = wanted
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
        self.found.append((node.lineno, " ".join(ast.unparse(node).split())[:110]))
        if len(self.found) - 1 != self.wanted:
            return node
        return ast.copy_location(ast.Raise() if self.handlers else ast.Pass(), node)


def is_ours(exc):
    """Tell whether what is raised is made there: ``InputError(...)``, ``error(...)``, ``section.fault(...)``."""
    if not isinstance(exc, ast.Call):
        return False
    name = ast.unparse(exc.func).split(".")[-1]
    return name.endswith("Error") and name not in ("LookupError", "NotImplementedError") or name in ("error", "fault")


class Instead(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Gives one module of the package with other source."""

    def __init__(self, path, source):
        self.path = path
        self.source = source
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self, origin=str(self.path)) if name == self.name else None

    def get_filename(self, name):
        return str(self.path)

    def get_data(self, path):
        return self.source.encode()


def survives(path, source, tests):
    """Run tests in a child whose package has the other source; True if all pass."""
    child = os.fork()
    if child == 0:
        import pytest

        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        sys.meta_path.insert(0, Instead(path, source))
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))
    _, status = os.waitpid(child, 0)
    return status == 0


def rounds(path):
    """The tests of a file's room, then those of all others."""
    room = path.parent.name
    own = [f"tests/{room}"] if (ROOT / "tests" / room).is_dir() else ["tests/test_cli.py"]
    others = [f"tests/{each}" for each in ROOMS if f"tests/{each}" not in own] + ["tests/test_cli.py", "tests/show"]
    ignored = [f"--ignore={each}" for each in SLOW]
    mirror = ROOT / "tests" / room / f"test_{path.stem}.py"
    first = [[str(mirror)]] if mirror.exists() else []
    return [*first, own + ignored, others + ignored]


def files(names):
    """The files whose checks are taken away."""
    if names:
        return [Path(name).resolve() for name in names]
    return [path for room in ROOMS for path in sorted((ROOT / "npgemma" / room).glob("*.py"))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--list", action="store_true", help="show the checks")
    args = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT)]
    import numpy  # noqa: F401  in the parent, so that no child imports them again
    import PIL.Image  # noqa: F401
    import pytest  # noqa: F401
    import sentencepiece  # noqa: F401

    count, unnoticed = 0, []
    for path in files(args.files):
        source = path.read_text()
        finder = Checks()
        finder.visit(ast.parse(source))
        if finder.found and not args.list and not survives(path, ast.unparse(ast.parse(source)), rounds(path)[-2]):
            print(f"{path}: its tests fail with all checks in place")
            return 1
        for number, (line, text) in enumerate(finder.found):
            place = f"{path.relative_to(ROOT)}:{line}: {text}"
            count += 1
            if args.list:
                print(place)
                continue
            without = ast.unparse(ast.fix_missing_locations(Checks(number).visit(ast.parse(source))))
            started = time.monotonic()
            lives = all(survives(path, without, tests) for tests in rounds(path))
            print(f"{'UNNOTICED' if lives else 'noticed'} ({time.monotonic() - started:.0f} s) {place}", flush=True)
            unnoticed += [place] * lives
    print(f"{count} checks" + ("" if args.list else f", {len(unnoticed)} can be taken away unnoticed"))
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
