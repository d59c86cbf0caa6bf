"""The shapes that docstrings promise, held against a run: every call of every equation and layer is checked."""

import inspect
import re
import sys

import numpy as np
import pytest
from random_models import GENERATIONS, random_model, random_prompt

from npgemma import attention, forward, masks, ops, paligemma, rotary, text, vision
from npgemma.base import blocks, cache, inputs

MODULES = [ops, rotary, masks, attention, vision, text, paligemma, inputs, blocks, cache]
# What the one result of a function is called where it has no name.
RESULT = "the result"
LINE = re.compile(r"^(\w+(?:, \w+)*) : (\(.*)$", re.MULTILINE)


# In one line: "Take rows: x (B, T, D), mask (B, T) -> (B, 1, D)."
SHAPE = r"\(((?:\.\.\.|[A-Z1-9][\w*/]*)(?:, [A-Z1-9][\w*/]*)*)\)"


def promised(docstring, section):
    """Names and shapes of a numpydoc section: [("x", [["B", "T", "D"]]), …], one list for each shape it may have.

    Where there is no such section, those that the first line gives.
    """
    if "----" not in docstring:
        before, arrow, after = docstring.split("\n\n")[0].partition("->")
        if section == "Parameters":
            yield from ((name, [re.split(r",\s*", shape)]) for name, shape in re.findall(r"(\w+) " + SHAPE, before))
        elif arrow and (found := re.match(r"\s*" + SHAPE, after)):
            yield RESULT, [re.split(r",\s*", found[1])]
        return
    parts = re.split(r"^(\w+)\n-+$", inspect.cleandoc(docstring), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    for names, shapes in LINE.findall(sections.get(section, "")):
        choices = [re.split(r",\s*", shape) for shape in re.findall(r"\(([^)]*)\)", shapes)]
        for name in names.split(", "):
            yield name, choices


def fits(shape, letters, bound):
    """Hold a shape against letters; binds the letters that are new, in ``bound``."""
    if letters[:1] == ["..."]:
        rest = letters[1:]
        shape, letters = shape[len(shape) - len(rest) :], rest
    if len(shape) != len(letters):
        return False
    for size, letter in zip(shape, letters, strict=True):
        if letter.isidentifier():
            if bound.setdefault(letter, size) != size:
                return False
        elif all(name in bound for name in re.findall(r"[A-Z]", letter)) and not re.search(r"[a-z]", letter):
            if eval(letter, {}, bound) != size:  # arithmetic of letters only: N*H, H/2
                return False
    return True


class Checker:
    """A profiler that checks arguments when a function is called and its result when it returns."""

    def __init__(self):
        self.functions = {
            function.__code__: function
            for module in MODULES
            for function in vars(module).values()
            if inspect.isfunction(function) and function.__module__ == module.__name__
        }
        self.bound = {}
        self.wrong = []
        self.checked = set()

    def __call__(self, frame, event, arg):
        function = self.functions.get(frame.f_code)
        if function is None or event not in ("call", "return") or (event == "return" and arg is None):
            return
        if event == "call":
            letters = self.bound[id(frame)] = {}
            self.check(function, "Parameters", lambda name: frame.f_locals.get(name), letters)
        else:
            results = dict(enumerate(arg if isinstance(arg, tuple) else (arg,)))
            names = re.findall(r"^(\w+) : ", inspect.cleandoc(function.__doc__).split("Returns")[-1], re.MULTILINE)
            by_name = {name: results.get(place) for place, name in enumerate(names)} | {RESULT: arg}
            self.check(function, "Returns", by_name.get, self.bound.get(id(frame), {}))

    def check(self, function, section, value_of, letters):
        for name, choices in promised(function.__doc__, section):
            value = value_of(name)
            if not hasattr(value, "shape"):
                continue
            self.checked.add((function.__qualname__, name))
            if not any(fits(value.shape, shape, letters) for shape in choices):
                place = f"{function.__qualname__} {name}"
                self.wrong.append(f"{place}: promised {choices}, was {value.shape}, with {letters}")


def test_shapes_in_docstrings_are_those_of_a_run():
    checker = Checker()
    for cfg in GENERATIONS.values():
        run, prompt = random_model(cfg), random_prompt(cfg)
        sys.setprofile(checker)
        try:
            forward(run, **prompt)
            forward(run, **prompt, last_only=True)
            ids = prompt["ids"][:, 4:9]
            positions = inputs.slot_positions(ids, cfg)
            ones = np.ones_like(ids)
            _, state = paligemma.prefill(run.weights, cfg, ids, None, ones * 0, ones, positions)
            paligemma.step(run.weights, cfg, ids[:, :1], positions[:, :1] + 5, state)
        finally:
            sys.setprofile(None)
    assert not checker.wrong, "\n".join(sorted(set(checker.wrong)))
    assert len(checker.checked) > 90


def test_shapes_are_read_from_one_line_too():
    line = "Take rows: x (B, T, D), mask (B, T) -> (B, 1, D)."
    assert list(promised(line, "Parameters")) == [("x", [["B", "T", "D"]]), ("mask", [["B", "T"]])]
    assert list(promised(line, "Returns")) == [(RESULT, [["B", "1", "D"]])]


def test_a_false_promise_in_one_line_is_found(monkeypatch):
    monkeypatch.setattr(ops.merge_heads, "__doc__", "Lay side by side: gathered (B, K, G, T, H) -> (B, K, T*G*H).")
    with pytest.raises(AssertionError, match="merge_heads the result"):
        test_shapes_in_docstrings_are_those_of_a_run()


def test_a_false_promise_is_found():
    assert fits((2, 3), ["B", "T"], {"B": 2})
    assert not fits((2, 3), ["B", "T"], {"B": 2, "T": 4})
    assert not fits((2, 3), ["B", "T", "D"], {})
    assert not fits((2, 8), ["B", "N*H"], {"N": 3, "H": 3})
