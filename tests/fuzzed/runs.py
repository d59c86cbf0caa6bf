"""What goes into a run and comes out of it: traces, replacements, questions, answers."""

import io
import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from fuzzed.target import Target
from generation_models import wordy_model
from made_checkpoints import file_bytes
from PIL import Image
from random_models import GENERATIONS, random_model

from npgemma.base.errors import NpgemmaError
from npgemma.files.writer import growing
from npgemma.generation.requests import prepare
from npgemma.tracing.plan import given, plan
from npgemma.tracing.replacing import check_replacements, read_replacements
from npgemma.tracing.trace import read, run_to_file
from npgemma.verbs import batch_file

NAME = "text.blocks.1.attn.out"


@cache
def traces():
    cfg = GENERATIONS["paligemma-2"]
    model = random_model(cfg, "float32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.safetensors"
        run_to_file(plan(model, given(cfg, [[2, 5, 6]]), only="ids,text.norm,mask.*"), path)
        return [path.read_bytes()]


def run_trace(folder, data):
    (folder / "trace.safetensors").write_bytes(data)
    kept = read(folder / "trace.safetensors")
    assert repr(kept) and all(not kept[name].flags.writeable for name in kept)


def replacements():
    array = np.arange(30, dtype=np.float32).reshape(1, 3, 10)
    made = [file_bytes({NAME: ("F32", array)}), file_bytes({"x": ("F32", array), NAME: ("F32", array + 1)})]
    stream = io.BytesIO()
    np.save(stream, array)
    return [*made, stream.getvalue()]


def run_replacement(folder, data):
    (folder / "theirs").write_bytes(data)
    cfg = GENERATIONS["paligemma-2"]
    arrays = read_replacements([f"{NAME}={folder / 'theirs'}"])
    check_replacements(arrays, plan(small_model(), given(cfg, [[2, 5, 6]])).everything, np.float32)
    assert arrays[NAME].shape == (1, 3, 10) and arrays[NAME].dtype == np.float32


@cache
def small_model():
    return random_model(GENERATIONS["paligemma-2"], "float32")


QUESTIONS = (
    {"image": "a.png", "prompt": "caption en", "id": 1}, {"prompt": "detect cat"}, {"ids": [2, 30, 40]},
    {"image": ["a.png"], "prompt": "x", "more": {"a": [1, None, 2.5, True]}},
)
MARK = "0123456789ab"


def write_picture(folder):
    Image.new("RGB", (3, 4)).save(folder / "a.png")


def run_batch(folder, data):
    (folder / "q.jsonl").write_bytes(data.replace(b"a.png", str(folder / "a.png").encode()))
    model = wordy_model()
    for question in batch_file.read_questions(str(folder / "q.jsonl"), "refuse"):
        if question.request is not None:
            try:
                prepare(model, question.request)
            except NpgemmaError:
                pass
        batch_file.as_line({"question": question.fields, "error": question.error})


def batches():
    return [b"".join(json.dumps(each).encode() + b"\n" for each in QUESTIONS)]


def run_answers(folder, data):
    """Read answers that are there already: what is refused stays as it is, byte for byte."""
    path, questions = folder / "answers.jsonl", asked()
    path.write_bytes(data)
    try:
        with growing(path) as lines:
            found = batch_file.finished_lines(lines, questions, MARK)
            for line in found:
                batch_file.as_line(line)
    except NpgemmaError:
        assert path.read_bytes() == data
        raise
    if data:
        kept = path.read_bytes()
        assert data.startswith(kept) and data[len(kept) :].count(b"\n") == 0 and len(found) == kept.count(b"\n")


@cache
def asked():
    lines = batches()[0].splitlines()
    return [batch_file.read_question(number, line, "refuse") for number, line in enumerate(lines, start=1)]


def answers():
    lines = [
        {"run": MARK, "line": question.line, "question": question.fields, "text": "é", "ids": [1], "logprobs": [-0.5]}
        for question in asked()
    ]
    return [b"".join(map(batch_file.as_line, lines)), batch_file.as_line({"run": MARK, "line": 1, "error": "no"})]


TARGETS = {
    "traces": Target(traces, run_trace, "safetensors"),
    "replacements": Target(replacements, run_replacement, "safetensors"),
    "batches": Target(batches, run_batch, "lines", write_picture),
    "answers": Target(answers, run_answers, "lines"),
}
