"""The page on debuggers says what is so: its Python runs, its configuration is one, its commands exist."""

import json
import re
from pathlib import Path

import pytest

import npgemma
from npgemma import attention, cli
from npgemma.show import breaking

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "npgemma/show/STOPPING.md").read_text()


def test_its_python_runs_as_it_stands(monkeypatch, capsys):
    stops = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(breaking, "stop_in", lambda frame: stops.append(frame.f_code.co_name))
    names = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)
    shown = capsys.readouterr()
    assert "(1 68 4 32)  float32" in shown.out and "keys  0 to 67" in shown.out and "\n'a' " in shown.out
    assert stops and shown.err.startswith("text.")  # numbers beyond 100, and no NaN before


def test_each_chair_has_five_lines():
    for title in ("A terminal", "VS Code", "PyCharm", "Jupyter", "Conditional stops"):
        section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
        assert re.findall(r"^(\d)\. ", section, re.MULTILINE) == list("12345"), title


def test_vs_codes_configuration_starts_the_command():
    [found] = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])["configurations"]
    assert (found["type"], found["module"], found["args"]) == ("debugpy", "npgemma", ["generate"])


def test_what_it_names_is_there():
    source = Path(attention.__file__).read_text()
    assert "mixed = attend(q_rot," in source
    [line] = set(re.findall(r"npgemma/attention\.py:(\d+)", PAGE))
    assert source.splitlines()[int(line) - 1].strip().startswith("capped = ")
    assert {"do_describe", "do_mask", "do_lens"} <= set(vars(breaking.Debugger))
    for verb, option in re.findall(r"npgemma (\w+) [^`\n]*?(--[a-z-]+)", PAGE):
        assert verb in cli.VERBS and option in cli.build_parser([verb])[1][verb].format_help()
    for name in re.findall(r"npgemma\.(\w+)\(", PAGE):
        assert name in npgemma.__all__


@pytest.mark.parametrize("condition", re.findall(r'`((?:w\.path|abs\(scores\))[^`]*)`', PAGE))
def test_its_conditions_can_be_evaluated_in_a_layer(condition):
    found = []

    def observe(name, x):
        if name == "text.blocks.2.attn.capped":
            frame = breaking.layer_frame()
            found.append(eval(condition, frame.f_globals, frame.f_locals))

    npgemma.forward(npgemma.load(), [[2, 5, 6]], observe=observe)
    assert found == ["w.path" in condition]
