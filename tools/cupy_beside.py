"""Tests on the pretended device with the real CuPy beside it: each call is made on CuPy's arrays too, without a card.

    PYTHONPATH=.:tools:tests pytest -p cupy_beside tests/test_device.py tests/verbs/test_device_option.py

For each different call of a function, ufunc, operator or method: whether CuPy takes it, gives the shape and dtype that
NumPy gave, and waits for the card only where the pretended device counts a wait.  CuPy's arrays are as large and lie as
the pretended ones; their numbers mean nothing (tools/cupy_without_card.py, which says what is needed).  What CuPy hands
to code that was compiled for the card, sorting and finding what is not zero, ends there, and is listed.
The exit code is 1 if anything is found.  Not supported: what follows from numbers.
"""

import contextlib
import functools
import os
import sys
import traceback
from pathlib import Path

import cupy_without_card
import numpy as np

CUPY = cupy_without_card.install()
del sys.modules["cupy"]  # the tests plant theirs

import fake_device  # noqa: E402
from fake_device import TRAFFIC, DeviceArray  # noqa: E402

import npgemma  # noqa: E402

PACKAGE = str(Path(npgemma.__file__).parent) + os.sep
LIKE = ("arange", "array", "asarray", "ascontiguousarray", "empty", "eye", "full", "identity", "ones", "tri", "zeros")
# Their shapes follow from numbers.
COUNTING = ("argwhere", "flatnonzero", "nonzero", "unique")
# What code that was compiled for the card says without one.
ENDS = ("cudaErrorInsufficientDriver", "failed inside CUB", "radix_sort: failed")
METHODS = ("reshape", "transpose", "swapaxes", "astype", "copy", "view", "sum", "max", "clip", "__getitem__",
           "__setitem__", "__neg__", "__invert__", "__abs__")
OPERATORS = [name for name in vars(DeviceArray) if name.strip("_").lstrip("ri") in (
    "add", "sub", "mul", "truediv", "pow", "and", "or", "matmul", "lshift", "shift", "mod", "floordiv",
    "eq", "ne", "lt", "le", "gt", "ge")]
asked, found, ended = set(), {}, {}


@contextlib.contextmanager
def real_cupy():
    """CuPy imports parts of itself when they are wanted; it must find itself then."""
    planted = sys.modules.get("cupy")
    sys.modules["cupy"] = CUPY
    try:
        yield
    finally:
        del sys.modules["cupy"]
        if planted is not None:
            sys.modules["cupy"] = planted


def on_cupy(value):
    """CuPy's arrays in the place of the pretended ones: of the same shape, dtype and strides."""
    if isinstance(value, DeviceArray):
        host = value._host
        low, high = np.lib.array_utils.byte_bounds(host) if host.size else (0, 0)
        start = host.__array_interface__["data"][0] - low if host.size else 0
        return CUPY.ndarray(host.shape, host.dtype, CUPY.cuda.alloc(max(high - low, 1)) + start, strides=host.strides)
    if isinstance(value, (list, tuple)):
        return type(value)(map(on_cupy, value))
    return {name: on_cupy(each) for name, each in value.items()} if isinstance(value, dict) else value


def form(value):
    """What a call differs by from others of its name."""
    if isinstance(value, (DeviceArray, np.ndarray)):
        return value.shape, value.dtype.str, getattr(value, "_host", value).strides, type(value)
    if isinstance(value, (list, tuple)):
        return type(value).__name__, *map(form, value)
    if isinstance(value, dict):
        return tuple((name, form(each)) for name, each in value.items())
    return repr(value)[:80]


def difference(ours, theirs):
    """How a result of CuPy's differs from the pretended one; empty if it does not."""
    if isinstance(ours, (list, tuple)):
        pairs = list(map(difference, ours, theirs)) if isinstance(theirs, (list, tuple)) else [f"is {type(theirs)}"]
        return next(filter(None, pairs), "" if len(pairs) == len(ours) else f"gives {len(theirs)} arrays")
    if not isinstance(ours, DeviceArray):
        return "" if isinstance(theirs, type(ours)) else f"gives {type(theirs).__name__}, not {type(ours).__name__}"
    if not isinstance(theirs, CUPY.ndarray):
        return f"gives {type(theirs)}"
    same = (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    return "" if same else f"gives {theirs.dtype} {theirs.shape}, not {ours.dtype} {ours.shape}"


def place():
    """The line of the package that calls."""
    frames = [each for each in traceback.extract_stack() if each.filename.startswith(PACKAGE)]
    return f"{frames[-1].filename.removeprefix(PACKAGE)}:{frames[-1].lineno}" if frames else "a test"


def beside(name, call, arguments, ours, waited):
    """Make a call on CuPy too, if it is new, and note what is otherwise."""
    mark = name, form(arguments)
    if mark in asked:
        return
    asked.add(mark)
    before = cupy_without_card.TRANSFERS["down"]
    with real_cupy():
        try:
            theirs = call(*on_cupy(arguments))
        except Exception as problem:
            into = ended if any(each in str(problem) for each in ENDS) else found
            into.setdefault((name, f"{type(problem).__name__}: {problem}"[:150]), set()).add(place())
            return
    known = name in COUNTING or name == "__getitem__" and fake_device.has_mask(arguments[1][0])
    said = "" if known else difference(ours, theirs)
    if cupy_without_card.TRANSFERS["down"] > before and not waited:
        said += " waits for the card, which is not counted"
    if said:
        found.setdefault((name, said), set()).add(place())


def watched(method, name, call):
    """The pretended device's method, with CuPy's beside it."""
    @functools.wraps(method)
    def both(self, *args, **kwargs):
        waits = TRAFFIC.waits
        ours = method(self, *args, **kwargs)
        beside(*call(self, name, args, kwargs), ours, TRAFFIC.waits > waits)
        return ours

    return both


def of_function(self, _, args, kwargs):
    """A call of a NumPy function, as its dispatch hands it over."""
    function, _, given, named = args
    named = {name: value for name, value in named.items() if name != "like"}
    more = {"like": self} if function.__name__ in LIKE else {}
    return function.__name__, lambda given, named: function(*given, **named), (given, named | more)


def of_ufunc(self, _, args, kwargs):
    """A call of a ufunc."""
    ufunc, method, *given = args
    return f"{ufunc.__name__}.{method}", lambda given, named: getattr(ufunc, method)(*given, **named), (given, kwargs)


def of_method(self, name, args, kwargs):
    """A call of an array's own method or operator."""
    return name, lambda x, given, named: getattr(x, name)(*given, **named), (self, args, kwargs)


def watched_crossing(to_device):
    """The way to the card, with CuPy's beside it: of a memory-mapped array, or one that lies otherwise."""
    def both(array):
        ours = to_device(array)
        if isinstance(array, np.ndarray):
            beside("cupy.asarray", CUPY.asarray, (array,), ours, False)
        return ours

    return both


def pytest_configure():
    """Put CuPy beside the pretended device."""
    fake_device.to_device = watched_crossing(fake_device.to_device)
    calls = {"__array_function__": of_function, "__array_ufunc__": of_ufunc}
    for name in [*calls, *METHODS, *OPERATORS]:
        setattr(DeviceArray, name, watched(getattr(DeviceArray, name), name, calls.get(name, of_method)))


def pytest_terminal_summary(terminalreporter):
    """Say what was found."""
    terminalreporter.section(f"CuPy {CUPY.__version__} beside: {len(asked):,} different calls")
    for title, lines in (("otherwise than the pretended device", found), ("ended in the card's own code", ended)):
        terminalreporter.line(f"{title}: {len(lines) or 'nothing'}")
        for (name, said), places in sorted(lines.items()):
            terminalreporter.line(f"  {name}: {said}  ({', '.join(sorted(places)[:5])})")


def pytest_unconfigure(config):
    """Leave at once: CuPy's own end would ask the card."""
    failed = getattr(config.pluginmanager.get_plugin("session"), "testsfailed", 0)
    sys.stdout.flush()
    os._exit(1 if found or failed else 0)
