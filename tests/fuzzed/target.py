"""One kind of file that npgemma reads, and how the reading of one ended."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from npgemma.base.errors import NpgemmaError, OddWarning, SlowWarning

GOLDEN = Path(__file__).parents[2] / "golden"


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Parameters
    ----------
    examples : callable
        Gives valid files, as bytes.
    prepare : callable
        ``prepare(folder)`` writes what must lie beside the file.
    run : callable
        ``run(folder, data)`` writes the file there and reads it.
    kind : str
        What is known of its form: ``bytes``, ``json``, ``lines`` of JSON, ``safetensors``.
    """

    examples: Callable[[], list[bytes]]
    run: Callable[[Path, bytes], object]
    kind: str = "bytes"
    prepare: Callable[[Path], object] = lambda folder: None


def outcome(target: Target, folder: Path, data: bytes) -> str:
    """Say how one file ended: accepted, or refused; anything else goes on as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for kind in (OddWarning, SlowWarning):
                warnings.simplefilter("ignore", kind)
            target.run(folder, data)
    except NpgemmaError as error:
        message = str(error)
        assert 0 < len(message) < 2500, f"a message of {len(message)} characters: {message[:200]}"
        return "refused"
    return "accepted"
