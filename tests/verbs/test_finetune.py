"""npgemma finetune: the command from data to adapter and folder, Ctrl-C, and mistakes as one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lessons import ROWS, write_lessons
from safetensors.numpy import load_file

from npgemma import cli, load
from npgemma.checkpoints.loading import TINY

ROOT = Path(__file__).parents[2]
QUICK = ["--steps", "2", "--batch", "2", "--held-out", "1", "--every", "1"]
PICTURE = str(TINY / "pictures" / "1-word.png")


def run(capsys, *words):
    code = cli.main(["finetune", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_an_adapter_is_learnt_and_every_verb_reads_it(capsys, tmp_path):
    data, out = write_lessons(tmp_path), tmp_path / "learnt"
    code, lines, err = run(capsys, data, "-o", out, "--lora", "2", "--rate", "0.01", *QUICK)
    assert code == 0 and "4 examples to learn from, 1 to be judged by" in err
    assert lines.splitlines()[-1].startswith("step 2/2  loss ") and "held out: loss" in lines
    plain, learnt = load(), load(adapter=out)
    before, after = (each.weights["text.blocks.0.attn.q.weight"] for each in (plain, learnt))
    assert not np.array_equal(before, after)
    scores = []
    for more in ([], ["--adapter", str(out)]):
        assert cli.main(["score", PICTURE, "what colors?", "red, blue", *more]) == 0
        scores.append(capsys.readouterr().out)
    assert scores[0] != scores[1]
    assert cli.main(["trace", PICTURE, "x", "--only", "text.norm", "--adapter", str(out)]) == 0


@pytest.mark.parametrize("way", [["--lora", "2"], ["--on", "text.blocks.0.attn.q.weight"]])
def test_a_run_in_float64_learns_float32_weights_and_reads_its_state(capsys, tmp_path, way):
    data, words = write_lessons(tmp_path), ["-o", tmp_path / "learnt", "--precision", "float64", *way]
    for _ in range(2):
        code, _, err = run(capsys, data, *words, "--batch", "2", "--held-out", "0", "--steps", "1")
        assert code == 0, err
    state = load_file(tmp_path / "learnt" / "state.safetensors")
    assert {str(array.dtype) for array in state.values()} == {"float32"}


def test_rounds_through_the_examples_may_be_asked_for_in_the_place_of_steps(capsys, tmp_path):
    data, words = write_lessons(tmp_path), ["--lora", "1", "--batch", "3", "--held-out", "1", "--epochs", "2"]
    code, lines, err = run(capsys, data, "-o", tmp_path / "learnt", *words)
    assert code == 0 and "3 steps of 3, each example about 2.2 times" in err  # 4 examples, twice, by threes
    assert lines.splitlines()[-1].startswith("step 3/3 ")
    code, _, err = run(capsys, data, "-o", tmp_path / "other", *words, "--steps", "4")
    assert code == 1 and "--epochs stands instead of --steps" in err


def test_a_whole_model_is_learnt_and_loads(capsys, tmp_path):
    out = tmp_path / "learnt"
    code, _, _ = run(capsys, write_lessons(tmp_path), "-o", out, "--freeze", "vision.*", "--rate", "1e-3", *QUICK)
    plain, learnt = load(), load(out)
    assert code == 0 and learnt.tokenizer is not None
    for name in plain.weights.arrays:
        same = np.array_equal(np.asarray(plain.weights[name]), np.asarray(learnt.weights[name]))
        assert same == name.startswith("vision."), name


def test_ctrl_c_saves_and_the_same_command_goes_on_to_the_same_bits(tmp_path):
    data = write_lessons(tmp_path)
    words = ["--lora", "2", "--steps", "6", "--batch", "2", "--held-out", "0", "--every", "1"]
    # All three as commands: in a process where NumPy was there first, BLAS's threads decide the bits otherwise.
    command = [sys.executable, "-m", "npgemma", "finetune", str(data), *words, "-o"]
    settings = {"cwd": ROOT, "text": True, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    process = subprocess.Popen(
        [*command, tmp_path / "parts"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command goes on" in err
    assert (tmp_path / "parts" / "state.safetensors").exists()
    for folder in ("parts", "whole"):
        subprocess.run([*command, tmp_path / folder], capture_output=True, check=True, **settings)
    parts, whole = (load_file(tmp_path / each / "adapter_model.safetensors") for each in ("parts", "whole"))
    assert set(parts) == set(whole) and all(np.array_equal(parts[key], whole[key]) for key in whole)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lora", "2", "--on", "text.blokcs.*"], "'text.blokcs.*' fits none of"),
        (["--lora", "2", "--on", "text.*.attn_norm"], "text.blocks.0.attn_norm is no matrix of a product"),
        (["--freeze", "*"], "leaves no weight to train"),
        (["--steps", "0"], "--steps: came as 0; want 1 or more"),
        (["--batch", "99999999999999"], "--batch: came as 99999999999999; want at most 65,536"),
        (["--rate", "nan"], "--rate: came as nan; want a number above 0"),
        (["--lora", "-1"], "--lora: came as -1; want 0 or more"),
        (["--held-out", "5"], "came as 5 of 5 examples"),
        (["--precision", "bf16-hf-eager"], "rounding has no gradient"),
        (["--adapter", "nowhere"], "nowhere: is no folder"),
        (["--adapter", "nowhere", "--lora", "2"], "--adapter changes the base that a new adapter would belong to"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(capsys, tmp_path, words, said):
    code, out, err = run(capsys, write_lessons(tmp_path), "-o", tmp_path / "learnt", *words)
    assert code == 1 and not out and said in err
    assert not list(tmp_path.glob("learnt/*"))


def test_bad_data_is_named_before_anything_is_computed(capsys, tmp_path):
    data = write_lessons(tmp_path, [ROWS[0], {"image": "none.png", "prefix": "x", "suffix": "y"}])
    code, _, err = run(capsys, data, "-o", tmp_path / "learnt")
    assert code == 1 and "1 of 2 lines are bad; line 2: " in err and not (tmp_path / "learnt").exists()


def test_the_base_models_folder_is_never_the_target(capsys, tmp_path):
    code, _, err = run(capsys, write_lessons(tmp_path), "-o", TINY)
    assert code == 1 and "is the folder of the base model, which would be lost" in err
