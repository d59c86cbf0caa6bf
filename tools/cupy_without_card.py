"""The real CuPy on a machine without a card: a CUDA runtime that allocates in the host's memory and computes nothing.

CuPy's arrays can then be made and every function of CuPy be called: its own checks of arguments, its shapes and dtypes,
and the compiling of its kernels (by NVRTC, which needs no card) are the real ones.  A kernel that is launched does
nothing, so that all numbers are those that lay there.  ``install()`` comes before anything else imports CuPy.

Needs Linux, CuPy 14's wheel for CUDA 12, gcc with binutils, and: pip install nvidia-cuda-nvrtc-cu12
"""

import ctypes
import importlib.util
import itertools
import re
import subprocess
import tempfile
from pathlib import Path

KINDS = {
    "PyObject *": ctypes.py_object, "int": ctypes.c_int, "unsigned int": ctypes.c_uint, "float": ctypes.c_float,
    "intptr_t": ctypes.c_ssize_t, "size_t": ctypes.c_size_t,
}
# Of cudaDeviceAttr, what an A100 would say; 0 for the rest.
ATTRIBUTES = {1: 1024, 2: 1024, 5: 2**31 - 1, 8: 49152, 10: 32, 16: 108, 39: 2048, 75: 8, 76: 0, 81: 101376}
TO_HOST = 2  # of cudaMemcpyKind
KEPT = []
TRANSFERS = {"down": 0}

libc = ctypes.CDLL(None)
libc.calloc.restype, libc.calloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


def replace(module, name, function):
    """Put a Python function into the place of a module's C function, before other modules import that."""
    text = re.search(r'"(.*)"', repr(module.__pyx_capi__[name]))[1]
    result, listed = re.fullmatch(r"(PyObject \*|[\w ]+?) ?\((.*)\)", text).groups()
    parts = [] if listed == "void" else listed.split(", ")
    own = [index for index, part in enumerate(parts) if "__pyx" not in part]
    kinds = [KINDS.get(part.replace("__pyx_skip_dispatch", "").strip(), ctypes.c_void_p) for part in parts]

    def call(*values):
        return function(*(values[index] for index in own))

    made = ctypes.CFUNCTYPE(KINDS[result], *kinds)(call)
    KEPT.extend([made, title := ctypes.c_char_p(text.encode())])
    module.__pyx_capi__[name] = new_capsule(ctypes.cast(made, ctypes.c_void_p), title, None)
    setattr(module, name, function)


def copy(target, source, size, kind, stream=0):
    """``cudaMemcpy``, which the host waits for where it goes to the host."""
    TRANSFERS["down"] += kind == TO_HOST
    ctypes.memmove(target, source, size)


def runtime():
    """What stands for the functions of the CUDA runtime."""
    def nothing(*_):
        return None

    def allocate(size, *_):
        return libc.calloc(1, max(size, 1))

    def fill(target, value, size, stream=0):
        ctypes.memset(target, value, size)

    quiet = ("deviceSynchronize", "eventDestroy", "eventSynchronize", "eventRecord", "eventQuery", "streamSynchronize",
             "streamDestroy", "streamWaitEvent", "_ensure_context", "setDevice")
    return dict.fromkeys(quiet, nothing) | {
        "getDeviceCount": lambda: 1, "getDevice": lambda: 0,
        "deviceGetAttribute": lambda one, _: ATTRIBUTES.get(one, 0),
        "driverGetVersion": lambda: 12090, "runtimeGetVersion": lambda: 12090, "memGetInfo": lambda: (1 << 33, 1 << 34),
        "malloc": allocate, "hostAlloc": allocate, "free": libc.free, "freeHost": libc.free,
        "memcpy": copy, "memcpyAsync": copy, "memset": fill, "memsetAsync": fill, "pointerGetMemoryType": lambda _: 0,
        "eventCreate": lambda: 1, "eventCreateWithFlags": lambda _: 1, "streamIsCapturing": lambda _: 0,
    }


def driver():
    """What stands for the functions of the CUDA driver: kernels are found, and do nothing."""
    numbers = itertools.count(1)
    return {
        "launchKernel": lambda *_: None, "moduleLoadData": lambda _: 1, "moduleGetFunction": lambda *_: next(numbers),
        "moduleUnload": lambda *_: None, "ctxGetCurrent": lambda: 1, "funcSetAttribute": lambda *_: None,
        "funcGetAttribute": lambda *_: 1024, "occupancyMaxPotentialBlockSize": lambda *_: (1, 256),
        "occupancyMaxActiveBlocksPerMultiprocessor": lambda *_: 1,
    }


def load_blas():
    """Load a cuBLAS each of whose functions says that all went well."""
    wheel = Path(importlib.util.find_spec("cupy_backends").origin).parent / "cuda" / "libs"
    [module] = wheel.glob("cublas.*.so")
    listed = subprocess.run(["nm", "-D", "--undefined-only", module], capture_output=True, text=True, check=True).stdout
    names = dict.fromkeys(re.findall(r"U (cublas\w+)@", listed))
    [library] = set(re.findall(r"@(libcublas\S+)", listed))
    lines = [f"int {name}(void **made) {{ {'*made = made;' if 'Create' in name else ''} return 0; }}" for name in names]
    load_library(library, lines)
    load_library(library.replace("cublas", "cublasLt"), [])


def load_library(name, lines):
    """Compile lines of C to a library, and load it under a name by which others look for it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "made.c").write_text("\n".join(lines))
        Path(folder, "made.map").write_text(f"{name} {{ global: *; }};")
        words = f"gcc -shared -fPIC -w -Wl,-soname,{name} -Wl,--version-script=made.map -o {name} made.c"
        subprocess.run(words.split(), cwd=folder, check=True)
        KEPT.append(ctypes.CDLL(f"{folder}/{name}", ctypes.RTLD_GLOBAL))


def install():
    """Put all of it under CuPy, and give CuPy."""
    import cupy_backends.cuda.api.driver
    import cupy_backends.cuda.api.runtime

    for module, functions in ((cupy_backends.cuda.api.runtime, runtime()), (cupy_backends.cuda.api.driver, driver())):
        for name, function in functions.items():
            replace(module, name, function)
    load_blas()
    import cupy

    return cupy
