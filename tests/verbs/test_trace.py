"""npgemma trace: lines, files, stops, replacements, another precision beside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import golden
from npgemma import cli
from npgemma.tracing import plan as planning
from npgemma.tracing.trace import read

ROOT = Path(__file__).parents[2]
FOLDER = str(golden.GOLDEN / "tiny-2")


@pytest.fixture
def words(tmp_path):
    """A picture and the ids of a prompt about it, for a model without a tokenizer."""
    cfg = golden.model("tiny-2", "float32").config
    Image.fromarray((np.arange(12 * 9 * 3).reshape(12, 9, 3) % 251).astype(np.uint8)).save(tmp_path / "cat.png")
    ids = [cfg.image_token_id] * cfg.vision.num_patches + [2, 5, 7, 9]
    return ["trace", str(tmp_path / "cat.png"), "--model", FOLDER, "--ids", ",".join(map(str, ids))]


def run(capsys, words, *more):
    code = cli.main([*words, *more])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_line_a_tensor_and_the_size_beforehand(words, capsys):
    code, out, err = run(capsys, words, "--only", "text.blocks.0.attn.*", "--rows", "-1")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()][:3] == [f"text.blocks.0.attn.{short}" for short in "qkv"]
    # q, mixed: 60 numbers; k, v, k_rot: 30; q_rot: 60; scores, capped, probs: 6 * 8; out: 42; four bytes each
    assert f"10 tensors, 1.82 kB ({4 * (3 * 60 + 3 * 30 + 3 * 48 + 42):,} bytes) of numbers" in err


def test_json_is_an_object_a_line(words, capsys):
    code, out, _ = run(capsys, words, "--only", "text.blocks.0.attn.probs", "--json", "--against", "float64")
    [item] = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert (item["name"], item["axes"], item["shape"]) == ("text.blocks.0.attn.probs", "B K G T S", [1, 3, 2, 8, 8])
    assert 0 < item["relative"] < 1e-5
    assert item["entropy"] > 0


def test_a_file_with_all_of_it(words, capsys, tmp_path):
    code, out, err = run(capsys, words, "-o", str(tmp_path / "a.safetensors"), "--quiet")
    kept = read(tmp_path / "a.safetensors")
    assert (code, out) == (0, "")
    assert f"({(tmp_path / 'a.safetensors').stat().st_size:,} bytes) in the file" in err
    assert len(kept) == 108
    assert kept.manifest["image"] == str(tmp_path / "cat.png")


def test_a_file_that_exists_is_refused_before_the_model_is_loaded(words, capsys, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    code, _, err = run(capsys, words, "-o", str(tmp_path / "a.safetensors"), "--model", "nowhere")
    assert code == 1
    assert "exists already; choose another name" in err
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"


def test_a_large_file_needs_force(words, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "LIMIT", 1000)
    code, _, err = run(capsys, words, "-o", str(tmp_path / "a.safetensors"))
    assert code == 1 and "--only" in err and "--force" in err
    assert not (tmp_path / "a.safetensors").exists()
    assert run(capsys, words, "-o", str(tmp_path / "a.safetensors"), "--force", "--quiet")[0] == 0
    assert run(capsys, words, "--quiet")[0] == 0  # lines alone take no room


def test_against_another_precision(words, capsys):
    code, out, _ = run(
        capsys, words, "--only", "text.norm,mask.full", "--precision", "bf16-hf-eager", "--against", "float64"
    )
    mask, norm = out.splitlines()
    assert code == 0
    assert "float64: off by 0.0" in norm
    assert "off by" not in mask


def test_a_pattern_that_fits_nothing_lists_the_nearest(words, capsys):
    for option in ("--only", "--stop-after", "--break"):
        code, out, err = run(capsys, words, option, "text.blocks.0.attn.prob")
        assert (code, out) == (1, "")
        assert "nearest: text.blocks.*.attn.probs" in err


def test_a_replacement_comes_from_a_file_and_is_told(words, capsys, tmp_path):
    save_file({"x": np.zeros((1, 8, 42), np.float32)}, tmp_path / "x.safetensors")
    code, out, err = run(
        capsys, words, "--replace", f"text.blocks.0.attn.out={tmp_path / 'x.safetensors'}",
        "--stop-after", "text.blocks.0.attn.out", "--only", "text.blocks.0.attn.out",
    )
    assert code == 0
    assert "[0, 0]" in out
    assert "this was not a plain run: text.blocks.0.attn.out came from outside" in err


@pytest.mark.parametrize(
    "name, array, wanted",
    [
        ("text.blocks.0.attn.out", np.zeros((1, 8, 41), np.float32), "(1, 8, 41) float32; want (B1 T8 D42) float32"),
        ("text.blocks.0.attn.out", np.zeros((1, 8, 42)), "(1, 8, 42) float64; want (B1 T8 D42) float32"),
        ("text.blocks.0.attn.uot", np.zeros((1, 8, 42), np.float32), "nearest: text.blocks.*.attn.out"),
    ],
)
def test_a_replacement_that_does_not_fit_names_both(words, capsys, tmp_path, name, array, wanted):
    save_file({name: array}, tmp_path / "x.safetensors")
    code, out, err = run(capsys, words, "--replace", f"{name}={tmp_path / 'x.safetensors'}")
    assert (code, out) == (1, "")
    assert wanted in err


def test_generated_tokens_have_their_steps(words, capsys):
    code, out, err = run(capsys, words, "--only", "text.logits", "--max-tokens", "3")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["text.logits", "step.0.text.logits", "step.1.text.logits"]
    assert "at most 3 tensors" in err


def test_a_closed_pipe_ends_it_and_leaves_no_file(words, tmp_path):
    command = [sys.executable, "-m", "npgemma", *words, "-o", str(tmp_path / "a.safetensors")]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(writing)
    assert done.returncode == cli.INTERRUPTED
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["cat.png"]


def test_break_opens_pdb_in_the_layer(words):
    done = subprocess.run(
        [sys.executable, "-m", "npgemma", *words, "--break", "text.blocks.0.attn.scores"],
        input="p scores.shape\nq\n", capture_output=True, text=True, cwd=ROOT,
    )
    assert done.returncode == cli.INTERRUPTED
    assert "attend()" in done.stdout and "(1, 3, 2, 8, 8)" in done.stdout
    assert "text.blocks.0.attn.q " not in done.stdout  # no lines but the debugger's
    assert "left in the debugger" in done.stderr
