"""Every known fault, at both generations and in two recipes: caught, located, named; and what cannot be seen, why."""

import collections
import os
import subprocess
import sys

import numpy as np
import ports
import pytest
import test_faults

import golden
from npgemma import load, ops
from npgemma.base import half, products, threads
from npgemma.judge import accumulators, diagnose
from npgemma.judge.fault_list import FAULTS, VARIANTS
from npgemma.judge.read_run import open_run
from npgemma.judge.rerun import Rerun
from npgemma.tracing.trace_file import read_tensors

PICTURE = golden.ROOT / "npgemma" / "tiny" / "pictures" / "2-overlap.png"

# Faults of one kind lead to one result where the right epsilon is 0.1, and none can tell them apart.
ALIKE_AT_MOST = 4

# Why a fault may change nothing, by the beginning of its name; the models are those of the goldens.
INVISIBLE = {
    "window-": "no block of PaliGemma 1 has a window",
    "soft-cap-": "PaliGemma 1 has no caps",
    "tanh-without-the-cap": "PaliGemma 1 has no caps",
    "final-cap-": "PaliGemma 1 has no caps",
    "attn-post-norm-": "PaliGemma 1 has no norms behind its branches",
    "mlp-post-norm-": "PaliGemma 1 has no norms behind its branches",
    "k-and-g-swapped": "with one key/value head, K = 1, there is nothing to swap",
    "scale-of-the-head-size": "query_pre_attn_scalar is the head size in PaliGemma 1",
    "rope-theta-10000": "that is the right base",
    "scale-of-width-over-heads": "in tiny-2 that is query_pre_attn_scalar",
    "rotation-rounded-": "that is right in this recipe",
    "rotation-by-bf16-tables": "that is right in this recipe",
    "scores-rounded-": "that is right in this recipe",
    "step-": "a prompt has no steps; see test_steps.py",
    "cache-": "a prompt remembers nothing; see test_steps.py",
    "resize-": "no picture is at hand; see test_resizing.py",
    "weights-in-bf16": "bfloat16 recipes have them so",
    "products-in-bf16": "bfloat16 recipes have them so",
    "weights-in-float16": "bfloat16 values of these sizes are float16 values too",
    "products-in-tf32": "bfloat16 values are TF32 values",
}

# What changes bits and is right all the same: sqrt(D) in float64 moves the last bit of a float32 product, as another
# correct order of roundings does.
WITHIN_BOUNDS = {"float32": ["embedding-scale-unrounded"]}


def tried(model, recipe):
    """What became of each fault: (fault, outcome, the tensor, the causes that were named)."""
    for fault in FAULTS.values():
        try:
            wanted, tensors = ports.with_fault(model, recipe, fault)
        except diagnose.NOT_POSSIBLE:
            yield fault, "not possible", None, []
            continue
        if wanted is None:
            yield fault, "invisible", None, []
            continue
        again = ports.rerun(model, recipe, tensors)
        found = ports.judge(again, wanted, tensors[wanted])
        if found.verdict.passed:
            yield fault, "missed", wanted, []
            continue
        causes = diagnose.causes(again, wanted, tensors[wanted], found.real)
        yield fault, "caught", wanted, [cause.name for cause in causes]


@pytest.mark.parametrize("recipe", ["float32", "bf16-hf-eager"])
@pytest.mark.parametrize("model", golden.MODELS)
def test_faults_are_caught_located_and_named(model, recipe):
    """The tensors before a fault's own are those of the port without a fault, which passes whole: see the next test."""
    rows = list(tried(model, recipe))
    count = collections.Counter(outcome for _, outcome, _, _ in rows)
    caught = [(fault, names) for fault, outcome, _, names in rows if outcome == "caught"]
    named = [fault.name for fault, names in caught if fault.name in names]
    unknown = [fault.name for fault, names in caught if not names]
    wrong = [(fault.name, names) for fault, names in caught if names and fault.name not in names]
    print(
        f"\n{model} {recipe}: {len(caught)} caught, {count['missed']} missed, {len(named)} named, {len(unknown)}"
        f" unknown, {len(wrong)} wrong; {count['invisible']} invisible, {count['not possible']} not possible"
    )
    missed = [fault.name for fault, outcome, _, _ in rows if outcome == "missed"]
    assert missed == WITHIN_BOUNDS.get(recipe, []), missed
    assert len(caught) >= 100
    assert len(named) >= 0.95 * len(caught), unknown
    assert wrong == []
    assert max(len(names) for _, names in caught) <= ALIKE_AT_MOST
    invisible = [fault.name for fault, outcome, _, _ in rows if outcome == "invisible"]
    assert [name for name in invisible if not name.startswith(tuple(INVISIBLE))] == []


@pytest.mark.parametrize("recipe", ports.RECIPES)
@pytest.mark.parametrize("model", golden.MODELS)
def test_a_port_without_a_fault_passes_whole(model, recipe):
    assert ports.first_wrong(model, recipe, ports.right(model, recipe))[0] is None


def test_there_are_at_least_forty_faults_each_with_a_sentence_of_its_own():
    assert len(FAULTS) >= 140 and not set(FAULTS) & set(VARIANTS)
    sentences = [fault.sentence for fault in (*FAULTS.values(), *VARIANTS.values())]
    assert len(set(sentences)) == len(sentences)


# ---- faults of the model itself, not of the table: another implementation of each ----


@pytest.fixture
def model_run(monkeypatch):
    """Runs the model of the goldens, with functions replaced, and gives its tensors."""

    def run(model, recipe, *replacements):
        for module, name, function in replacements:
            monkeypatch.setattr(module, name, function)
        case, seen = golden.trace_case(model, "float64"), {}
        golden.wiring.forward(golden.model(model, recipe), **case.inputs, observe=seen.__setitem__)
        monkeypatch.undo()
        return seen

    return run


@pytest.mark.parametrize("recipe", ports.RECIPES)
@pytest.mark.parametrize("model", golden.MODELS)
def test_the_model_itself_passes(model, recipe, model_run):
    assert ports.first_wrong(model, recipe, model_run(model, recipe))[0] is None


@pytest.mark.parametrize("recipe", ports.RECIPES)
@pytest.mark.parametrize("model", golden.MODELS)
def test_pytorchs_own_tensors_pass(model, recipe):
    """Its GELU, which loses the tail, is another way to be right, and is said to be."""
    expected = golden.trace_case(model, recipe).expected
    name, _, found = ports.first_wrong(model, recipe, expected)
    assert name is None, found
    again = ports.rerun(model, recipe, expected)
    note = ports.judge(again, "text.blocks.0.mlp.opened", expected["text.blocks.0.mlp.opened"]).note
    assert "loses its negative tail" in note


BY_HAND = {
    "RMSNorm without 1 +": "rms-norm-without-one",
    "RMSNorm's eps outside the root": "rms-norm-eps-outside",
    "LayerNorm's eps outside the root": "layer-norm-eps-outside",
    "LayerNorm's eps not read": "layer-norm-eps-1e-06",
    "erf GELU, vision tower": "gelu-erf",
    "interleaved rotation": "rotation-interleaved",
    "suffix one late": "mask-suffix-one-late",
    "suffix one early": "mask-suffix-one-early",
    "causal prefix": "mask-causal",
    "window one too wide": "window-one-too-wide",
    "window one too narrow": "window-one-too-narrow",
    "soft-cap left out": "soft-cap-left-out",
    "patches column by column": "transposed-at-the-patches",
    "a patch's pixels before its channels": "pixels-before-channels",
    "positions from zero": "positions-from-zero",
    "image rows divided by sqrt(D)": "image-rows-divided",
    "image rows multiplied by sqrt(D)": "image-rows-scaled-unrounded",
}


@pytest.mark.parametrize("fault", BY_HAND)
def test_a_fault_in_the_layers_is_located_and_named(fault, model_run):
    module, name, replacement, model, tensor = test_faults.REPLACED[fault]
    for recipe in ("float32", "bf16-hf-eager"):
        seen = model_run(model, recipe, (module, name, replacement))
        first, again, found = ports.first_wrong(model, recipe, seen)
        assert first == tensor
        assert BY_HAND[fault] in [cause.name for cause in diagnose.causes(again, first, seen[first], found.real)]


# ---- correct variants ----


def in_order(order):
    """``ops.linear`` with another order of summation."""

    def linear(x, weight, bias=None):
        rows = np.ascontiguousarray(x.reshape(-1, x.shape[-1]))
        shaped = accumulators.CORRECT[order](rows, half.widen(weight)).reshape(*x.shape[:-1], -1)
        return shaped if bias is None else shaped + bias

    return [(ops, "linear", linear)]


def rms_norm_associated(x, weight, eps):
    squares = np.sum(x * x, axis=-1, keepdims=True) / x.shape[-1]
    return x * ((1.0 + weight) / np.sqrt(squares + eps))


def layer_norm_associated(x, weight, bias, eps):
    centred = x - np.sum(x, axis=-1, keepdims=True) / x.shape[-1]
    return centred * (weight / np.sqrt(np.sum(centred * centred, axis=-1, keepdims=True) / x.shape[-1] + eps)) + bias


def softmax_by_exp2(x):
    with np.errstate(over="ignore"):
        shifted = np.exp2((x - np.max(x, axis=-1, keepdims=True)) * np.float32(1.4426950408889634))
    return shifted * (1.0 / np.sum(shifted[..., ::-1], axis=-1, keepdims=True))


def shared_by(count):
    """Products cut into small blocks that so many of our threads take."""
    few = [(products, "ALONE", 0), *((products, name, 3) for name in ("ROWS_OF_BLOCK", "FEW_ROWS"))]
    return [(threads, "blas_threads", lambda: 1), (threads, "num_threads", lambda: count), *few]


VARIANTS_OF_RUNS = {
    **{f"order of sums: {order}": in_order(order) for order in accumulators.CORRECT},
    "another association": [
        (ops, "rms_norm", rms_norm_associated), (ops, "layer_norm", layer_norm_associated),
        (ops, "softmax", softmax_by_exp2),
    ],
    **{f"{count} of our threads": shared_by(count) for count in (1, 2)},
}  # fmt: skip


def box_with_blas_threads(count, path):
    """A trace of the model in the box, in a process where BLAS has so many threads (its sums are cut otherwise)."""
    program = "import npgemma; npgemma.trace(npgemma.load(), PICTURE, 'caption en', out=OUT)"
    program = program.replace("PICTURE", repr(str(PICTURE))).replace("OUT", repr(str(path)))
    variables = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(count))
    env = os.environ | variables | {"PYTHONPATH": str(golden.ROOT)}
    subprocess.run([sys.executable, "-c", program], check=True, env=env)
    return open_run(path)


def correct_runs(model_run, folder):
    """(what is other than usual, the judge of it, its tensors), for every correct variant."""
    for variant, changed in VARIANTS_OF_RUNS.items():
        for model in golden.MODELS:
            for recipe in ("float32", "bf16-hf-eager"):
                seen = model_run(model, recipe, *changed)
                yield f"{variant}, {model} {recipe}", ports.rerun(model, recipe, seen), seen
    for model in golden.MODELS:
        case = golden.trace_case(model, "float32")
        for row in range(2):  # BLAS rounds a batch of one row otherwise
            inputs, seen = {name: array[row : row + 1] for name, array in case.inputs.items()}, {}
            golden.wiring.forward(golden.model(model, "float32"), **inputs, observe=seen.__setitem__)
            given = inputs | {"pixels": inputs["pixels"].transpose(0, 2, 3, 1)}
            yield f"row {row} alone, {model}", Rerun(golden.model(model, "float32"), "float32", given, seen), seen
    for count in (1, 2):
        run = box_with_blas_threads(count, folder / f"{count}.safetensors")
        tensors = read_tensors(run.file)
        yield f"{count} threads of BLAS, the box", Rerun(load(), "float32", run.given, tensors), tensors


def test_correct_variants_raise_no_alarm(model_run, tmp_path):
    """Orders of sums, associations, numbers of threads, rows alone: each tensor on the inputs that the variant had."""
    count, alarms = collections.Counter(), []
    for variant, again, tensors in correct_runs(model_run, tmp_path):
        for name, tensor in again.table.items():
            if name in tensors and tensor.row.expression:
                count[variant.split(",")[0]] += 1
                if not ports.judge(again, name, tensors[name]).verdict.passed:
                    alarms.append(f"{variant}: {name}")
    print("\n" + "\n".join(f"{number:6} comparisons: {variant}" for variant, number in count.items()))
    print(f"{sum(count.values()):6} comparisons, {len(alarms)} alarms")
    assert alarms == [] and sum(count.values()) >= 1000


# ---- what the judge does not know ----


def test_an_unknown_fault_is_called_unknown(model_run):
    """A gain of 1.01 + weight is nobody's known mistake."""
    right = ops.rms_norm
    seen = model_run("tiny-2", "float32", (ops, "rms_norm", lambda x, weight, eps: right(x, weight + 0.01, eps)))
    name, again, found = ports.first_wrong("tiny-2", "float32", seen)
    assert name == "text.blocks.0.attn_norm"
    assert diagnose.causes(again, name, seen[name], found.real) == []


def test_two_faults_at_once_are_not_taken_for_one(model_run):
    def wrong(x, weight, eps):
        return x / (np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True)) + eps) * weight

    seen = model_run("tiny-1", "bf16-hf-eager", (ops, "rms_norm", wrong))
    name, again, found = ports.first_wrong("tiny-1", "bf16-hf-eager", seen)
    assert name == "text.blocks.0.attn_norm"
    assert diagnose.causes(again, name, seen[name], found.real) == []
