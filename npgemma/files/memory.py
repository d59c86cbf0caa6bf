"""What weights need of the machine's memory, said before any of it is taken."""

import warnings
from pathlib import Path

from npgemma.errors import CheckpointError, SlowWarning
from npgemma.files.safetensors_file import FLOATS, Source, StoredTensor
from npgemma.weights import Parameter


def stays_stored(tensor: StoredTensor, parameter: Parameter, mode: str) -> bool:
    """Tell whether a parameter is used as it lies in the file."""
    if not parameter.matrix:
        return False
    if mode in ("bfloat16", "float64"):
        return True
    return tensor.dtype == ("F32" if mode == "float32" else "BF16")


def memory_needed(sources: dict[str, Source], parameters: dict[str, Parameter], mode: str) -> int:
    """Bytes that loading allocates; mapped pages are not counted, since the system can drop and read them again."""
    size = 8 if mode == "float64" else 4
    counts = {name: source.num_bytes // FLOATS[source.tensor.dtype].itemsize for name, source in sources.items()}
    widened = [
        size * count for name, count in counts.items() if not stays_stored(sources[name].tensor, parameters[name], mode)
    ]
    # A float64 run widens each matrix when it reads it, by way of float32.
    transient = 12 * max(counts.values()) if mode == "float64" else 0
    return sum(widened) + transient


def memory_mapped(sources: dict[str, Source], parameters: dict[str, Parameter], mode: str) -> int:
    """Bytes that are used as they lie in the files: in memory only as long as there is room."""
    return sum(
        source.num_bytes for name, source in sources.items() if stays_stored(source.tensor, parameters[name], mode)
    )


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, where Linux tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def check_memory(
    folder: Path | str, sources: dict[str, Source], parameters: dict[str, Parameter], mode: str
) -> None:
    """Refuse, before anything is allocated, what the machine cannot hold; say what will be slow because of it."""
    needed, available = memory_needed(sources, parameters, mode), available_memory()
    if available is None:
        return
    if needed > available:
        frugal = memory_needed(sources, parameters, "bfloat16")
        advice = f"--dtype bfloat16 uses the matrices from the file and allocates {frugal / 1e9:.3g} GB"
        raise CheckpointError(
            f"{folder}: {mode} needs {needed / 1e9:.3g} GB of memory, {available / 1e9:.3g} GB are available; "
            + (advice if frugal <= available else "no mode fits, close other programs")
        )
    mapped = memory_mapped(sources, parameters, mode)
    if needed + mapped > available:
        warnings.warn(
            f"{folder}: {mapped / 1e9:.3g} GB of matrices stay in the file, {available / 1e9:.3g} GB of memory are "
            "available: every token reads from disk what does not fit; close other programs, or take a smaller model",
            SlowWarning,
            stacklevel=4,
        )
