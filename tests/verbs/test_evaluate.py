"""npgemma evaluate: a table, JSON, and one line for what is wrong."""

import json

import pytest

from npgemma import cli

LINES = [
    {"run": "0", "line": 1, "question": {"prompt": "x", "answer": "cat"}, "text": "cat"},
    {"run": "0", "line": 2, "question": {"prompt": "x", "answer": "Dog"}, "text": "dog"},
]
CAT = {"label": "cat", "box": [0, 0, 9, 9]}


@pytest.fixture
def write(tmp_path):
    def put(*lines):
        path = tmp_path / "answers.jsonl"
        path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
        return str(path)

    return put


def run(capsys, *words):
    code = cli.main(["evaluate", *words])
    return code, *capsys.readouterr()


def test_a_table_of_scores(write, capsys):
    code, out, err = run(capsys, write(*LINES))
    assert (code, err) == (0, "")
    assert "  0.5000        2  exact\n" in out and out.count("\n") == 4


def test_json_and_choices(write, capsys):
    code, out, _ = run(capsys, write(*LINES), "--json", "--score", "exact", "--fold-case")
    assert code == 0 and json.loads(out) == {"exact": 1.0, "exact/count": 2}


def test_a_reliability_table(write, capsys):
    path = write({"text": "", "objects": [CAT], "boxes": [CAT | {"confidence": 0.75}]})
    code, out, _ = run(capsys, path, "--reliability")
    assert code == 0 and "0.7 to 0.8       1   0.750   1.000\n" in out
    _, out, _ = run(capsys, path, "--reliability", "--json")
    assert json.loads(out)["reliability"][7] == {"count": 1, "confidence": 0.75, "right": 1.0}
    assert json.loads(out)["reliability"][0] == {"count": 0, "confidence": None, "right": None}


def test_lines_that_failed_are_told(write, capsys):
    code, out, err = run(capsys, write(LINES[0], {"error": "no", "question": {"answer": "x"}}))
    assert code == 0 and "1 of 2 lines could not be answered, and count as empty answers" in err
    assert "  0.5000        2  exact" in out


@pytest.mark.parametrize(
    "lines, reason",
    [
        ((), "holds no answers"),
        (("{",), "line 1: not JSON"),
        (("[]\n",), "line 1: holds a JSON list"),
        (({"text": "x"},), "nothing to hold 1 answers against"),
    ],
)
def test_what_is_wrong_is_one_line(write, capsys, lines, reason):
    code, out, err = run(capsys, write(*lines))
    assert code == 1 and out == "" and reason in err and err.count("\n") == 1


def test_an_option_bears_its_name_in_the_terminal(write, capsys):
    code, _, err = run(capsys, write(*LINES), "--score", "vqa")
    assert (code, err) == (1, "npgemma: --score: vqa: none of 2 answers has what it is held against\n")
