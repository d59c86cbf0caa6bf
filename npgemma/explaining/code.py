"""Lines of the sources as they stand in the installed files, with their place."""

import ast
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

from npgemma.tracing.sources import made_at


@dataclass(frozen=True)
class Code:
    """Lines of one function, moved to the left, each with its number: ``npgemma/ops.py, in gelu``."""

    place: str
    lines: tuple[tuple[int, str], ...]


def statements(made: list[tuple[str, str]]) -> tuple[Code, ...]:
    """Find the statements that keep tensors.

    Parameters
    ----------
    made : list of (str, str)
        The function, ``attention.attend``, and the tensor that it keeps.

    Returns
    -------
    code : tuple of Code
        One a function, in order of its first tensor; the lines of each in the order of the file.
    """
    found: dict[str, set[tuple[int, str]]] = {}
    for maker, name in made:
        code = statement(maker, name)
        found.setdefault(code.place, set()).update(code.lines)
    return tuple(Code(place, tuple(sorted(lines))) for place, lines in found.items())


def statement(maker: str, name: str) -> Code:
    """Find the statement of ``maker`` that keeps a tensor."""
    file, line = made_at(maker, name)
    module, function = maker.split(".")
    source, nodes = parsed(module)
    around = [node for node in nodes if node.lineno <= line <= (node.end_lineno or 0)]
    inner = min(around, key=lambda node: (node.end_lineno or 0) - node.lineno)
    return cut(file, source, inner.lineno, inner.end_lineno or line, function)


@cache
def parsed(module: str) -> tuple[str, list[ast.stmt]]:
    """The source of a module of the package, and all its statements."""
    source = inspect.getsource(importlib.import_module(f"npgemma.{module}"))
    return source, [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)]


def body(function: Callable[..., Any]) -> Code:
    """Take a function without its head and its docstring."""
    lines, start = inspect.getsourcelines(function)
    [node] = ast.parse(dedent("".join(lines))).body
    assert isinstance(node, ast.FunctionDef)
    first = node.body[bool(ast.get_docstring(node))]
    file = Path(str(inspect.getsourcefile(function)))
    return cut(file, "".join(lines), first.lineno, len(lines), function.__name__, start)


def cut(file: Path, source: str, first: int, last: int, function: str, start: int = 1) -> Code:
    """Take lines ``first`` to ``last`` of a piece of a file that begins at its line ``start``."""
    lines = dedent("\n".join(source.splitlines()[first - 1 : last])).splitlines()
    return Code(f"{file.parent.name}/{file.name}, in {function}", tuple(enumerate(lines, start + first - 1)))
