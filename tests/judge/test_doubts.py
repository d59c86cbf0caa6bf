"""What is said before anything is judged: other numbers, other pictures, other prompts, no weights."""

import numpy as np
import pytest
import random_models

from npgemma.base.precision import round_bf16
from npgemma.judge import goldens, report
from npgemma.judge.doubts import type_of
from npgemma.judge.read_run import open_run
from npgemma.judge.theirs import open_theirs
from npgemma.tracing.trace import trace_forward


@pytest.fixture(scope="module")
def asked():
    """A small model, and a question to it."""
    model = random_models.random_model(random_models.PALIGEMMA_2, "float32")
    return model, random_models.random_prompt(model.config, num_rows=1, num_suffix=0)


@pytest.fixture(scope="module")
def traces(asked, tmp_path_factory):
    """Files of npgemma trace, by precision."""
    folder = tmp_path_factory.mktemp("traces")
    paths = {each: folder / f"{each}.safetensors" for each in ("float32", "bf16-hf-eager")}
    for precision, path in paths.items():
        trace_forward(asked[0], **asked[1], precision=precision, out=path)
    return paths


def screen(theirs, ours, model=None):
    """What is shown of a comparison of two files, and its rows."""
    found = goldens.compare_with_run(open_run(ours), model, open_theirs(theirs), {}, False)
    return report.text(found, found.cfg, found.call), found


@pytest.mark.parametrize("mine", ["float32", "bf16-hf-eager"])
def test_numbers_of_another_type_are_said_first(traces, mine):
    other = next(each for each in traces if each != mine)
    said = screen(traces[mine], traces[other])[0].splitlines()
    assert said[0].startswith("first of all: their numbers are " + {"float32": "float32, these are bfloat16"}.get(
        mine, "bfloat16, these are float32"))  # fmt: skip
    assert f"--recipe {mine}" in said[0]
    assert "first of all" not in screen(traces[mine], traces[mine])[0]


def test_wide_numbers_where_narrow_ones_belong_are_the_cause_itself(asked, traces):
    """Not a resize of another program, which would lie as near."""
    _, found = screen(traces["float32"], traces["bf16-hf-eager"], asked[0])
    assert found.first.name == "pixels" and [cause.name for cause in found.first.causes] == ["store-unrounded"]


def test_another_picture_and_another_prompt_are_said_first(asked, traces, tmp_path):
    model, prompt = asked
    ids = prompt["ids"].copy()
    ids[0, -1] += 1
    trace_forward(model, **prompt | {"pixels": -prompt["pixels"], "ids": ids}, out=tmp_path / "a.safetensors")
    said = screen(tmp_path / "a.safetensors", traces["float32"])[0]
    first, second, *_ = said.splitlines()
    assert first == f"first of all: the prompts differ (ids: {ids[0, -1]} at [0, {ids.shape[1] - 1}], here " \
        f"{ids[0, -1] - 1}): ask both the same, or hold the tokenizers against each other first"
    assert second.startswith("first of all: the pictures differ, by 200%")
    assert "cause: another picture" in said


def test_without_weights_no_cause_is_called_unknown(traces, tmp_path):
    with np.errstate(all="ignore"):
        arrays = {name: read() for name, read in open_theirs(traces["float32"]).readers.items()}
    arrays["vision.norm"] = arrays["vision.norm"] * np.float32(2)
    np.savez(tmp_path / "a.npz", **arrays)
    said = screen(tmp_path / "a.npz", traces["float32"])[0]
    assert "FIRST BAD" in said and "unknown" not in said
    assert "cause: not looked for: known faults are tried on the model's weights; name it by --model FOLDER" in said


def test_columns_and_what_passes_are_explained(asked, traces):
    """A run against a run has a relative error; of float32 up to 1e-05 passes, of bfloat16 1/16."""
    for precision, bound in (("float32", "1e-05"), ("bf16-hf-eager", "0.0625")):
        said = screen(traces[precision], traces[precision])[0]
        assert f"error: relative, between the two runs ({precision}); up to {bound} passes" in said
        assert "alone: empty, since the weights are not here (--model FOLDER)" in said
    with_weights = screen(traces["float32"], traces["float32"], asked[0])[0]
    assert "alone: of the operation made again on their own inputs" in with_weights


def test_the_type_of_numbers_is_what_they_hold_and_not_what_they_lie_in():
    third = np.array([1.0, 1 / 3])
    assert [type_of(each) for each in (third, third.astype(np.float32), third.astype(np.float16))] == [
        "float64", "float32", "float16"]  # fmt: skip
    assert type_of(round_bf16(third.astype(np.float32)).astype(np.float64)) == "bfloat16"
    assert type_of(third.astype(np.float32).astype(np.float64)) == "float32"
