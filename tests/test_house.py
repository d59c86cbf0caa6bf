"""The rules of the house: who may import whom, how long a page may be."""

import ast
import functools
import io
import tokenize
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "npgemma"
MODEL_FILES = ["config", "ops", "rotary", "masks", "attention", "vision", "text", "paligemma"]

# What each room may import of the package.  The root is taken apart by file: it is the model, and every room stands
# above it but `base`, on which it stands.
ROOT = {
    "config": {"base"},
    "ops": {"base"},
    "rotary": set(),
    "masks": set(),
    "attention": {"base", "ops", "rotary", "masks"},
    "vision": {"base", "attention", "ops"},
    "text": {"base", "attention", "ops", "rotary"},
    "paligemma": {"base", "config", "masks", "ops", "text", "vision"},
}
MODEL = set(ROOT)
ROOMS = {
    "base": {"config"},
    "files": {"base"},
    "words": {"base", "config", "files"},
    "checkpoints": {"base", "config", "paligemma", "files", "words"},
    "generation": {"base", "files", "words", "checkpoints"} | MODEL,
    "backward": {"base"} | MODEL,
    "tracing": {"base", "files", "generation", "backward"} | MODEL,
    "learn": {"base", "files", "words", "checkpoints", "generation", "tracing", "backward"} | MODEL,
    "places": {"base", "files", "words", "checkpoints", "generation"} | MODEL,
    "judge": {"base", "files", "words", "checkpoints", "generation", "tracing"} | MODEL,
    "show": {"base", "files", "words", "checkpoints", "generation", "tracing", "backward"} | MODEL,
    "explaining": {"base", "files", "words", "generation", "tracing", "places", "show"} | MODEL,
}
VERBS = {"verbs", "cli", *ROOMS} | MODEL
COMMAND = {"verbs": VERBS, "cli": {"base", "verbs"}, "__main__": {"cli"}, "__init__": {*ROOMS} | MODEL}
MAY_IMPORT = {**ROOT, **ROOMS, **COMMAND}
RUN_TIME_PACKAGES = {"numpy", "PIL", "safetensors", "sentencepiece", "npgemma"}
# What a debugger brings, from which a class is taken, and what an extra brings.
OF_ONE_FILE = {
    "show/hover.py": {"_pydevd_bundle"},
    "explaining/page.py": {"jinja2"},
    "base/device.py": {"cupy"},
    "cli.py": {"argcomplete"},
}
SOURCES = sorted(PACKAGE.rglob("*.py"))


@functools.cache
def imported(path):
    """Modules that a file imports, at any depth: 'npgemma.ops', 'numpy', …"""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inside = node.module == "npgemma"
            found += [f"npgemma.{alias.name}" for alias in node.names] if inside else [node.module]
    return found


def room_of(path):
    """The room that a file stands in; a file of the root is one by itself."""
    place = path.relative_to(PACKAGE)
    return place.parts[0] if len(place.parts) > 1 else place.stem


def arrows():
    """Each import within the package: (file, module that is imported)."""
    for path in SOURCES:
        for module in imported(path):
            if module.startswith("npgemma."):
                yield path, module.removeprefix("npgemma.")


@pytest.mark.parametrize("room", sorted({room_of(path) for path in SOURCES}))
def test_arrows_go_downward(room):
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path, module in arrows()
        if room_of(path) == room != module.split(".")[0] and module.split(".")[0] not in MAY_IMPORT[room]
    ]
    assert not wrong, wrong


def test_every_room_has_a_place_in_the_table():
    assert {room_of(path) for path in SOURCES} - {"tiny"} == set(MAY_IMPORT)


def test_neither_rooms_nor_files_import_in_a_circle():
    rooms, files = {}, {}
    for path, module in arrows():
        parts = module.split(".")
        target = PACKAGE.joinpath(*parts)
        while not (target.with_suffix(".py").exists() or target.is_dir()):
            target = target.parent
        files.setdefault(path, set()).add(target.with_suffix(".py") if not target.is_dir() else target / "__init__.py")
        # `config` stands on the errors of `base`, and `base` reads configurations: files show that it is no circle.
        if {room_of(path), parts[0]} != {"base", "config"} and room_of(path) != parts[0]:
            rooms.setdefault(room_of(path), set()).add(parts[0])
    for graph in (rooms, files):
        assert not (circle := first_circle(graph)), " imports ".join(str(place) for place in circle)


def first_circle(graph):
    """A path through a graph that ends where it began, if there is one."""
    done = set()

    def first(found):
        return next(filter(None, found), None)

    def follow(place, trail):
        if place in trail:
            return [*trail[trail.index(place) :], place]
        if place in done:
            return None
        done.add(place)
        return first(follow(after, [*trail, place]) for after in sorted(graph.get(place, ()), key=str))

    return first(follow(place, []) for place in sorted(graph, key=str))


def test_a_circle_is_found():
    assert first_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert first_circle({"a": {"b", "c"}, "b": {"c"}}) is None


def test_no_room_bears_the_name_of_a_public_function():
    import npgemma

    assert not set(npgemma.__all__) & {path.name for path in PACKAGE.iterdir() if path.is_dir()}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_but_the_run_time_packages_is_imported(path):
    import sys

    others = {module.split(".")[0] for module in imported(path)} - set(sys.stdlib_module_names)
    assert others <= RUN_TIME_PACKAGES | OF_ONE_FILE.get(str(path.relative_to(PACKAGE)), set())


def test_cupy_is_imported_when_a_card_is_asked_for_and_not_before():
    tree = ast.parse((PACKAGE / "base" / "device.py").read_text())
    assert [each.name for each in tree.body if "import cupy" in ast.unparse(each)] == ["import_cupy"]


# One file each in which people's files are opened for reading, files are written, and standard streams are used.
ONLY_IN = {
    "print": {"base/printer.py"},
    "sys.stdout": {"base/printer.py", "cli.py"},
    "sys.stderr": {"base/printer.py", "base/progress.py"},
    "sys.stdin": {"files/reader.py"},
    "open": {"files/reader.py", "files/writer.py", "base/printer.py", "files/safetensors_file.py"},
    "os.open": {"files/reader.py", "files/writer.py", "base/printer.py", "cli.py"},
    "json.loads": {"files/reader.py", "base/printer.py"},
    # Of the kernel's own files.
    "read_text": {"checkpoints/memory.py"},
    "read_bytes": set(),
    "write_text": set(),
    "write_bytes": set(),
    "os.replace": {"files/writer.py"},
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_reader_one_writer_one_printer(path):
    place = str(path.relative_to(PACKAGE))
    for node in ast.walk(ast.parse(path.read_text())):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        named = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        for name, places in ONLY_IN.items():
            uses = name == called or called.endswith(f".{name}") and name.startswith(("read_", "write_t", "write_b"))
            uses = uses or name.startswith("sys.") and named == name
            assert place in places or not uses, f"{place}:{node.lineno} uses {name}"


def test_the_eight_model_files_are_read_in_an_hour():
    lines = {name: len((PACKAGE / f"{name}.py").read_text().splitlines()) for name in MODEL_FILES}
    assert sum(lines.values()) <= 1100, lines


def rows_of_code(source):
    """Rows that hold code: no comments or blank lines."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {row for token in tokens if token.type not in skipped for row in range(token.start[0], token.end[0] + 1)}


def code_lines(rows, node):
    """Lines of a function that hold code, its docstring left out."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return len([row for row in rows if body[0].lineno <= row <= node.end_lineno]) if body else 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_fit_a_screen_and_public_ones_say_what_they_give(path):
    source = path.read_text()
    rows = rows_of_code(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert code_lines(rows, node) <= 40, f"{path.name}:{node.lineno} {node.name} is too long"
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
