"""Two files side by side are a page and its mirror: names, order, arguments, length."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest
import test_house

import npgemma

FILES = ("ops", "rotary", "attention", "vision", "text", "paligemma")
# Integers have no gradient; the loss itself chooses rows; the cache is not gone back through; wiring of inputs.
WITHOUT = {"angles", "last_real", "step", "read_on", "forward", "given", "both_masks"}
# Their slope needs what they gave: f(d_y, y) instead of f(d_y, x).
BY_RESULT = {"soft_cap": {"y": "x"}, "softmax": {"p": "x"}}
# A bias's gradient is a sum over rows; shapes stand for arrays that are only laid out anew.
HELPERS = {"ops": {"over_rows", "in_order", "mean_of_product", "times", "product", "slope_of_gelu"}}
ROOM = Path(npgemma.__file__).parent / "backward"


def functions(module):
    found = vars(importlib.import_module(module)).items()
    return {name: each for name, each in found if inspect.isfunction(each) and each.__module__ == module}


@pytest.mark.parametrize("name", FILES)
def test_each_function_has_a_namesake_and_the_order_is_the_same(name):
    forward = [each for each in functions(f"npgemma.{name}") if each not in WITHOUT]
    backward = [each for each in functions(f"npgemma.backward.{name}") if each not in HELPERS.get(name, ())]
    assert backward == forward


@pytest.mark.parametrize("name", FILES)
def test_a_namesake_takes_the_gradient_and_then_what_its_original_took(name):
    originals = functions(f"npgemma.{name}")
    for each, function in functions(f"npgemma.backward.{name}").items():
        if each not in originals:
            continue
        first, *rest = inspect.signature(function).parameters
        assert first.startswith("d_"), each
        as_forward = [BY_RESULT.get(each, {}).get(one, {"t": "w"}.get(one, one)) for one in rest]
        taken = list(inspect.signature(originals[each]).parameters)
        # The gradient stands for the argument that only had to be named; the others come in their order.
        assert [one for one in taken if one in as_forward] == as_forward, each


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_bodies_have_at_most_25_lines(path):
    source = path.read_text()
    rows = test_house.rows_of_code(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert test_house.code_lines(rows, node) <= 25, node.name
