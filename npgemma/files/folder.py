"""Reading a model's folder without leaving it, and JSON without repairing it."""

import json
from pathlib import Path

from npgemma.base.errors import NpgemmaError
from npgemma.files import sniff

JSON_LIMIT = 64 * 2**20  # bytes; a released index.json has 100 kB


def model_file(folder: Path, name: str, error: type[NpgemmaError]) -> Path:
    """Give the path of ``name`` in a model's folder, if it leads nowhere else.

    Parameters
    ----------
    folder : Path
    name : str
        One file name, as an index may list it; anything that could be a path is refused.
    error : type of NpgemmaError
        What to raise.

    Notes
    -----
    A symbolic link may lead to another file of the folder or, from ``models--x--y/snapshots/REVISION`` of a Hugging
    Face cache, into ``models--x--y/blobs``.
    """
    if not name or name in (".", "..") or any(char in name for char in "/\\:\0"):
        raise error(f"{folder}: the file name {name!r} is not a plain name; want a file of this folder")
    root = folder.resolve()
    target = (root / name).resolve()
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in allowed):
        raise error(f"{folder / name}: is a link to {target}, outside the model's folder; copy the file into it")
    return folder / name


def read_json(path: Path, error: type[NpgemmaError]) -> dict:
    """Read a JSON file that must be one object."""
    return parse_json(sniff.read_file(path, JSON_LIMIT, error), str(path), error)


def parse_json(data: bytes, place: str, error: type[NpgemmaError]) -> dict:
    """Parse one JSON object strictly: no duplicate keys, no NaN, UTF-8 only.

    Parameters
    ----------
    data : bytes
    place : str
        What an error message begins with.
    error : type of NpgemmaError
        What to raise.
    """

    def unique(pairs):
        found = {}
        for key, value in pairs:
            # Python's parser would keep the last one silently.
            if key in found:
                raise error(f"{place}: the key {key!r} occurs twice; remove one")
            found[key] = value
        return found

    def refuse(constant):
        raise error(f"{place}: has the number {constant}; want finite numbers")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except error:
        raise  # from above; a ValueError too
    except UnicodeDecodeError as problem:
        raise error(f"{place}: byte {problem.start} is not UTF-8; {whole_kind(data)}") from None
    except json.JSONDecodeError as problem:
        raise error(f"{place}: not JSON at character {problem.pos}: {problem.msg}; {whole_kind(data)}") from None
    except RecursionError:
        raise error(f"{place}: JSON nested too deeply to be a model's; get the file again") from None
    except ValueError as problem:
        raise error(f"{place}: {problem}; get the file again") from None
    if not isinstance(value, dict):
        raise error(f"{place}: holds a JSON {type(value).__name__}; want an object {{...}}")
    return value


def whole_kind(data: bytes) -> str:
    """Say what broken JSON is instead, or what to do."""
    kind = sniff.describe(data[:1024])
    return f"it is {kind}" if kind else "get the file again"
