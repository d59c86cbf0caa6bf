"""A duck array that stands for a GPU's: it refuses to mix with host arrays and knows only what CuPy has.

It wraps a NumPy array and intercepts NumPy's dispatch protocols (NEP 13 and NEP 18), as CuPy does.  A layer that calls
``np.asarray``, creates an array without ``like=``, or adds a host array to a device array fails here as on a GPU.
"""

import numpy as np

# Functions that CuPy implements through __array_function__, as far as npgemma calls them.
FUNCTIONS = {
    np.all, np.any, np.arange, np.argmax, np.concatenate, np.cumsum, np.einsum, np.empty, np.empty_like, np.full,
    np.max, np.mean, np.min, np.ones_like, np.split, np.sum, np.where, np.zeros_like,
}
UFUNCS = {
    np.add, np.bitwise_and, np.bitwise_or, np.cos, np.divide, np.equal, np.exp, np.greater_equal, np.isnan,
    np.left_shift, np.less, np.less_equal, np.logical_and, np.matmul, np.maximum, np.multiply, np.negative,
    np.not_equal, np.power, np.right_shift, np.sin, np.sqrt, np.square, np.subtract, np.tanh,
}


class DeviceArray:
    """An array that lives on the pretended device."""

    def __init__(self, host):
        self._host = host

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: DeviceArray(self._host.T))

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion of a device array to a host array; copy it explicitly")

    def __len__(self):
        return len(self._host)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **kwargs):
        if ufunc not in UFUNCS or method != "__call__" or out is not None:
            raise TypeError(f"the device has no {ufunc.__name__}.{method} (out={out is not None})")
        return DeviceArray(np.asarray(ufunc(*unwrap(inputs), **kwargs)))

    def __array_function__(self, function, types, args, kwargs):
        if function not in FUNCTIONS:
            raise TypeError(f"the device has no np.{function.__name__}")
        kwargs = {name: value for name, value in kwargs.items() if name != "like"}
        result = function(*unwrap(args), **unwrap_values(kwargs))
        return [DeviceArray(x) for x in result] if isinstance(result, list) else DeviceArray(np.asarray(result))

    def __getitem__(self, index):
        return DeviceArray(np.asarray(self._host[unwrap_index(index)]))

    def __setitem__(self, index, value):
        self._host[unwrap_index(index)] = unwrap((value,))[0]

    def reshape(self, *shape):
        return DeviceArray(self._host.reshape(*shape))

    def transpose(self, *axes):
        return DeviceArray(self._host.transpose(*axes))

    def swapaxes(self, one, other):
        return DeviceArray(self._host.swapaxes(one, other))

    def astype(self, dtype, copy=True):
        return DeviceArray(self._host.astype(dtype, copy=copy))

    def copy(self):
        return DeviceArray(self._host.copy())

    def view(self, dtype):
        return DeviceArray(self._host.view(dtype))

    def scalar(self, kind):
        """CuPy's arrays of one element convert to Python numbers, at the cost of a wait."""
        if self._host.size != 1:
            raise TypeError("only arrays of one element convert to a number")
        return kind(self._host.reshape(()))

    __int__ = __index__ = lambda self: self.scalar(int)
    __float__ = lambda self: self.scalar(float)  # noqa: E731
    __bool__ = lambda self: self.scalar(bool)  # noqa: E731

    def __iter__(self):
        return (DeviceArray(np.asarray(x)) for x in self._host)


def operator(ufunc, swapped=False):
    """Make a binary operator of a ufunc."""
    if swapped:
        return lambda self, other: self.__array_ufunc__(ufunc, "__call__", other, self)
    return lambda self, other: self.__array_ufunc__(ufunc, "__call__", self, other)


for name, ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide, "pow": np.power, "and": np.bitwise_and,
    "or": np.bitwise_or, "matmul": np.matmul, "lshift": np.left_shift, "rshift": np.right_shift,
}.items():
    setattr(DeviceArray, f"__{name}__", operator(ufunc))
    setattr(DeviceArray, f"__r{name}__", operator(ufunc, swapped=True))
for name, ufunc in {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "ge": np.greater_equal,
}.items():
    setattr(DeviceArray, f"__{name}__", operator(ufunc))
DeviceArray.__neg__ = lambda self: self.__array_ufunc__(np.negative, "__call__", self)


def unwrap(values):
    """Give host arrays for device arrays; a bare host array among them is a mistake."""
    plain = []
    for value in values:
        if isinstance(value, DeviceArray):
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


def to_device(array):
    """Copy an array to the device; what is not an array stays."""
    return DeviceArray(array.copy()) if isinstance(array, np.ndarray) else array


def to_host(array):
    """Copy an array back."""
    return array._host
