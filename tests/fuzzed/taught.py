"""What fine-tuning reads and leaves, mask codecs, and answers to be scored."""

import io
import json
import math
import tempfile
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
from fuzzed.target import Target
from generation_models import wordy_model
from made_checkpoints import file_bytes, header_of
from PIL import Image
from random_codecs import codec_inputs

from npgemma.checkpoints import adapter
from npgemma.learn import finetune, lora
from npgemma.learn.data import read_examples
from npgemma.learn.optimisers import Learner
from npgemma.places import codec_file, evaluate
from npgemma.verbs.evaluate import read_answers

RANK, MARK = 2, "0123456789ab"


# --- adapters, and the state of a run --------------------------------------------------------------------------------


@cache
def factors():
    """An adapter of a few matrices."""
    names = lora.adapted_names(wordy_model().config, "text.blocks.0.attn.*")
    return lora.new_factors(wordy_model().config, names, RANK, np.random.default_rng(0))


def write_adapter(folder):
    model = wordy_model()
    mark = adapter.fingerprint(model.weights.arrays)
    adapter.write_adapter(folder, model.config, factors(), RANK, 4.0, "base", mark)


def adapter_file(name):
    def examples():
        with tempfile.TemporaryDirectory() as folder:
            write_adapter(Path(folder))
            return [(Path(folder) / name).read_bytes()]

    def run(folder, data):
        (folder / name).write_bytes(data)
        model = wordy_model()
        found, scale = adapter.read_adapter(folder, model.config, model.weights.arrays)
        assert math.isfinite(scale) and all(np.isfinite(factor).all() for factor in found.values())

    return examples, run


def states():
    weights = {f"weight/{name}": ("F32", array) for name, array in factors().items()}
    memory = {f"memory/{name}/mean": ("F32", array) for name, array in factors().items()}
    memory |= {f"memory/{name}/square": ("F32", np.square(array)) for name, array in factors().items()}
    header = header_of(weights | memory) | {"__metadata__": {"step": "3", "run": MARK}}
    return [file_bytes(weights | memory, header)]


def run_state(folder, data):
    (folder / "state.safetensors").write_bytes(data)
    learner = finetune.resume(folder / "state.safetensors", Learner(dict(factors())), MARK, np.asarray)
    assert learner.step >= 0
    learner.learn({name: np.ones_like(array) for name, array in factors().items()}, 1e-3)
    assert {name: array.shape for name, array in learner.weights.items()} == {
        name: array.shape for name, array in factors().items()
    }


LESSONS = (
    {"image": "a.png", "prefix": "caption en", "suffix": "a cat"},
    {"image": "a.png", "prefix": "detect cat", "suffix": "<loc0001><loc0002><loc0003><loc0004> cat"},
)


def lessons():
    return [b"".join(json.dumps(line).encode() + b"\n" for line in LESSONS)]


def write_picture(folder):
    Image.new("RGB", (3, 4)).save(folder / "a.png")


def run_lessons(folder, data):
    (folder / "data.jsonl").write_bytes(data)
    assert read_examples(folder / "data.jsonl", wordy_model())


# --- mask codecs -----------------------------------------------------------------------------------------------------


@cache
def small_codec():
    """A codec whose widths are small: the released one has 8.5 MB, which takes longer to write than to check."""
    return {name: array.astype(np.float32) for name, array in codec_inputs.make_weights("awkward").items()}


def codec_archives():
    file = io.BytesIO()
    np.savez(file, **small_codec())
    return [file.getvalue()]


def codecs():
    return [file_bytes({name: ("F32", array) for name, array in small_codec().items()})]


def codec_of(name):
    def run(folder, data):
        (folder / name).write_bytes(data)
        with mock.patch.dict(codec_file.RELEASED, {"e0": 1}, clear=True):
            codec = codec_file.read_codec(folder / name)
        assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in codec.arrays.values())

    return run


# --- answers that are scored -----------------------------------------------------------------------------------------

SCORED = (
    {"question": {"answer": "4"}, "text": "4"}, {"text": "cat", "answers": ["cat"] * 10},
    {"text": "a cat on a mat", "captions": ["a cat", "a mat"]}, {"error": "no", "question": {"answer": "4"}},
    {"text": "<loc0000><loc0000><loc1023><loc1023> cat", "size": [3, 2],
     "objects": [{"label": "cat", "box": [0, 0, 3, 2], "mask": {"size": [2, 3], "counts": [0, 6]}, "crowd": False}]},
    {"text": "", "boxes": [{"label": "cat", "box": [0, 0, 1, 1.5], "confidence": 0.5}], "objects": [
        {"label": "cat", "box": [0, 0, 1, 2]}, {"label": "dog", "box": [0, 0, 1, 2], "crowd": True}], "size": [3, 2]},
)  # fmt: skip


def scored():
    return [b"".join(json.dumps(line).encode() + b"\n" for line in SCORED)]


def run_scored(folder, data):
    (folder / "answers.jsonl").write_bytes(data)
    found = evaluate.evaluate(answers := read_answers(str(folder / "answers.jsonl")))
    assert found and all(math.isfinite(score) for name, score in found.items() if not name.startswith("detection"))
    evaluate.confidence_table(answers)


TARGETS = {
    "adapter_settings": Target(*adapter_file("adapter_config.json"), "json", write_adapter),
    "adapters": Target(*adapter_file("adapter_model.safetensors"), "safetensors", write_adapter),
    "states": Target(states, run_state, "safetensors"),
    "lessons": Target(lessons, run_lessons, "lines", write_picture),
    "codec_archives": Target(codec_archives, codec_of("vae-oid.npz"), "archive"),
    "codecs": Target(codecs, codec_of("codec.safetensors"), "safetensors"),
    "scored": Target(scored, run_scored, "lines"),
}
