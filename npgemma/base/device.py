"""Where arrays lie: in the host's memory, or on a graphics card through CuPy.

Layers know nothing of it.  NumPy hands a call on CuPy's arrays to CuPy (NEP 13, NEP 18), new arrays are made ``like``
one that is there, and so the weights decide where a run happens.  CuPy is imported when a card is asked for, and never
before.  Not supported: models on two cards in one thread.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from npgemma.base.errors import InputError
from npgemma.base.named import Named

HOST = "cpu"
NAMES = re.compile(r"cuda(?::(\d{1,3}))?")
INSTALL = "pip install 'npgemma[cuda12]', or npgemma[cuda13] where 'nvidia-smi' says CUDA 13"


@dataclass(frozen=True)
class Card:
    """A graphics card that was tried and computes.

    Parameters
    ----------
    name : str
        ``cuda:0``.
    cupy : module
    device : cupy.cuda.Device
    """

    name: str
    cupy: Any
    device: Any

    def put(self, array):
        """Copy an array of the host to the card."""
        return self.cupy.asarray(array)

    def free(self) -> int:
        """Bytes that can be allocated there: what nobody has, and what CuPy keeps for the next array."""
        return int(self.device.mem_info[0]) + int(self.cupy.get_default_memory_pool().free_bytes())

    def tidy(self) -> None:
        """Give back what CuPy keeps of arrays that are gone, on the card and in the host's pinned memory."""
        self.cupy.get_default_memory_pool().free_all_blocks()
        self.cupy.get_default_pinned_memory_pool().free_all_blocks()


def open_card(name: str) -> Card | None:
    """Find a card, make it this thread's, and try it.

    Parameters
    ----------
    name : str
        ``cpu``, ``cuda`` or ``cuda:N``.

    Returns
    -------
    card : Card or None
        None for ``cpu``.

    Raises
    ------
    InputError
        If there is no such device, or no CuPy, driver or library to reach it by: what to install.
    """
    found = NAMES.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        if name == HOST:
            return None
        raise InputError(f"came as {name!r:.80}; want cpu, cuda, or cuda:N", argument="device")
    number, cupy = int(found[1] or 0), import_cupy(name)
    count = number_of_cards(name, cupy)
    if number >= count:
        there = ", ".join(f"cuda:{n}" for n in range(count))
        raise InputError(f"came as {name}; this machine has {there}", argument="device")
    card = Card(f"cuda:{number}", cupy, cupy.cuda.Device(number))
    try:
        card.device.use()
        ones = cupy.ones((2, 2), dtype=np.float32)
        right = float(np.sum(ones @ ones)) == 8.0
    except Exception as problem:  # whichever of the CUDA libraries is missing or too old has errors of its own
        raise InputError(
            f"{name} cannot compute: {one_line(problem)}; {INSTALL} brings the CUDA libraries", argument="device"
        ) from None
    if not right:
        raise InputError(f"{name} multiplies wrongly, even 2 x 2 ones; try another card", argument="device")
    return card


def import_cupy(name: str) -> Any:
    """Import CuPy, or say what to install."""
    try:
        import cupy
    except ModuleNotFoundError:
        raise InputError(f"{name} needs CuPy, which is not installed: {INSTALL}", argument="device") from None
    except Exception as problem:  # of two versions side by side, or of a library that does not load
        raise InputError(
            f"{name} needs CuPy, which does not import: {one_line(problem)}; remove every cupy package, then {INSTALL}",
            argument="device",
        ) from None
    return cupy


def number_of_cards(name: str, cupy: Any) -> int:
    """Count the cards that the driver knows, at least one."""
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
        reason = "it knows no card"
    except Exception as problem:  # CUDARuntimeError, or that of a missing libcuda
        count, reason = 0, one_line(problem)
    if not count:
        raise InputError(
            f"{name} needs an NVIDIA card and its driver, and no driver answers as it should ({reason}); install or "
            "update the driver until 'nvidia-smi' lists the card",
            argument="device",
        )
    return count


def one_line(problem: BaseException) -> str:
    """What an error says, in one line of at most 200 characters."""
    return " ".join(str(problem).split())[:200] or type(problem).__name__


def to_host(x) -> np.ndarray:
    """Bring an array of another device to NumPy; scalars become arrays without axes."""
    return x.get() if hasattr(x, "get") and hasattr(x, "shape") else np.asarray(x)


def fetch(*arrays) -> list[np.ndarray]:
    """Bring several small arrays to the host in one go, each flat and in float64: one wait for a card, not several.

    Integers up to 2^53 and all floats of a model are exact in float64.
    """
    flat = [x.reshape(-1).astype(np.float64) for x in arrays]
    ends = np.cumsum([len(each) for each in flat])[:-1]
    return np.split(to_host(np.concatenate(flat)), ends)


def wait_for(x) -> None:
    """Wait until the card that ``x`` lies on has done what it was told, so that a clock tells the truth."""
    card = getattr(x, "device", HOST)
    if hasattr(card, "synchronize"):
        card.synchronize()


def enter(x) -> None:
    """Make the card that ``x`` lies on that of this thread: each thread begins with the first one."""
    card = getattr(x, "device", HOST)
    if hasattr(card, "use"):
        card.use()


class Fetched(Named):
    """Arrays by name, each brought to the host when it is asked for: those of the host are the same arrays.

    Parameters
    ----------
    arrays : mapping of str to array
    """

    def __getitem__(self, name: str) -> np.ndarray:
        return to_host(self.arrays[name])
