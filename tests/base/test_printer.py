"""The one printer: nothing that is printed steers a terminal, dies on an encoding, or breaks a line."""

import ast
import io
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from npgemma import cli
from npgemma.base import printer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "text, shown",
    (
        ("a \x1b[2J b", r"a \x1b[2J b"),
        ("\rnpgemma: forged", r"\x0dnpgemma: forged"),
        ("\x07\x7f\x9b", r"\x07\x7f\x9b"),
        ("left \u202e right", r"left \u202e right"),
        ("\u2028\u2066", r"\u2028\u2066"),
        ("half \ud800", r"half \ud800"),
        ("line\n\ttab ▁ ß 🙂 é", "line\n\ttab ▁ ß 🙂 é"),
    ),
)
def test_what_steers_a_terminal_is_written_as_an_escape(text, shown):
    assert printer.visible(text) == shown


def test_a_remark_is_one_line_whatever_stands_in_it(capsys):
    printer.tell("a file 'x\nnpgemma: all is well\x1b[1A'")
    assert capsys.readouterr().err == "npgemma: a file 'x npgemma: all is well\\x1b[1A'\n"


def test_json_is_json_and_steers_nothing():
    value = {"text": "\x1b[2J\x9b\u202e ß", "mean": float("nan"), "all": [1.5, float("-inf")], "pair": (1, 2)}
    text = printer.as_json(value)
    assert not printer.STEERING.search(text) and "ß" in text
    wanted = {"text": "\x1b[2J\x9b\u202e ß", "mean": None, "all": [1.5, None], "pair": [1, 2]}
    assert json.loads(text, parse_constant=pytest.fail) == wanted


def test_a_warning_is_one_line_for_the_time_of_a_command(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with printer.terminal():
            warnings.warn("overflow\n  in exp", RuntimeWarning, stacklevel=1)
    assert capsys.readouterr().err == "npgemma: note: overflow in exp\n"


def run(code, encoding="utf-8", shell="", **more):
    """Run code in a process whose standard streams have an encoding, or are closed by the shell."""
    command = f'exec "$0" -c "$1" {shell}'
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    return subprocess.run(
        ["bash", "-c", command, sys.executable, code], cwd=ROOT, env=environment, capture_output=True, **more
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_an_encoding_that_has_not_all_characters_is_no_reason_to_die(encoding):
    code = (
        "from npgemma.base import printer\n"
        "with printer.terminal():\n"
        "    printer.say('▁ ß'); printer.tell('▁'); printer.say_json({'text': '▁ ß'})"
    )
    done = run(code, encoding)
    assert (done.returncode, done.stderr) == (0, b"npgemma: _" + os.linesep.encode())
    plain, line = done.stdout.decode(encoding).splitlines()
    assert plain == ("_ \\xdf" if encoding == "ascii" else "_ ß")
    assert json.loads(line) == {"text": "▁ ß"}


def test_every_special_character_of_ours_has_something_that_resembles_it():
    used = set()
    for path in (ROOT / "npgemma").rglob("*.py"):
        if path.parent.name != "explaining":  # which writes a page, always in UTF-8
            tree = ast.parse(path.read_text())
            texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
            used |= {each for text in texts if isinstance(text, str) for each in text}
    used = {each for each in used if not each.isascii() and each.isprintable()}
    assert {"█", "…"} <= used and used - set(printer.LOOKALIKES) == set()
    assert all(each.isascii() for each in printer.LOOKALIKES.values())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("words", [
    ["trace", "--only", "text.blocks.0.attn.probs"], ["names", "text.logits"], ["faults", "--list"],
    ["plan", "paligemma-3b-224"], ["doctor"], ["generate", "--profile", "--max-tokens", "1"], ["--help"],
])
def test_commands_say_nothing_that_the_output_cannot_take_and_no_colour(encoding, words, monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    code = cli.main(words)
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams if stream.flush() is None)
    assert code == 0 and out
    assert not re.search(r"\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\x1b", out + err)
    assert encoding != "ascii" or (out + err).isascii()


def test_no_file_gets_the_number_of_a_stream_that_was_closed():
    code = (
        "import os\nfrom npgemma.base import printer\n"
        "with printer.terminal():\n"
        "    print(os.open('/dev/null', os.O_RDONLY)); printer.tell('nobody hears')"
    )
    done = run(code, shell="<&- 2>&-")
    assert (done.returncode, done.stderr) == (0, b"") and int(done.stdout) > 2


@pytest.mark.parametrize(
    "is_terminal, environment, styled",
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
    ],
)
def test_a_style_is_for_terminals_with_colours_and_text_cannot_forge_one(
    is_terminal, environment, styled, monkeypatch, capsys
):
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    printer.say("a \x1b[31m", style="bold")
    assert capsys.readouterr().out == ("\x1b[1ma \\x1b[31m\x1b[0m\n" if styled else "a \\x1b[31m\n")
