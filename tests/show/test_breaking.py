"""Stopping inside a layer: pdb opens in the layer's own frame, with its variables."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_models import GENERATIONS, random_model

import npgemma
from npgemma.show import breaking

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
sys.path[:0] = ["tests"]
import numpy as np
import npgemma
from random_models import GENERATIONS, random_model
model = random_model(GENERATIONS["paligemma-2"], "float32")
logits = npgemma.forward(model, [[2, 5, 6, 7]], observe=npgemma.break_on("text.blocks.1.attn.{scores,out}"))
print("the run went on to", logits.shape)
"""


def session(commands, pattern):
    """What pdb says to a list of commands."""
    code = SCRIPT.replace("text.blocks.1.attn.{scores,out}", pattern)
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(commands) + "\n", capture_output=True, text=True, cwd=ROOT
    )
    return done.returncode, done.stdout, done.stderr


def test_pdb_stops_in_attention_and_reads_scores():
    commands = ["p scores.shape, q.shape, k.shape", "p bool((scores == product * scale).all())", "up",
                "p q_rot.shape", "c"]
    code, out, err = session(commands, "text.blocks.1.attn.scores")
    assert code == 0
    assert "npgemma/attention.py" in out and "attend()" in out
    assert "((1, 2, 3, 4, 4), (1, 4, 6, 8), (1, 4, 2, 8))" in out
    assert "True" in out
    assert "attention()" in out and "(1, 4, 6, 8)" in out
    assert "the run went on to (1, 4, 43)" in out
    assert err.startswith("text.blocks.1.attn.scores  (1 2 3 4 4)  float32")


def test_the_next_stop_is_reached_with_c_and_the_tensor_is_bound():
    commands = ["c", "p out.shape", "p sorted(set(locals()) & {'q', 'k', 'v', 'q_rot', 'k_rot', 'mixed', 'out'})", "c"]
    code, out, _ = session(commands, "text.blocks.1.attn.scores,text.blocks.1.attn.out")
    assert code == 0
    assert "['k', 'k_rot', 'mixed', 'out', 'q', 'q_rot', 'v']" in out


def test_a_layer_that_returns_what_it_keeps_stops_at_its_return():
    code, out, _ = session(["p __return__.shape", "p hidden.shape", "c"], "text.blocks.1.mlp.out")
    assert code == 0
    assert "--Return--" in out
    assert "(1, 4, 10)" in out and "(1, 4, 22)" in out


def test_describe_mask_and_lens_are_at_hand_in_pdb():
    commands = ["describe q", "mask mask", "describe nothing", "lens q", "c", "lens out", "describe", "c"]
    code, out, _ = session(commands, "text.blocks.1.attn.scores,text.blocks.1.out")
    assert code == 0
    assert "(1 4 6 8)  float32" in out  # describe q
    assert "        3 |████|" in out and "keys  0 to 3" in out
    assert "NameError: name 'nothing' is not defined" in out
    assert "InputError: seen: came as (1, 4, 6, 8); want a trace" in out
    assert re.search(r"(#\d+ 0\.\d\d  ){4}#\d+ 0\.\d\d\n", out)  # lens out: five tokens, without a tokenizer
    assert "InputTypeError: x: came as NoneType" in out


def test_q_ends_the_run():
    code, out, err = session(["q"], "text.blocks.1.attn.scores")
    assert code == 1
    assert "BdbQuit" in err
    assert "the run went on" not in out


@pytest.fixture
def stops(monkeypatch):
    """Frames that a debugger would have been opened in."""
    found = []
    monkeypatch.setattr(breaking, "stop_in", lambda frame: found.append(frame.f_code.co_name))
    return found


def test_when_chooses_among_the_tensors_that_fit(stops, capsys):
    model = random_model(GENERATIONS["paligemma-2"], "float32")

    def spoil(name, x):
        return np.full_like(x, np.nan) if name == "text.blocks.1.attn.mixed" else None

    observe = npgemma.break_on("text.blocks.1.*", when=lambda x: ~np.isfinite(x), then=spoil)
    npgemma.forward(model, [[2, 5, 6, 7]], observe=observe)
    names = [line.split()[0] for line in capsys.readouterr().err.splitlines()]
    assert names[:2] == ["text.blocks.1.attn.mixed", "text.blocks.1.attn.out"]
    assert stops[:2] == ["attend", "attention"]


def test_without_a_match_nothing_stops(stops):
    model = random_model(GENERATIONS["paligemma-1"], "float32")
    npgemma.forward(model, [[2, 5]], observe=npgemma.break_on("text.blocks.*", when=lambda x: x.ndim > 9))
    assert stops == []


def test_in_an_ide_its_own_debugger_stops(monkeypatch):
    """pydevd, under VS Code and PyCharm, is asked for; a notebook that only loaded it gets pdb."""

    class Pydevd:
        attached = True
        calls = []

        def get_global_debugger(self):
            return self if self.attached else None

        def settrace(self, suspend, stop_at_frame):
            self.calls.append(stop_at_frame.f_code.co_name)

    pydevd = Pydevd()
    monkeypatch.setitem(sys.modules, "pydevd", pydevd)
    model = random_model(GENERATIONS["paligemma-1"], "float32")
    npgemma.forward(model, [[2, 5]], observe=npgemma.break_on("text.blocks.0.attn.probs"))
    assert pydevd.calls == ["attend"]


def test_outside_a_run_there_is_no_layer():
    with pytest.raises(LookupError, match="no w.keep"):
        breaking.layer_frame()
