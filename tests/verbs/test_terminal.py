"""The command in a terminal of its own: progress, streaming, Ctrl-C."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The real command, but the model says what it is told to.  With an argument, it never comes to the fifth token.
SCRIPT = """
import dataclasses, sys, time
sys.path[:0] = ["tests"]
from generation_models import saying
from npgemma import cli
from npgemma.verbs import options

model, steps = saying("a cat 🙂 on a mat"), []

def stuck(name, x):
    steps.append(name)
    if sys.argv[1:] and steps.count("text.logits") == 5:
        time.sleep(60)
    return model.weights.observe(name, x)

def load(*args, progress, **kwargs):
    for done in (1, 2):
        time.sleep(0.12)
        progress(done, 2)
    return dataclasses.replace(model, weights=model.weights.watched_by(stuck))

options.load = load
sys.exit(cli.main(["generate", "--no-image", "x", "--model", "some"]))
"""


def start(stdout, stderr, *words):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, *words], stdout=stdout, stderr=stderr, cwd=ROOT)


def read_until(terminal, wanted, seconds=30):
    """Read a terminal until it has shown ``wanted``, or is closed."""
    shown, end = b"", time.monotonic() + seconds
    while wanted not in shown.decode(errors="replace"):
        if not select.select([terminal], [], [], max(0, end - time.monotonic()))[0]:
            break
        try:
            more = os.read(terminal, 1000)
        except OSError:  # Linux, when the other side has closed
            break
        if not more:
            break
        shown += more
    return shown.decode(errors="replace")


@pytest.fixture
def terminal():
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


def on_screen(shown):
    """What is left on the last line of a terminal, carriage returns obeyed."""
    line = []
    for character in shown.split("\n")[-1]:
        if character == "\r":
            line = []
        else:
            line.append(character)
    return "".join(line)


def test_a_terminal_sees_progress_then_the_text_as_it_comes_and_ctrl_c_keeps_it(terminal):
    ours, theirs = terminal
    process = start(theirs, theirs, "get stuck")
    os.close(theirs)
    shown = read_until(ours, "cat")
    assert "loading the model: " in shown and "%" in shown
    assert "reading the picture and the prompt" in shown
    assert process.poll() is None, "the text came only at the end"
    # The progress is gone from the line that the text stands on.
    assert on_screen(shown).strip() in "a cat 🙂 on a mat"
    process.send_signal(signal.SIGINT)
    rest = read_until(ours, "interrupted")
    assert process.wait(timeout=30) == 130
    assert "on a mat" not in shown + rest
    assert "Traceback" not in rest


def test_without_a_terminal_there_is_the_answer_and_nothing_else():
    process = start(subprocess.PIPE, subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert out.decode() == "a cat 🙂 on a mat\n"
