"""The code on the page is the code that ran."""

from pathlib import Path

import pytest
from explained import CASES, facts

import npgemma
from npgemma import ops
from npgemma.explaining.code import body, statements

PACKAGE = Path(npgemma.__file__).parent


@pytest.mark.parametrize("case", CASES)
def test_every_line_stands_where_it_is_said_to(case):
    checked = 0
    for panel in facts(case).panels.values():
        for code in panel.code:
            file, _, function = code.place.partition(", in ")
            path = PACKAGE.parent / file if file.startswith("npgemma/") else PACKAGE / file
            lines = path.read_text().splitlines()
            assert any(f"def {function}(" in line for line in lines)
            for number, line in code.lines:
                assert lines[number - 1].strip() == line.strip()
                checked += 1
    assert checked > 40


def test_statements_of_one_function_stand_together_in_its_order():
    made = [("attention.attend", "probs"), ("text.block", "middle"), ("attention.attend", "scores")]
    first, second = statements(made)
    assert (first.place, second.place) == ("npgemma/attention.py, in attend", "npgemma/text.py, in block")
    assert [line.split(" = ")[0] for _, line in first.lines] == ["scores", "probs"]


def test_a_body_leaves_out_head_and_docstring():
    assert [line for _, line in body(ops.split_heads).lines] == [
        "return x.reshape(*x.shape[:2], num_heads, -1)"
    ]
