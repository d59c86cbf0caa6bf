"""The frame of the command: exit codes, one line for each mistake, help that teaches."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from npgemma import cli
from npgemma.base import errors

ROOT = Path(__file__).parent.parent


@pytest.fixture
def verb(monkeypatch):
    """Lets a test put its own function in place of a verb's."""

    def replace(function):
        def add(subparsers):
            subparsers.add_parser("plan").set_defaults(run=function)

        monkeypatch.setattr(importlib.import_module("npgemma.verbs.plan"), "add", add)

    return replace


def raising(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    "error, code",
    (
        (errors.InputError("wrong"), 1),
        (errors.PromptError("wrong"), 1),
        (errors.WeightError("wrong"), 1),
        (NotImplementedError("wrong"), 1),
        (errors.CheckpointError("wrong"), 2),
        (errors.ConfigError("wrong"), 2),
        (errors.TokenizerError("wrong"), 2),
        (errors.ImageError("wrong"), 2),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file or directory", "wrong"), 1),
        (OSError(28, "No space left on device: wrong"), 1),
        (MemoryError("wrong"), 1),
    ),
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(verb, capsys, error, code):
    verb(raising(error))
    assert cli.main(["plan"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("npgemma: ") and err.count("\n") == 1
    assert ("interrupted" if code == 130 else "wrong") in err


def test_a_mistake_of_our_own_keeps_its_traceback(verb):
    verb(raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["plan"])


def test_a_message_of_several_lines_becomes_one(verb, capsys):
    verb(raising(errors.InputError("first\n  second")))
    cli.main(["plan"])
    assert capsys.readouterr().err == "npgemma: first second\n"


def test_a_verb_gives_its_exit_code(verb):
    verb(lambda args: 3)
    assert cli.main(["plan"]) == 3


def test_row_84_a_closed_pipe_ends_quietly():
    command = f"{sys.executable} -m npgemma plan paligemma2-3b-224 | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.splitlines()[1] in ("130", "0")  # 0 where all fitted into the pipe before it closed
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words, message",
    (
        (["generate", "--bad"], "npgemma generate: unknown arguments: --bad"),
        (["paint"], "invalid choice: 'paint'"),
        (["generate", "--temperature", "hot"], "argument --temperature: invalid float value: 'hot'"),
        (["generate", "--ids", "2,x"], "'2,x' is no list of ids; want 2,17,108"),
        (["generate", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["plan"], "the following arguments are required: VARIANT"),
    ),
)
def test_wrong_usage_exits_with_1_and_points_to_the_help(capsys, words, message):
    assert cli.main(words) == 1
    err = capsys.readouterr().err
    assert message in err
    assert "--help'" in err


def test_without_a_verb_the_help_is_shown(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    for name in cli.VERBS:
        assert re.search(rf"^    {name}  ", out, re.MULTILINE), name
    assert "npgemma generate cat.jpg" in out
    assert "130 interrupted" in out


@pytest.mark.parametrize("name", cli.VERBS)
def test_help_of_every_verb_has_an_example(capsys, name):
    assert cli.main([name, "--help"]) == 0
    assert f"  npgemma {name}" in capsys.readouterr().out


def test_only_the_verb_that_is_asked_for_is_imported():
    code = "import sys; from npgemma import cli; cli.main(['plan', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "'npgemma.verbs.plan'" in done.stdout
    assert "'npgemma.verbs.trace'" not in done.stdout
