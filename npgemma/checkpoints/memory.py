"""What weights need of the machine's memory, said before any of it is taken."""

import warnings
from pathlib import Path

from npgemma.base.device import Card
from npgemma.base.errors import CheckpointError, InputError, SlowWarning
from npgemma.base.tensors import Parameter
from npgemma.files.safetensors_file import FLOATS, Source, StoredTensor

# Of control groups, by the controllers that /proc/self/cgroup names: version 2, then version 1.  The folder, the limit,
# what is used, and what of it are cached files.
GROUP_FILES = {
    "": ("", "memory.max", "memory.current", ("active_file", "inactive_file")),
    "memory": (
        "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file"),
    ),
}


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


def memory_on_card(sources: dict[str, Source], parameters: dict[str, Parameter], mode: str) -> int:
    """Bytes that a card must have free: all weights, and for a while the bits of the largest that is widened."""
    moving = [
        source.num_bytes + 4 * (source.num_bytes // FLOATS[source.tensor.dtype].itemsize)
        for name, source in sources.items() if not stays_stored(source.tensor, parameters[name], mode)
    ]
    return (
        memory_needed(sources, parameters, mode) + memory_mapped(sources, parameters, mode) + max(moving, default=0)
    )


def check_card(
    folder: Path | str, sources: dict[str, Source], parameters: dict[str, Parameter], mode: str, card: Card
) -> None:
    """Refuse, before anything is copied, what a card has no room for."""
    needed, free = memory_on_card(sources, parameters, mode), card.free()
    if needed > free:
        frugal = memory_on_card(sources, parameters, "bfloat16")
        advice = f"--dtype bfloat16 needs {frugal / 1e9:.3g} GB" if frugal <= free else "no mode fits: see nvidia-smi"
        raise InputError(
            f"{folder}: {mode} needs {needed / 1e9:.3g} GB on {card.name}, {free / 1e9:.3g} GB are free there; {advice}"
            ", close what else uses the card, or leave --device out",
            argument="device",
        )


def available_memory() -> int | None:
    """Bytes that this process can allocate without swapping, where Linux tells: of the machine and of its container."""
    free = numbers(Path("/proc/meminfo")).get("MemAvailable:")
    left = ([] if free is None else [free * 1024]) + left_by_groups()
    return min(left, default=None)


def left_by_groups(process: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that each control group with a limit leaves to this process: a container's, and those around it.

    Cached files count as left, since the system drops them first.  Source: the kernel's admin-guide, cgroup-v2.rst and
    cgroup-v1/memory.rst.
    """
    left = []
    for line in lines_of(process):
        controllers, _, path = line.partition(":")[2].partition(":")
        version = "memory" if "memory" in controllers.split(",") else controllers
        if version not in GROUP_FILES or not path:
            continue
        folder, limit_name, used_name, cached_names = GROUP_FILES[version]
        # In a container the path may be the host's, which is not there; the container's own group is at the root.
        own = root / folder / path.lstrip("/")
        for place in (own, *own.parents):
            # Nothing but the groups' own files is opened; of a group outside the container, the path has dots.
            if ".." in place.parts or not place.is_relative_to(root / folder):
                continue
            limit, used = (number("".join(lines_of(place / name))) for name in (limit_name, used_name))
            if limit is not None and used is not None:
                stat = numbers(place / "memory.stat")
                cached = sum(stat.get(name, 0) for name in cached_names)
                left.append(max(0, limit - used + cached))
    return left


def numbers(path: Path) -> dict[str, int]:
    """The lines ``name number …`` of one of the kernel's files; none where there is no such file."""
    found = {words[0]: number(words[1]) for words in map(str.split, lines_of(path)) if len(words) > 1}
    return {name: value for name, value in found.items() if value is not None}


def number(text: str) -> int | None:
    """A whole number as the kernel writes it; None for ``max`` and whatever else."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def lines_of(path: Path) -> list[str]:
    """The lines of one of the kernel's files; none where there is no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").split("\n")
    except (OSError, ValueError):  # ValueError: a path that no file can have
        return []


def check_memory(
    folder: Path | str, sources: dict[str, Source], parameters: dict[str, Parameter], mode: str
) -> None:
    """Refuse, before anything is allocated, what the machine cannot hold; say what will be slow because of it."""
    needed, available = memory_needed(sources, parameters, mode), available_memory()
    if available is None:
        return
    if needed > available:
        frugal = memory_needed(sources, parameters, "bfloat16")
        stored = memory_mapped(sources, parameters, "bfloat16")
        advice = (
            f"--dtype bfloat16 allocates {frugal / 1e9:.3g} GB and uses {stored / 1e9:.3g} GB of matrices from the file"
        )
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
