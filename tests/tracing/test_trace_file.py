"""A trace on disk: other readers read it, interruptions leave nothing, targets that cannot be written are refused."""

import collections
import json
import re
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from random_models import GENERATIONS, random_model, random_prompt
from safetensors import safe_open

from npgemma.base.errors import CheckpointError, OutputError
from npgemma.files import writer
from npgemma.files.safetensors_file import open_safetensors
from npgemma.tracing import trace_file
from npgemma.tracing.plan import given, plan
from npgemma.tracing.trace import file_size, read, run_to_file, trace_forward

ROOT = Path(__file__).parents[2]
CFG = GENERATIONS["paligemma-1"]


@pytest.fixture(scope="module")
def model():
    return random_model(CFG, "float32")


def planned(model, **chosen):
    prompt = random_prompt(CFG)
    return plan(model, given(CFG, **prompt), **chosen)


def test_the_safetensors_library_reads_it_with_its_manifest(model, tmp_path):
    path = tmp_path / "a.safetensors"
    kept = trace_forward(model, **random_prompt(CFG))
    run_to_file(planned(model), path)
    with safe_open(path, "np") as file:
        assert set(file.keys()) == set(kept)
        assert all(np.array_equal(file.get_tensor(name), kept[name]) for name in kept)
        metadata = file.metadata()
    assert metadata["format"] == "npgemma.trace"
    assert metadata["precision"] == "float32"
    assert json.loads(metadata["axes"])["text.blocks.0.attn.probs"] == "B K G T S"


def test_the_files_size_is_known_to_the_byte(model, tmp_path):
    job = planned(model, only="text.*", rows="0,-1")
    run_to_file(job, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size == file_size(job)


def test_an_answer_that_ends_early_makes_a_smaller_file_that_is_whole(tmp_path):
    model = random_model(GENERATIONS["paligemma-2"], "float32")
    logits = np.full((1, 1, 43), -1.0, dtype=np.float32)
    logits[0, 0, 1] = 1.0  # the first token is the end

    def end_at_once(name, x):
        return logits if name == "text.logits" else None

    question = given(GENERATIONS["paligemma-2"], [[2, 5, 6]])
    job = plan(model, question, only="*.logits", max_new_tokens=4, observe=end_at_once)
    run_to_file(job, tmp_path / "a.safetensors")
    kept = read(tmp_path / "a.safetensors")
    assert list(kept) == ["text.logits"]
    assert kept.manifest["answer"] == [1]
    assert kept.manifest["changed"] == ["text.logits"]


def test_a_run_that_was_not_plain_says_so(model, tmp_path):
    job = planned(model, observe=lambda name, x: x * 0 if name == "text.blocks.0.attn.out" else None)
    run_to_file(job, tmp_path / "a.safetensors")
    manifest = read(tmp_path / "a.safetensors").manifest
    assert manifest["run"].startswith("changed")
    assert manifest["changed"] == ["text.blocks.0.attn.out"]


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError, BrokenPipeError])
def test_an_interruption_leaves_nothing(model, tmp_path, problem):
    def interrupt(name, array):
        if name == "text.blocks.1.attn.q":
            raise problem

    with pytest.raises(problem):
        run_to_file(planned(model), tmp_path / "a.safetensors", tell=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_before_the_end_looks_like_no_file_of_weights(model, tmp_path):
    seen = []

    def look(name, array):
        [partial] = tmp_path.iterdir()
        seen.append((partial.name, partial.read_bytes()[:16]))

    run_to_file(planned(model, only="text.norm,text.logits"), tmp_path / "a.safetensors", tell=look)
    assert all(name.startswith(".a.safetensors.") and name.endswith(".partial") for name, _ in seen)
    assert all(head in (b"", bytes(16)) for _, head in seen)


def test_a_killed_run_leaves_nothing_under_the_files_name(tmp_path):
    code = f"""
import os, sys
sys.path[:0] = ["tests"]
from pathlib import Path
from random_models import GENERATIONS, random_model, random_prompt
from npgemma.tracing.plan import given, plan
from npgemma.tracing.trace import run_to_file
cfg = GENERATIONS["paligemma-1"]
job = plan(random_model(cfg, "float32"), given(cfg, **random_prompt(cfg)))
tell = lambda name, x: name == "text.norm" and os.kill(os.getpid(), 9)
run_to_file(job, Path({str(tmp_path)!r}) / "a.safetensors", tell=tell)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    [left] = tmp_path.iterdir()
    with pytest.raises(CheckpointError):
        open_safetensors(left)


def test_a_file_that_exists_is_not_written_over(model, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a.safetensors: exists already; choose another name"):
        run_to_file(planned(model), path)
    assert path.read_bytes() == b"mine"


def test_a_file_that_appears_meanwhile_is_not_written_over(model, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(OutputError, match="exists already; choose another name, or force=True"):
        run_to_file(planned(model), path, tell=lambda name, array: path.write_bytes(b"theirs"))
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(model, tmp_path):
    with pytest.raises(OutputError, match="there is no folder .*nowhere; make it first"):
        run_to_file(planned(model), tmp_path / "nowhere" / "a.safetensors")


def test_too_little_room_is_said_before_anything_runs(model, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")(10, 5, 5)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutputError, match=r"needs [\d.]+ kB, 5 B are free there"):
        run_to_file(planned(model), tmp_path / "a.safetensors")


def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(model, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="a.safetensors: cannot be written: File too large"):
            run_to_file(planned(model), tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_writing_needs_no_second_copy_of_what_is_written(model, tmp_path):
    # 64 rows of 4 + 23 + 2 positions: a trace of 17 MB, whose largest tensor has 1 MB.
    prompt = random_prompt(CFG, num_rows=64, num_text=23)
    job = plan(model, given(CFG, **prompt))

    def peak(run):
        tracemalloc.start()
        run()
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    from npgemma import forward

    plain = peak(lambda: forward(model, **prompt))
    streamed = peak(lambda: run_to_file(job, tmp_path / "a.safetensors"))
    assert job.nbytes > 5e6
    assert streamed < plain + 0.2 * job.nbytes


def test_a_trace_of_the_first_format_is_read(tmp_path, model):
    """It knows neither `token_types` nor `attention_mask`, and all else is as it is now."""
    from safetensors.numpy import save_file

    now = trace_forward(model, [[2, 5, 6]], out=tmp_path / "now.safetensors")
    first = {name: array for name, array in now.items() if name not in ("token_types", "attention_mask")}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in now.manifest.items()}
    save_file({name: np.array(array) for name, array in first.items()}, tmp_path / "1", texts | {"version": "[1, 0]"})
    then = read(tmp_path / "1")
    assert set(then) == set(first) and all(np.array_equal(then[name], array) for name, array in first.items())


def test_a_file_that_is_no_trace_is_refused(tmp_path, model):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3, dtype=np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="is no npgemma trace"):
        read(tmp_path / "x.safetensors")
    later = {"format": "npgemma.trace", "version": "[3, 0]"}
    save_file({"x": np.zeros(3, np.float32)}, tmp_path / "y.safetensors", later)
    with pytest.raises(CheckpointError, match=r"is a trace of format \[3, 0\]; this npgemma reads 1.x and 2.x"):
        read(tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    "change, message",
    (
        ({"axes": None}, "its metadata say nothing of axes"),
        ({"run": None, "precision": None}, "its metadata say nothing of precision, run"),
        ({"axes": "{}"}, "its metadata do not say the axes of each tensor"),
        ({"axes": "[]"}, "its metadata do not say the axes of each tensor"),
        ({"axes": '{"text.norm": 3}'}, "its metadata do not say the axes of each tensor"),
        ({"axes": '{"a": 1, "a": 2}'}, "the key 'a' occurs twice"),
        ({"ids": "[["}, "'ids': not JSON"),
        ({"version": "3"}, "is a trace of format 3; this npgemma reads"),
        ({"version": None}, "is a trace of format None"),
        ({"format": None}, "is no npgemma trace: its metadata name the format None"),
    ),
)
def test_damaged_metadata_are_refused_by_name(model, tmp_path, change, message):
    from safetensors.numpy import load_file, save_file

    run_to_file(planned(model, only="text.norm"), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "np") as file:
        metadata = {name: value for name, value in (file.metadata() | change).items() if value is not None}
    save_file(load_file(tmp_path / "a.safetensors"), tmp_path / "b.safetensors", metadata)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        read(tmp_path / "b.safetensors")


def test_tensors_of_a_dtype_that_no_trace_has_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3, np.uint8)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="'x' has dtype U8; supported: F64"):
        trace_file.read_tensors(open_safetensors(tmp_path / "x.safetensors"))


def test_a_header_that_outgrows_its_place_is_no_file(tmp_path):
    with pytest.raises(OutputError, match="bytes were kept free|were kept free; report this"):
        with trace_file.writing(tmp_path / "a", {}, {}, 0) as file:
            file.finish({"format": "x" * 5000})
    assert list(tmp_path.iterdir()) == []
