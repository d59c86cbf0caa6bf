"""The frame of the command: exit codes, one line for each mistake, help that teaches."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize("words", [["names"], []])
def test_help_is_had_by_its_name_too(capsys, words):
    assert cli.main(["help", *words]) == 0
    first = capsys.readouterr().out
    assert cli.main([*words, "--help"]) == 0
    assert capsys.readouterr().out == first != ""


@pytest.mark.parametrize("name", cli.VERBS)
def test_help_of_every_verb_has_an_example(capsys, name):
    assert cli.main([name, "--help"]) == 0
    assert f"  npgemma {name}" in capsys.readouterr().out


def test_only_the_verb_that_is_asked_for_is_imported():
    code = "import sys; from npgemma import cli; cli.main(['plan', '--help']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "'npgemma.verbs.plan'" in done.stdout
    assert "'npgemma.verbs.trace'" not in done.stdout


def command(line, **more):
    """What a line of a shell does, in which NPGEMMA stands for the command."""
    line = line.replace("NPGEMMA", f"{sys.executable} -m npgemma")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, check=False, **more)


def test_closed_standard_streams_are_one_line_or_none():
    done = command("NPGEMMA names text.logits >&-")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "npgemma: standard output is closed, and what is said there would be lost\n"
    done = command("NPGEMMA names text.logits <&- 2>&-")
    assert done.returncode == 0 and done.stdout.startswith("text.logits")
    done = command("NPGEMMA generate - x <&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("npgemma: -: standard input is closed; give a file, or a pipe\n")


def test_a_full_disk_behind_standard_output_is_one_line():
    done = command("NPGEMMA names > /dev/full")
    assert (done.returncode, done.stderr) == (1, "npgemma: output: No space left on device\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_command_with_one_line_and_what_is_left_to_clean_is_cleaned(verb, capsys, name):
    number, cleaned = getattr(signal, name), []

    def run(args):
        try:
            os.kill(os.getpid(), number)
            time.sleep(60)
        finally:
            cleaned.append(name)

    verb(run)
    before = signal.getsignal(number)
    assert cli.main(["plan"]) == 128 + number
    assert capsys.readouterr().err == f"npgemma: ended by {name}\n"
    assert cleaned == [name] and signal.getsignal(number) == before


def test_a_signal_that_nohup_ignores_stays_ignored(verb):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        verb(lambda args: os.kill(os.getpid(), signal.SIGHUP) or 0)
        assert cli.main(["plan"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_argument_of_python_is_named_as_the_option_it_is(verb, capsys):
    verb(raising(errors.InputError("came as 0; in /x/top_p: and top_k", argument="top_p")))
    assert cli.main(["plan"]) == 1
    assert capsys.readouterr().err == "npgemma: --top-p: came as 0; in /x/top_p: and top_k\n"
    verb(raising(errors.InputError("came as 0", argument="observe")))
    cli.main(["plan"])
    assert capsys.readouterr().err == "npgemma: observe: came as 0\n"


def test_every_option_of_the_table_is_an_option_of_a_verb(capsys):
    helps = ""
    for name in cli.VERBS:
        cli.main([name, "--help"])
        helps += capsys.readouterr().out
    assert not [option for option in cli.OPTIONS.values() if f" {option} " not in helps]


@pytest.mark.parametrize("line, wanted", [
    ("npgemma ", {"-h", "--help", *cli.VERBS}),
    ("npgemma ge", {"generate "}),
    ("npgemma generate --max-t", {"--max-tokens "}),
    ("npgemma generate --dtype ", {"float32", "float64", "bfloat16"}),
    ("npgemma trace npgemma/tiny/pictures/2", {"npgemma/tiny/pictures/2-overlap.png "}),
])
def test_a_shell_is_told_how_a_line_could_go_on(line, wanted):
    pytest.importorskip("argcomplete")
    asks = os.environ | {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "|"}
    done = command("NPGEMMA 8>&1 9>/dev/null", env=asks)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split("|")) == wanted


def test_the_version_is_told(capsys):
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"npgemma (\d+\.\d+.*|0\+unknown)\n", capsys.readouterr().out)


@pytest.mark.parametrize("megabytes", [100, 184, 190, 255, 256, 300, 500])
def test_with_little_address_space_there_is_an_answer_or_a_line_and_no_signal(megabytes):
    done = command(f"ulimit -v {megabytes * 1024}; NPGEMMA names text.logits")
    if megabytes < 256:
        assert (done.returncode, done.stdout) == (1, "")
        wanted = f"npgemma: 'ulimit -v' leaves {megabytes * 1024:,} kB of address space; want 262,144 or more\n"
        assert done.stderr == wanted
    else:
        assert (done.returncode, done.stderr) == (0, "")


def test_256_megabytes_of_address_space_are_enough_for_an_answer():
    done = command("ulimit -v 262144; NPGEMMA generate")
    assert done.returncode == 0 and len(done.stdout.split()) > 3 and "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_ctrl_c_while_numpy_is_imported_is_one_line():
    process = subprocess.Popen(
        [sys.executable, "-m", "npgemma", "generate"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while "multiarray" not in maps.read_text() and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"npgemma: interrupted\n")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_waits_until_imports_are_done(name, monkeypatch, capsys):
    """An import that a signal breaks off may report anything: NumPy's C code makes an ImportError of it."""
    number, done = getattr(signal, name), []

    def imported(verbs):
        signal.raise_signal(number)
        done.append("whole")
        return None, {}

    monkeypatch.setattr(cli, "build_parser", imported)
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    code = cli.main(["generate"])
    assert done == ["whole"] and code == 128 + number and capsys.readouterr().out == ""
    assert before == {each: signal.getsignal(each) for each in before}


def test_the_command_can_speak_before_numpy_is_there():
    code = "import sys, npgemma.cli; print([name for name in sys.modules if name in ('numpy', 'PIL', 'pdb')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"
