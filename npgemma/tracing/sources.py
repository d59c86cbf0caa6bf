"""Where in the sources a tensor is kept."""

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path


def made_at(maker: str, name: str) -> tuple[Path, int]:
    """Find the line that keeps a tensor.

    Parameters
    ----------
    maker : str
        ``attention.attend``.
    name : str
        Full or short; its last part is what the line keeps.

    Returns
    -------
    file : Path
    line : int
        Counted from 1.
    """
    file, lines = lines_that_keep(maker)
    short = name if name.startswith("mask.") else name.split(".")[-1]
    if short not in lines:
        raise LookupError(f"{maker} keeps no {short!r}")
    return file, lines[short]


@cache
def lines_that_keep(maker: str) -> tuple[Path, dict[str, int]]:
    """The file of a function, and the line of each name that it hands to a call first."""
    module_name, function_name = maker.split(".")
    module = importlib.import_module(f"npgemma.{module_name}")
    lines, first = inspect.getsourcelines(getattr(module, function_name))
    found = {}
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            found[str(node.args[0].value)] = first + node.lineno - 1
    return Path(str(module.__file__)), found
