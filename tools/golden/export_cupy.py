"""Write down which of NumPy's functions CuPy has, with their arguments, in golden/device/cupy.json.

    pip install cupy-cuda12x && python tools/golden/export_cupy.py          needs no card: the wheel imports without one
    python tools/golden/export_cupy.py --check                              compares instead, exit code 1 if it differs

The pretended device of the tests (tests/fake_device.py) knows what stands there and nothing else.
"""

import argparse
import inspect
import json
import sys
from pathlib import Path

import cupy
import numpy as np

FILE = Path(__file__).resolve().parents[2] / "golden" / "device" / "cupy.json"
MODULES = ("", "linalg")


def functions():
    """Names of NumPy's functions that CuPy has too, ``linalg.norm``, with the arguments that CuPy takes, or None."""
    found = {}
    for module in MODULES:
        ours, theirs = (getattr(package, module) if module else package for package in (np, cupy))
        for name in dir(ours):
            mine, other = getattr(ours, name), getattr(theirs, name, None)
            # Where CuPy hands out NumPy's own function, it refuses to be called through NumPy.
            if name.startswith("_") or other is None or other is mine or inspect.isclass(mine) or not callable(mine):
                continue
            if not isinstance(mine, np.ufunc):
                found[".".join(filter(None, (module, name)))] = arguments(other)
    return found


def arguments(function):
    """Names of the arguments; None where they cannot be told, or any keyword is taken."""
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    any_keyword = any(each.kind is each.VAR_KEYWORD for each in found.values())
    return None if any_keyword else list(found)


def ufuncs():
    """Names of NumPy's ufuncs that CuPy has as ufuncs."""
    names = [name for name in dir(np) if isinstance(getattr(np, name), np.ufunc)]
    return [name for name in names if callable(getattr(cupy, name, None))]


def record():
    """What is written."""
    return {
        "provenance": f"tools/golden/export_cupy.py, CuPy {cupy.__version__}, NumPy {np.__version__}",
        "functions": functions(),
        "ufuncs": ufuncs(),
        "array": [name for name in dir(cupy.ndarray) if not name.startswith("_") or name.endswith("__")],
        "flags": [name for name in dir(cupy._core.flags.Flags) if not name.startswith("_")],
    }


def text(found):
    """JSON, an entry a line."""
    def lines(value):
        if isinstance(value, dict):
            return "{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n }"
        return json.dumps(value)

    return "{\n" + ",\n".join(f" {json.dumps(name)}: {lines(value)}" for name, value in found.items()) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is there instead of writing")
    now = record()
    if parser.parse_args().check:
        before = json.loads(FILE.read_text())
        differing = [f"{part}: {name}" for part in ("functions", "ufuncs", "array", "flags")
                     for name in sorted(set(before[part]) ^ set(now[part]))]
        differing += [f"arguments of {name}" for name, value in before["functions"].items()
                      if value != now["functions"].get(name, value)]
        print("\n".join(differing) or f"as in {FILE.name}: {before['provenance']}")
        return 1 if differing else 0
    FILE.write_text(text(now))
    return 0


if __name__ == "__main__":
    sys.exit(main())
