"""The rules of the house: who may import whom, how long a page may be."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "npgemma"
MODEL_FILES = ["config", "ops", "rotary", "masks", "attention", "vision", "text", "model"]

# What each file of the model and its foundations may import of the package.  Side rooms may import these, and one
# another; none of these imports a side room.
MAY_IMPORT = {
    "errors": set(),
    "stored": set(),
    "precision": set(),
    "rotary": set(),
    "masks": set(),
    "ops": {"stored"},
    "config": {"errors"},
    "cache": set(),
    "weights": {"config", "errors", "precision", "stored"},
    "inputs": {"errors"},
    "attention": {"cache", "errors", "ops", "rotary"},
    "vision": {"attention", "ops"},
    "text": {"attention", "ops", "rotary"},
    "model": {"cache", "config", "inputs", "masks", "ops", "text", "vision", "weights"},
}
RUN_TIME_PACKAGES = {"numpy", "PIL", "safetensors", "sentencepiece", "npgemma"}
# Imported by a debugger, from which it takes its base class; npgemma itself never imports it.
FOR_DEBUGGERS = {"pydevd_plugin_npgemma.py": {"_pydevd_bundle"}}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """Modules that a file imports, at any depth: 'npgemma.ops', 'numpy', …"""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "npgemma":
                yield from (f"npgemma.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_the_model_imports_no_side_room(name):
    ours = {module.split(".")[1] for module in imported(PACKAGE / f"{name}.py") if module.startswith("npgemma.")}
    assert ours <= MAY_IMPORT[name]


def test_only_the_command_imports_the_command():
    for path in SOURCES:
        if path.name not in ("cli.py", "__main__.py") and path.parent.name != "verbs":
            arrows = [module for module in imported(path) if module.startswith(("npgemma.cli", "npgemma.verbs"))]
            assert not arrows, f"{path.relative_to(PACKAGE)} imports {arrows}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_but_the_run_time_packages_is_imported(path):
    import sys

    others = {module.split(".")[0] for module in imported(path)} - set(sys.stdlib_module_names)
    assert others <= RUN_TIME_PACKAGES | FOR_DEBUGGERS.get(path.name, set())


# A breakpoint announces the tensor on the debugger's terminal.
PRINTERS = {"cli.py", "progress.py", "breaking.py"}


def test_only_the_command_and_its_verbs_print():
    for path in SOURCES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        allowed = path.name in PRINTERS or path.parent.name == "verbs"
        assert allowed or not prints, f"{path.relative_to(PACKAGE)}:{prints}"


def test_the_eight_model_files_are_read_in_an_hour():
    lines = {name: len((PACKAGE / f"{name}.py").read_text().splitlines()) for name in MODEL_FILES}
    assert sum(lines.values()) <= 1300, lines


def code_lines(source, node):
    """Lines of a function that hold code: no docstring, comments or blank lines."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    if not body:
        return 0
    first, last = body[0].lineno, node.end_lineno
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    rows = {row for token in tokens if token.type not in skipped for row in range(token.start[0], token.end[0] + 1)}
    return len([row for row in rows if first <= row <= last])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_fit_a_screen_and_public_ones_say_what_they_give(path):
    source = path.read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert code_lines(source, node) <= 40, f"{path.name}:{node.lineno} {node.name} is too long"
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}:{node.lineno} {node.name} has no docstring"


@pytest.mark.parametrize("name", MODEL_FILES)
def test_layers_bind_each_tensor_once_and_write_into_nothing(name):
    for function in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.keyword):
                assert node.arg != "out", f"{name}.py:{node.value.lineno} writes with out="
            if isinstance(node, ast.AugAssign):
                raise AssertionError(f"{name}.py:{node.lineno} rebinds with an augmented assignment")
