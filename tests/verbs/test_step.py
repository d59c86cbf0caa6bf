"""npgemma step, driven through a terminal of its own."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import golden

ROOT = Path(__file__).parents[2]

UP = "\x1b[A"  # the arrow


class Terminal:
    """A pseudo-terminal with npgemma step in it."""

    def __init__(self, *words, **environment):
        self.ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "npgemma", "step", *words]
        env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=env | environment
        )
        os.close(theirs)
        self.ahead = ""

    def until(self, wanted, seconds=30):
        """What is shown up to ``wanted``; what was read beyond it comes first next time."""
        shown, end = self.ahead, time.monotonic() + seconds
        while wanted not in shown:
            readable, _, _ = select.select([self.ours], [], [], max(0.0, end - time.monotonic()))
            assert readable, f"no {wanted!r} in {shown!r}"
            try:
                shown += os.read(self.ours, 4000).decode(errors="replace")
            except OSError:  # Linux, when the other side has closed
                raise AssertionError(f"ended without {wanted!r}: {shown!r}") from None
        before, found, self.ahead = shown.partition(wanted)
        return (before + found).replace("\r\n", "\n")

    def type(self, line, wanted):
        """Type a line, and give what is shown up to ``wanted``."""
        os.write(self.ours, f"{line}\n".encode())
        return self.until(wanted)


@pytest.fixture
def words(tmp_path):
    cfg = golden.model("tiny-2", "float32").config
    Image.fromarray((np.arange(12 * 9 * 3).reshape(12, 9, 3) % 251).astype(np.uint8)).save(tmp_path / "cat.png")
    ids = [cfg.image_token_id] * cfg.vision.num_patches + [2, 5, 7, 9]
    return [str(tmp_path / "cat.png"), "--model", str(golden.GOLDEN / "tiny-2"), "--ids", ",".join(map(str, ids))]


@pytest.fixture
def start(words):
    started = []

    def start(*more, **environment):
        started.append(Terminal(*words, *more, **environment))
        return started[-1]

    yield start
    for terminal in started:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.ours)


def test_a_walk_from_the_picture_to_the_answer(start):
    terminal = start("--max-tokens", "1")
    shown = terminal.until("(pixels) ")
    assert "\x1b[1m\npixels = " in shown  # bold
    assert "0-3" in shown and "<image> x 4" in shown and "looks at" in shown  # the table of tokens
    assert "pixels = the pictures, uint8 / 127.5 - 1" in shown

    shown = terminal.type("", "(vision.patches) ")
    assert "vision.patches = patchify(pixels, patch_size) @ patches.weight^T + patches.bias" in shown
    assert 'in encode:  patches = w.keep("patches", ops.linear(flat, w["patches.weight"], w["patches.bias"]))' in shown
    assert "  in   patches.weight  (144 75)  float32" in shown
    assert "  out  vision.patches  (I1 P4 C144)" in shown

    shown = terminal.type("n text.blocks.0.attn.probs", "(text.blocks.0.attn.probs) ")
    assert "npgemma/attention.py:" in shown and "  in   masked" in shown and "entropy" in shown
    shown = terminal.type("m", "(text.blocks.0.attn.probs) ")
    assert "where row 7 looks, mean of 6 heads" in shown and "keys 0-3, image patches:" in shown
    assert "where row 2 looks, head 1" in terminal.type("m 2 1", "(text.blocks.0.attn.probs) ")
    assert "want m ROW HEAD, rows 0..7, heads 0..5" in terminal.type("m 99", "(text.blocks.0.attn.probs) ")
    assert "[[[[[" in terminal.type("p", "(text.blocks.0.attn.probs) ")

    shown = terminal.type("n text.blocks.0.out", "(text.blocks.0.out) ")
    assert "the model would say now:  #" in shown
    assert "|████████|" in terminal.type("m", "(text.blocks.0.out) ")
    assert "pixels has been passed already" in terminal.type("n pixels", "(text.blocks.0.out) ")
    assert "pixels has been passed already" in terminal.type(UP, "goes there") + terminal.until("(text.blocks.0.out) ")
    assert "there is no command 'what?'" in terminal.type("what?", "(text.blocks.0.out) ")

    assert "final_softcap * tanh(" in terminal.type("n text.logits", "(text.logits) ")
    shown = terminal.type("", "(the end) ")
    assert "token 0 of the answer: #" in shown and "The answer: " in shown
    assert "text.logits = " in terminal.type("back", "(text.logits) ")
    terminal.type("", "(the end) ")
    os.write(terminal.ours, b"\n")
    assert terminal.process.wait(timeout=10) == 0


def test_no_colour_where_nobody_wants_it(start):
    assert "\x1b[1m" not in start(NO_COLOR="1").until("(pixels) ")


def test_d_drops_into_pdb_right_there_and_c_walks_on(start):
    terminal = start("--to", "text.blocks.1.attn.scores")
    terminal.until("(text.blocks.1.attn.scores) ")
    assert "attend()" in terminal.type("d", "(Pdb) ")
    assert "(1, 3, 2, 8, 8)" in terminal.type("p scores.shape", "(Pdb) ")
    assert "text.blocks.1.attn.capped" in terminal.type("c", "(text.blocks.1.attn.capped) ")


def test_q_leaves(start):
    terminal = start()
    terminal.until("(pixels) ")
    os.write(terminal.ours, b"q\n")
    assert terminal.process.wait(timeout=10) == 0


def test_the_end_of_the_input_leaves(start):
    terminal = start()
    terminal.until("(pixels) ")
    os.write(terminal.ours, b"\x04")  # Ctrl-D
    assert terminal.process.wait(timeout=10) == 0


def test_a_name_that_is_not_there_is_said_before_the_walk(words):
    done = subprocess.run(
        [sys.executable, "-m", "npgemma", "step", *words, "--to", "text.blocks.0.scores"],
        capture_output=True, text=True, cwd=ROOT,
    )
    assert done.returncode == 1
    assert "nearest: text.blocks.*.attn.scores" in done.stderr
