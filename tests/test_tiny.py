"""The model in the box: what it is, and that npgemma answers with it as transformers does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import golden
from npgemma import forward, generate, load
from npgemma.base.tensors import schema
from npgemma.base.weights import Weights
from npgemma.checkpoints.loading import TINY
from npgemma.config import VARIANTS
from npgemma.generation.generate import generate_batch
from npgemma.generation.requests import Request

BOX = golden.GOLDEN / "tiny-box"
ANSWERS = json.loads((BOX / "answers.json").read_text())["answers"]
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def model():
    return load()


@pytest.fixture(scope="module")
def tensors():
    return golden.read("tiny-box/trace")


def test_the_box_is_small():
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) <= 10 * MEGABYTE
    assert sum(path.stat().st_size for path in BOX.rglob("*") if path.is_file()) <= 3 * MEGABYTE


def test_the_repr_of_the_model_of_its_tokenizer_and_of_an_answer_fit_a_screen(model):
    largest = VARIANTS["paligemma2-28b-896"]
    arrays = {name: np.broadcast_to(np.float32(0), weight.shape) for name, weight in schema(largest).items()}
    answer = generate(model, prompt="caption en", max_new_tokens=2)
    large = replace(model, config=largest, weights=Weights(arrays))
    for each in (model, large, model.tokenizer, model.tokenizer.vocabulary, answer):
        assert len(repr(each)) < 2000 and len(repr(each).splitlines()) <= 24, repr(each)
    assert "1,792 pieces" in repr(model) and "text 4 blocks of 128" in repr(model) and "blocks x 5" in repr(model)
    assert "prompt_ids" not in repr(answer) and "ids=(" in repr(answer)


def test_it_is_paligemma_2_in_small(model):
    text = model.config.text
    assert text.num_kv_heads >= 2 and text.num_heads // text.num_kv_heads >= 2
    assert text.attn_softcap and text.final_softcap and text.post_norms
    prompt = 64 + len(model.tokenizer.encode("caption en"))
    assert text.sliding_window <= prompt, "the window would never bite"


def test_the_folder_holds_all_that_other_programs_look_for():
    names = {path.name for path in TINY.iterdir()}
    assert names >= {
        *("config.json", "model.safetensors", "tokenizer.model", "tokenizer.json", "tokenizer_config.json"),
        *("preprocessor_config.json", "generation_config.json", "README.md", "pictures"),
    }


def test_fifty_answers_are_those_of_transformers(model):
    requests = [Request(BOX / "pictures" / one["picture"], one["prompt"]) for one in ANSWERS]
    answers = generate_batch(model, requests, max_new_tokens=64)
    assert len(answers) == 50
    for ours, theirs in zip(answers, ANSWERS, strict=True):
        assert (ours.text, list(ours.ids)) == (theirs["answer"], theirs["ids"]), theirs["prompt"]


def test_it_was_really_trained():
    # Not a figure of quality (tools/tiny/evaluate.py gives those): a random model has none of them right.
    exact = [one["answer"] == one["true"] for one in ANSWERS if not one["prompt"].startswith("detect")]
    assert np.mean(exact) > 0.8


@pytest.mark.parametrize("prompt", ["caption", "detect", "ocr"])
def test_blocks_and_logits_are_those_of_transformers(prompt, model, tensors):
    expected = golden.below(tensors, prompt)
    rows = expected["text.logits"].shape[1]
    seen = {}

    def observe(name, array):
        seen[name] = array

    ids, types = expected.pop("ids"), expected.pop("token_types")
    pixels = expected.pop("pixels")
    forward(model, ids, pixels=pixels, token_types=types, observe=observe)
    for name, array in expected.items():
        ours = seen[name][:, -rows:] if name == "text.logits" else seen[name]
        assert ours.shape == array.shape, name
        assert np.linalg.norm(ours - array) <= 1e-5 * np.linalg.norm(array), name
        assert np.abs(ours - array).max() <= 1e-5 * np.abs(array).max(), name


def test_the_first_picture_in_the_box_is_read_and_seen_rightly(model):
    picture = TINY / "pictures" / "1-word.png"
    assert generate(model, picture, "ocr").text == "MUZ"
    assert generate(model, picture, "answer en what color is the circle?").text == "green"


def test_the_command_without_arguments_answers_about_a_picture_in_the_box():
    run = subprocess.run([sys.executable, "-m", "npgemma", "generate"], cwd=Path(__file__).parent.parent,
                         capture_output=True, text=True, check=True)
    assert run.stdout == "a small white cross, a large purple triangle and a large green circle\n"
    assert run.stderr.count("tiny model in the box") == 1
