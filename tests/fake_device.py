"""A duck array that stands for a GPU's: it refuses to mix with host arrays and knows only what CuPy has.

It wraps a NumPy array and intercepts NumPy's dispatch protocols (NEP 13 and NEP 18), as CuPy does.  A layer that calls
``np.asarray``, creates an array without ``like=``, or adds a host array to a device array fails here as on a GPU.  What
CuPy has, with its arguments, stands in ``golden/device/cupy.json``, which was exported from CuPy itself; where CuPy has
a function and yet takes less than NumPy, :data:`REFUSALS` says so.  ``planted()`` puts a pretended ``cupy`` in the
place of the real one.  Transfers and waits are counted in :data:`TRAFFIC`.
"""

import contextlib
import gc
import json
import sys
import threading
import types
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CUPY = json.loads((Path(__file__).resolve().parent.parent / "golden" / "device" / "cupy.json").read_text())
# The only ways from the host to the device, both explicit.
CROSSINGS = ("array", "asarray")
# What CuPy cannot enqueue without knowing numbers of the device.
WAITING = ("flatnonzero", "nonzero", "unique", "argwhere", "argpartition", "unravel_index")
# Where CuPy takes less than NumPy: (arguments, keywords) -> True where it refuses.
REFUSALS = {
    "argsort": lambda args, kwargs: kwargs.get("kind") not in (None, "stable"),
    "isin": lambda args, kwargs: not all(isinstance(each, DeviceArray) for each in args),
    "lexsort": lambda args, kwargs: not isinstance(args[0], DeviceArray),
    "repeat": lambda args, kwargs: isinstance(args[1], DeviceArray),
    "searchsorted": lambda args, kwargs: not isinstance(args[1], DeviceArray),
    "split": lambda args, kwargs: isinstance(args[1], DeviceArray),
    "where": lambda args, kwargs: not isinstance(args[0], DeviceArray),
}
# The methods of ufuncs that CuPy has for the kinds of numbers that npgemma uses.
UFUNC_METHODS = {("add", "reduceat")}


@dataclass
class Traffic:
    """Arrays and bytes that crossed, and how often the host waited for the device."""

    up: int = 0
    up_bytes: int = 0
    down: int = 0
    down_bytes: int = 0
    waits: int = 0
    used: int = 0
    peak: int = 0

    def clear(self):
        """Count from here on."""
        self.up = self.up_bytes = self.down = self.down_bytes = self.waits = 0
        self.peak = self.used


TRAFFIC = Traffic()


HELD = set()


def hold(host):
    """Count an array's memory once, until its last view is gone."""
    if host.base is None and id(host) not in HELD:
        HELD.add(id(host))
        weakref.finalize(host, let_go, id(host), host.nbytes).atexit = False
        TRAFFIC.used += host.nbytes
        TRAFFIC.peak = max(TRAFFIC.peak, TRAFFIC.used)


def let_go(mark, nbytes):
    HELD.discard(mark)
    TRAFFIC.used -= nbytes


class Here(threading.local):
    """The card that a thread computes on."""

    number = 0


HERE = Here()


class DeviceArray:
    """An array that lies on the pretended device."""

    def __init__(self, host):
        self._host = host
        self._card = HERE.number
        hold(host)

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: types.SimpleNamespace(c_contiguous=self._host.flags.c_contiguous))
    device = property(lambda self: Device(self._card))
    T = property(lambda self: DeviceArray(self._host.T))
    mT = property(lambda self: DeviceArray(self._host.mT))

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion of a device array to a host array; copy it explicitly")

    def __len__(self):
        return len(self._host)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if ufunc.__name__ not in CUPY["ufuncs"] or out is not None:
            raise TypeError(f"the device has no {ufunc.__name__}.{method} (out={out is not None})")
        if method != "__call__" and (ufunc.__name__, method) not in UFUNC_METHODS:
            raise TypeError(f"the device has no {ufunc.__name__}.{method}")
        return wrap(getattr(ufunc, method)(*unwrap(inputs), **kwargs))

    def __array_function__(self, function, types, args, kwargs):
        name = ".".join([*function.__module__.split(".")[1:], function.__name__])
        kwargs = {key: value for key, value in kwargs.items() if key != "like"}
        if name not in CUPY["functions"]:
            raise TypeError(f"the device has no np.{name}")
        known = CUPY["functions"][name]
        if known is not None and set(kwargs) - set(known):
            raise TypeError(f"np.{name} takes no {', '.join(set(kwargs) - set(known))} on the device")
        if name in REFUSALS and REFUSALS[name](args, kwargs):
            raise TypeError(f"np.{name} does not take these arguments on the device")
        if name in CROSSINGS and not isinstance(args[0], DeviceArray):
            return to_device(function(*args, **kwargs))
        TRAFFIC.waits += name in WAITING or name == "where" and len(args) == 1
        return wrap(function(*unwrap(args), **unwrap_values(kwargs)))

    def __getitem__(self, index):
        TRAFFIC.waits += has_mask(index)
        return wrap(self._host[unwrap_index(index)])

    def __setitem__(self, index, value):
        TRAFFIC.waits += has_mask(index) and isinstance(value, DeviceArray)
        self._host[unwrap_index(index)] = unwrap((value,))[0]

    def reshape(self, *shape):
        return wrap(self._host.reshape(*shape))

    def transpose(self, *axes):
        return wrap(self._host.transpose(*axes))

    def swapaxes(self, one, other):
        return wrap(self._host.swapaxes(one, other))

    def astype(self, dtype, copy=True):
        return wrap(self._host.astype(dtype, copy=copy))

    def copy(self):
        return wrap(self._host.copy())

    def view(self, dtype):
        return wrap(self._host.view(dtype))

    def sum(self, axis=None):
        return wrap(self._host.sum(axis=axis))

    def max(self):
        return wrap(self._host.max())

    def clip(self, low, high):
        return wrap(self._host.clip(low, high))

    def get(self):
        """The only way to the host."""
        TRAFFIC.waits += 1
        TRAFFIC.down += 1
        TRAFFIC.down_bytes += self._host.nbytes
        return self._host.copy()

    def tobytes(self):
        return self.get().tobytes()

    def tolist(self):
        return self.get().tolist()

    def scalar(self, kind):
        """CuPy's arrays of one element convert to Python numbers, at the cost of a wait."""
        if self._host.size != 1:
            raise TypeError("only arrays of one element convert to a number")
        return kind(self.get().reshape(()))

    __int__ = lambda self: self.scalar(int)  # noqa: E731
    __float__ = lambda self: self.scalar(float)  # noqa: E731
    __bool__ = lambda self: self.scalar(bool)  # noqa: E731

    def __iter__(self):
        return (wrap(x) for x in self._host)


def operator(ufunc, swapped=False):
    """Make a binary operator of a ufunc."""
    if swapped:
        return lambda self, other: self.__array_ufunc__(ufunc, "__call__", other, self)
    return lambda self, other: self.__array_ufunc__(ufunc, "__call__", self, other)


def in_place(ufunc):
    """Make an operator that writes into its left side."""
    def write(self, other):
        ufunc(self._host, unwrap((other,))[0], out=self._host)
        return self

    return write


for name, ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide, "pow": np.power, "and": np.bitwise_and,
    "or": np.bitwise_or, "matmul": np.matmul, "lshift": np.left_shift, "rshift": np.right_shift, "mod": np.remainder,
    "floordiv": np.floor_divide,
}.items():
    setattr(DeviceArray, f"__{name}__", operator(ufunc))
    setattr(DeviceArray, f"__r{name}__", operator(ufunc, swapped=True))
    if name != "matmul":  # which CuPy does not do in place
        setattr(DeviceArray, f"__i{name}__", in_place(ufunc))
for name, ufunc in {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}.items():
    setattr(DeviceArray, f"__{name}__", operator(ufunc))
for name, ufunc in {"neg": np.negative, "invert": np.invert, "abs": np.absolute}.items():
    setattr(DeviceArray, f"__{name}__", lambda self, ufunc=ufunc: self.__array_ufunc__(ufunc, "__call__", self))


def wrap(result):
    """Give device arrays for host arrays, also within lists and tuples."""
    if isinstance(result, (list, tuple)):
        return type(result)(wrap(each) for each in result)
    return DeviceArray(np.asarray(result)) if isinstance(result, (np.ndarray, np.generic)) else result


def unwrap(values):
    """Give host arrays for device arrays; a bare host array among them is a mistake."""
    plain = []
    for value in values:
        if isinstance(value, DeviceArray):
            if value._card != HERE.number:
                raise TypeError(f"an array lies on cuda:{value._card}, this thread computes on cuda:{HERE.number}")
            plain.append(value._host)
        elif isinstance(value, (list, tuple)):
            plain.append(type(value)(unwrap(value)))
        elif isinstance(value, (np.ndarray, np.generic)):
            raise TypeError(f"a host array {value.shape} {value.dtype} among device arrays")
        else:
            plain.append(value)
    return plain


def unwrap_values(named):
    return dict(zip(named, unwrap(named.values()), strict=True))


def unwrap_index(index):
    return tuple(unwrap(index)) if isinstance(index, tuple) else unwrap((index,))[0]


def has_mask(index):
    """Whether booleans of the device choose, whose number the host must know."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, DeviceArray) and part.dtype == bool for part in parts)


def to_device(array):
    """Copy an array to the device; what is not an array stays."""
    if not isinstance(array, np.ndarray):
        return array
    TRAFFIC.up += 1
    TRAFFIC.up_bytes += array.nbytes
    return DeviceArray(np.array(array, order="K"))


def to_host(array):
    """Copy an array back, uncounted."""
    return array._host


@dataclass
class Machine:
    """What the pretended driver tells: how many cards, and of each the bytes in all."""

    cards: int = 1
    memory: int = 1 << 34
    problem: str = ""


MACHINE = Machine()


class CudaError(RuntimeError):
    """Of CuPy's errors the one that a missing driver raises."""


class CardFull(MemoryError):
    """Of CuPy's errors the one of a full card; its module's name tells whose memory."""


CardFull.__module__ = "cupy.cuda.memory"
CudaError.__module__ = "cupy_backends.cuda.api.runtime"


@dataclass(frozen=True)
class Device:
    """A card, as ``cupy.cuda.Device``."""

    id: int

    def use(self):
        HERE.number = self.id

    def synchronize(self):
        TRAFFIC.waits += 1

    @property
    def mem_info(self):
        return MACHINE.memory - TRAFFIC.used, MACHINE.memory


class Pool:
    """A memory pool that keeps nothing."""

    def free_bytes(self):
        return 0

    def free_all_blocks(self):
        pass

    def used_bytes(self):
        return TRAFFIC.used


def count_cards():
    if MACHINE.problem:
        raise CudaError(MACHINE.problem)
    return MACHINE.cards


def put(array):
    """``cupy.asarray``."""
    if TRAFFIC.used + array.nbytes > MACHINE.memory:
        raise CardFull(f"Out of memory allocating {array.nbytes:,} bytes (allocated so far: {TRAFFIC.used:,} bytes).")
    return to_device(np.asarray(array))


def fake_cupy():
    """A module that can what npgemma asks of CuPy's."""
    cupy, cuda, runtime = (types.ModuleType(name) for name in ("cupy", "cupy.cuda", "cupy.cuda.runtime"))
    runtime.getDeviceCount = count_cards
    cuda.runtime, cuda.Device = runtime, Device
    cupy.cuda, cupy.asarray, cupy.ndarray, cupy.__version__ = cuda, put, DeviceArray, "pretended"
    cupy.ones = lambda shape, dtype: to_device(np.ones(shape, dtype))
    cupy.get_default_memory_pool = cupy.get_default_pinned_memory_pool = Pool
    return cupy


@contextlib.contextmanager
def planted(cards=1, memory=None, problem=""):
    """Put the pretended CuPy in the place of the real one; ``memory`` is beside what earlier arrays still hold."""
    if memory is not None:
        gc.collect()
    memory = (1 << 34 if memory is None else memory) + TRAFFIC.used
    before, told = sys.modules.get("cupy"), vars(MACHINE).copy()
    sys.modules["cupy"] = fake_cupy()
    vars(MACHINE).update(cards=cards, memory=memory, problem=problem)
    TRAFFIC.clear()
    try:
        yield TRAFFIC
    finally:
        HERE.number = 0
        vars(MACHINE).update(told)
        if before is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before
