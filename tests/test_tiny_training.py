"""Training the model in the box: without PyTorch, resumed to the same bits, its hand-written gradients right."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
from differences import central

from npgemma import load_codec
from npgemma.base.precision import PRECISIONS
from npgemma.base.weights import Weights
from npgemma.checkpoints.loading import TINY
from npgemma.files.safetensors_file import open_safetensors
from npgemma.paligemma import Model

TOOLS = Path(__file__).parent.parent / "tools" / "tiny"
NAMES = ["text.embedded.weight", "waves.weight", "lessons.patch.weight", "lessons.counts.weight", "vision.norm.bias",
         "vision.blocks.2.mlp.up.weight", "text.blocks.1.attn.q.weight"]


@pytest.fixture(scope="module")
def tools():
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(TOOLS))
    yield {name: importlib.import_module(name) for name in ("train", "fresh", "patches", "batches", "drawn_world")}
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(TOOLS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_gradients_of_answers_lessons_and_waves_equal_finite_differences(tools, monkeypatch):
    train, fresh = tools["train"], tools["fresh"]
    cfg, tokenizer = train.architecture(), tools["batches"].load_tokenizer(TINY / "tokenizer.model")
    weights = fresh.fresh_weights(cfg, 0) | tools["patches"].fresh_heads(cfg.vision.width, 0)
    weights = {name: array.astype(np.float64) for name, array in weights.items()}
    monkeypatch.setattr(train, "model_of", lambda cfg, weights: Model(
        cfg, Weights(fresh.with_waves(weights), PRECISIONS["float64"])))
    batch = tools["batches"].make_batch(3000, 6000, 3, 0, 1, tokenizer, load_codec())
    sums, _, _ = train.teach(weights, cfg, batch, 0.3)
    assert set(sums) == set(weights)
    # One direction through all of them at once: a wrong gradient of any shows in the slope.
    rng, direction = np.random.default_rng(0), {}
    for name in NAMES:
        random = rng.normal(size=weights[name].shape)
        direction[name] = random / np.linalg.norm(random)

    # The loss alone: nothing is gone back through.
    monkeypatch.setattr(train.teaching.backward, "read", lambda d_norm, tape, cfg, soft: np.zeros_like(soft))
    monkeypatch.setattr(train.teaching, "see_back", lambda *rest: None)

    def loss(step):
        moved = {name: weights[name] + step * direction[name] for name in NAMES}
        _, answers, lessons = train.teach(weights | moved, cfg, batch, 0.3)
        return answers + 0.3 * lessons

    slope = sum(np.sum(sums[name] * direction[name]) for name in NAMES)
    assert slope == pytest.approx(central(loss, 1e-4), rel=1e-6, abs=1e-10)


def test_no_answer_is_cut_and_every_task_is_asked(tools):
    batches, codec = tools["batches"], load_codec()
    tokenizer = batches.load_tokenizer(TINY / "tokenizer.model")
    asked, longest = set(), 0
    assert [tokenizer.id_to_piece(batches.MASKS[place]) for place in (0, -1)] == ["<seg000>", "<seg127>"]
    for step in range(4):
        batch = batches.make_batch(5000 + step, 6000, 6, 0, 1, tokenizer, codec)
        assert batch["pixels"].shape == (6, 64, 64, 3)
        for lot in batch["lots"]:
            ends = (lot["ids"] == batches.EOS).sum(1)
            assert (ends == 1).all() and (lot["labels"].max(1) > 0).all()
            for ids, prefix in zip(lot["ids"], lot["prefix"], strict=True):
                asked.add((tokenizer.decode(ids[1:prefix].tolist()).split() or [""])[0])
            longest = max(longest, lot["ids"].shape[1])
    assert asked >= {"caption", "answer", "detect", "segment", "ocr"} and longest > 50


def test_patches_are_told_what_lies_in_them(tools):
    drawn, batches = tools["drawn_world"], tools["batches"]
    for seed in range(20):
        drawing = drawn.make_drawing(drawn.HELD_OUT + seed)
        seen = batches.look(drawing)
        inside = seen["inside"].reshape(8, 8, 8, 8).transpose(0, 2, 1, 3).reshape(64, 64)
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        left, top, right, bottom = np.array([shape.box for shape in drawing.scene.shapes]).T / np.array(
            [drawing.size * 2]).T * 64
        came = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        assert np.abs(np.array(came) - (left.min(), top.min(), right.max(), bottom.max())).max() <= 2
        for patch in np.flatnonzero(seen["kind"] >= 0):
            middle = (np.array([patch % 8, patch // 8] * 2) + 0.5) / 8
            box = drawing.scene.shapes[seen["rank"][patch]].box
            assert np.allclose((seen["box"][patch] + middle) * (drawing.size * 2), box, atol=1e-3)


def test_a_run_in_two_parts_ends_with_the_same_bits(tools, tmp_path, monkeypatch):
    train = tools["train"]
    words = ["--steps", "2", "--batch", "2", "--parts", "2", "--judged", "1", "--save-every"]
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokenizer.model").write_bytes((TINY / "tokenizer.model").read_bytes())
    run(train, monkeypatch, [tmp_path / "whole", *words, "2"])
    monkeypatch.setattr(train, "evaluate", lambda *rest: {})  # judging changes no weight
    right = train.take_step

    def killed(learner, *rest):
        if learner.step == 1:
            raise KeyboardInterrupt
        return right(learner, *rest)

    monkeypatch.setattr(train, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(train, monkeypatch, [tmp_path / "parts", *words, "1"])
    monkeypatch.setattr(train, "take_step", right)
    run(train, monkeypatch, [tmp_path / "parts", *words, "1"])
    whole, parts = (open_safetensors(tmp_path / name / train.STATE) for name in ("whole", "parts"))
    assert whole.metadata == parts.metadata == {"step": "2"}
    assert all(np.array_equal(whole.array(name), parts.array(name)) for name in whole.tensors)


def run(train, monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
    train.main()


def test_no_pytorch_and_no_second_model_trains_the_box():
    for name in ("train", "fresh", "patches", "batches", "drawn_world", "drawn_questions", "folder", "lesson",
                 "check_lesson"):
        source = (TOOLS / f"{name}.py").read_text()
        assert "torch" not in source and "transformers import" not in source, name
    assert not (TOOLS / "model.py").exists()
