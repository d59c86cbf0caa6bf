"""npgemma trace --backward: lines, order, the picture's map, what is refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from npgemma import cli, gradients, load
from npgemma.base import printer
from npgemma.checkpoints.loading import TINY
from npgemma.show.walk_back import WalkBack

PICTURE = str(TINY / "pictures" / "1-word.png")


def run(capsys, *words):
    code = cli.main(["trace", PICTURE, "caption en", "--backward", "a red circle", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_line_a_gradient_from_the_last_tensor_to_the_first(capsys):
    code, out, err = run(capsys, "--only", "text.logits,text.blocks.3.attn.*,pixels")
    names = [line.split()[1] for line in out.splitlines()]
    assert code == 0 and "the loss is" in err
    assert names[:2] == ["text.logits", "text.blocks.3.attn.out"]
    assert names.index("text.blocks.3.attn.probs") < names.index("text.blocks.3.attn.q") < names.index("pixels")
    assert names[-1] == "text.blocks.3.attn.q.weight"
    assert out.splitlines()[0].startswith("grad text.logits")


def test_json_holds_what_the_python_function_gives(capsys):
    code, out, _ = run(capsys, "--only", "text.blocks.0.attn.q.weight", "--json")
    [line] = map(json.loads, out.splitlines())
    found = gradients(load(), PICTURE, "caption en", "a red circle", only="text.blocks.0.attn.q.weight")
    [d] = found.weights.values()
    assert code == 0 and line["name"] == "grad text.blocks.0.attn.q.weight"
    assert line["high"] == pytest.approx(float(d.max()), rel=1e-6)


def test_the_map_is_bright_where_the_gradient_is_large(capsys, tmp_path):
    code, _, _ = run(capsys, "--only", "text.norm", "--map", str(tmp_path / "map.png"))
    drawn = np.asarray(Image.open(io.BytesIO((tmp_path / "map.png").read_bytes()))).astype(float)
    d = gradients(load(), PICTURE, "caption en", "a red circle", only="pixels").tensors["pixels"][0]
    size = np.sqrt(np.sum(d.astype(float) ** 2, axis=-1))
    assert code == 0 and drawn.shape == (64, 64, 3)
    assert drawn[size > np.percentile(size, 99)].min() >= 0.74 * 255
    assert drawn[size < np.percentile(size, 20)].max() < 0.5 * 255


def test_a_gradient_can_be_stopped_at(capsys, monkeypatch):
    from npgemma.show import breaking

    stops = []
    monkeypatch.setattr(breaking, "stop_in", lambda frame: stops.append(frame.f_code.co_name))
    code, _, err = run(capsys, "--only", "text.norm", "--break", "text.blocks.2.attn.probs")
    assert code == 0 and stops == ["attend"]


def test_a_gradient_is_replaced_from_a_file_and_what_lies_before_it_follows(capsys, tmp_path):
    name, before = "text.blocks.2.attn.probs", "text.blocks.2.attn.q.weight"
    probs = gradients(load(), PICTURE, "caption en", "a red circle", only=name).tensors[name]
    save_file({name: np.zeros_like(probs)}, tmp_path / "zeros.safetensors")
    lines = []
    for more in ([], ["--replace", f"{name}={tmp_path / 'zeros.safetensors'}"]):
        code, out, _ = run(capsys, "--only", before, "--json", *more)
        lines.append(json.loads(out))
        assert code == 0
    assert lines[0]["high"] > 0 and lines[1]["high"] == lines[1]["low"] == 0


def test_step_walks_through_gradients(capsys, monkeypatch):
    lines = iter(["n text.blocks.3.attn.probs", "q"])
    monkeypatch.setattr(WalkBack.__init__, "__defaults__", (lambda prompt: next(lines), printer.say))
    code = cli.main(["step", PICTURE, "caption en", "--backward", "a red circle", "--to", "text.norm"])
    out, _ = capsys.readouterr()
    assert code == 0 and "grad text.norm" in out and "grad text.blocks.3.attn.probs" in out
    assert "backward/attention.py:" in out and "grad text.logits" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rows", "-1"], "--rows says nothing about gradients"),
        (["--only", "text.blokcs.*"], "fits none of"),
        (["--break", "text.blokcs.*"], "fits none of"),
        (["--replace", "text.norm"], "came as 'text.norm'; want NAME=FILE.safetensors"),
        (["--map", "/nowhere/map.png"], "there is no folder /nowhere"),
        (["--precision", "bf16-hf-eager"], "rounding has no gradient"),
    ],
)
def test_what_cannot_be_is_one_line(capsys, words, said):
    code, out, err = run(capsys, *words)
    assert code == 1 and not out and said in err


def test_a_map_without_a_gradient_is_refused(capsys):
    assert cli.main(["trace", PICTURE, "caption en", "--map", "x.png"]) == 1
    assert "--map draws a gradient" in capsys.readouterr().err
