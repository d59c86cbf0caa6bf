"""The check for machines with a card, run here on the pretended one."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import golden
from npgemma.base import products

TOOLS = Path(__file__).resolve().parent.parent / "tools"


@pytest.fixture
def check(monkeypatch, capsys, tmp_path):
    """Run the tool on a few goldens and answers; gives exit code, what it said, and its JSON."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.path.insert(0, str(TOOLS))
    import gpu_check

    monkeypatch.setattr(golden, "BATCHES", ("suffix",))
    monkeypatch.setattr(golden, "PRECISIONS", ("float32", "bf16-f32-inside"))
    monkeypatch.setattr(golden, "MODELS", ("tiny-2",))
    monkeypatch.setattr(gpu_check.importlib.util, "find_spec", lambda name: None)

    def run(*words):
        words = ["--fake", "--answers", "6", "--repeats", "1", "--steps", "2", *words]
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", *words, "--out", str(tmp_path / "gpu.json")])
        code = gpu_check.main()
        return code, capsys.readouterr().out, json.loads((tmp_path / "gpu.json").read_text())

    return run


def test_the_check_finds_the_pretended_card_right(check):
    code, out, found = check("--dtypes", "bfloat16")
    assert code == 0, out
    assert found["goldens"]["tensors"] > 100 and found["box"] | {"seconds": 0} == {
        "answers": 6, "other_ids": 0, "first_others": [], "seconds": 0}
    ours = found["subjects"]["npgemma-bfloat16"]
    assert ours["first"] > ours["step"] > 0 and ours["peak_gb"] >= ours["weights_gb"] > 0.001
    assert ours["a_token"] == {"up": 0.0, "down": 1.0, "down_bytes": 24.0}
    assert "left_out" in found["subjects"]["transformers-bfloat16"]
    assert "| npgemma bfloat16 |" in out and "brings 24 bytes back in 1 transfer" in out


def test_the_check_finds_a_card_that_multiplies_wrongly(check, monkeypatch):
    monkeypatch.setattr(products, "on_card", lambda x, weight: (
        np.concatenate([x @ products.half.widen(weight).T * 1.001], axis=-1)))
    code, out, found = check("--dtypes", "float32", "--answers", "1")
    assert code == 3 and any("vision.patches" in each for each in found["beyond"])


def test_without_a_card_one_line_says_so_before_anything_is_written(check, monkeypatch):
    import gpu_check

    monkeypatch.setattr(gpu_check, "ensure_checkpoint", lambda *_: pytest.fail("a checkpoint was written"))
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(SystemExit) as end:
        gpu_check.main()
    assert str(end.value).startswith("gpu_check.py: --device: ") and "\n" not in str(end.value)


def test_figures_beyond_their_bounds_are_told(check):
    import gpu_check

    ours = {"ready": 1.0, "first": 0.05, "step": 0.02, "peak_gb": 7.0}
    theirs = {"ready": 2.0, "first": 0.05, "step": 0.01, "peak_gb": 6.0}
    found = {
        "fake": False, "goldens": {"differ": []}, "box": {"answers": 9, "other_ids": 1},
        "subjects": {"npgemma-float32": ours, "transformers-float32": theirs, "npgemma-bfloat16": {"failed": ["why"]}},
    }
    assert gpu_check.verdicts(found) == [
        "box: 1 of 9 answers have other ids", "float32: step is 2.00 of PyTorch's; want 1.3",
        "float32: peak_gb is 1.17 of PyTorch's; want 1.1", "npgemma bfloat16: ['why']",
    ]
