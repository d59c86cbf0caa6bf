"""Walking through gradients: seen, replaced and stopped at like the tensors themselves."""

import numpy as np
import pytest
from differences import a_batch
from random_models import PALIGEMMA_2, random_model

from npgemma.base.tensors import tensors
from npgemma.learn.teaching import gradients_of
from npgemma.show import walk_back
from npgemma.show.walk_back import WalkBack
from npgemma.tracing.trace import Stopped

MODEL, BATCH = random_model(PALIGEMMA_2), a_batch(PALIGEMMA_2)
TENSORS = tensors(PALIGEMMA_2, *BATCH.ids.shape[:1], len(BATCH.pixels), BATCH.ids.shape[1])
PROBS = "text.blocks.1.attn.probs"


def walk(*lines):
    """What is shown when these lines are typed, and what the walk found if it came to its end."""
    left, shown = iter(lines), []

    def read(prompt):
        shown.append(prompt)
        line = next(left, None)
        if line is None:
            raise EOFError
        return line

    found = None
    try:
        found = gradients_of(MODEL, BATCH, observe=WalkBack(TENSORS, read, shown.append))
    except Stopped:
        pass
    return "\n".join(shown), found


def test_the_last_tensors_gradient_comes_first_with_the_mirrored_line_that_made_it():
    shown, _ = walk("", "n text.blocks.2.attn.probs", "p", "q")
    assert shown.index("(grad text.logits)") < shown.index("(grad text.norm)") < shown.index("grad text.blocks.2.attn")
    assert "  npgemma/backward/attention.py:" in shown
    assert 'd_scores = ops.softmax(t.keep("probs", d_probs), t["probs"])' in shown
    assert "  in   d_probs" in shown and "[[[[[" in shown


def test_expressions_know_the_gradient_and_the_layers_variables():
    shown, _ = walk(f"n {PROBS}", "p d.shape", "p d_probs.shape == d.shape, np.pi", "p nothing", "back", "q")
    B, K, G, T, S = TENSORS[PROBS].shape
    assert f"({B}, {K}, {G}, {T}, {S})" in shown.splitlines() and "(True, 3.14" in shown
    assert "NameError: name 'nothing'" in shown
    assert "There is no back" in shown


def test_a_replaced_gradient_goes_on():
    _, found = walk(f"n grad {PROBS}", "r 0 * d", "n pixels", "")
    plain = gradients_of(MODEL, BATCH)
    assert not found.tensors[PROBS].any() and not found.weights["text.blocks.1.attn.q.weight"].any()
    assert plain.weights["text.blocks.1.attn.q.weight"].any()
    assert np.array_equal(found.weights["text.blocks.2.attn.q.weight"], plain.weights["text.blocks.2.attn.q.weight"])


def test_a_gradient_can_be_stopped_at(monkeypatch):
    stops = []
    monkeypatch.setattr(walk_back, "stop_in", lambda frame: stops.append(frame.f_code.co_name))
    walk(f"n {PROBS}", "d", "q")
    assert stops == ["attend"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("r d[0]", "that is (10, 43) float64; want (2, 10, 43) float64"),
        ("r what", "NameError: name 'what' is not defined"),
        ("n text.blocks.9.out", "ahead of here, 'text.blocks.9.out' fits none of"),
        ("x", "there is no command 'x'; there are"),
    ],
)
def test_what_cannot_be_is_said_and_asked_again(line, said):
    shown, _ = walk(line, "q")
    assert said in shown and shown.count("(grad text.logits)") == 2
