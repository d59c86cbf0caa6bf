"""npgemma against what PyTorch said: each equation alone, each operation by inject, whole runs end to end."""

import hashlib
import json

import numpy as np
import pytest

import golden
from golden import golden_inputs
from npgemma import masks, ops, rotary
from npgemma.base.precision import PRECISIONS


def listed(differences):
    """The differences, one a line, for a failing test."""
    return "\n".join(str(difference) for difference in differences)


# ---- each equation alone, at the widths of released models ----


def linear(inputs, constants, precision):
    return ops.linear(inputs["x"], inputs["weight"], inputs.get("bias"))


def layer_norm(inputs, constants, precision):
    return ops.layer_norm(inputs["x"], inputs["weight"], inputs["bias"], constants["eps"])


def rms_norm(inputs, constants, precision):
    return ops.rms_norm(inputs["x"], inputs["weight"], constants["eps"])


def gelu(inputs, constants, precision):
    return ops.gelu(inputs["x"])


def softmax(inputs, constants, precision):
    return ops.softmax(np.where(inputs["mask"], inputs["scores"], masks.BIG_NEG))


def soft_cap(inputs, constants, precision):
    return ops.soft_cap(inputs["x"], constants["cap"], precision.inner)


def angles(inputs, constants, precision):
    radians = rotary.angles(inputs["positions"], constants["head"], constants["theta"], precision.dtype)
    return {"cos": precision.inner(np.cos(radians)), "sin": precision.inner(np.sin(radians))}


def rotation(inputs, constants, precision):
    tables = golden.read(f"equations/{precision.name}")
    cos, sin = (tables[f"rotation.256/{key}"].reshape(1, 7, 128) for key in ("cos", "sin"))
    return rotary.rotate(inputs["x"], cos, sin, precision.inner)


def scores(inputs, constants, precision):
    K = inputs["k"].shape[2]
    product = ops.group_heads(inputs["q"], K) @ ops.group_heads(inputs["k"], K).swapaxes(-1, -2)
    return precision.inner(product) * constants["scale"]


def mixed(inputs, constants, precision):
    gathered = inputs["probs"] @ ops.group_heads(inputs["v"], inputs["v"].shape[2])
    return gathered.transpose(0, 3, 1, 2, 4)


def patches(inputs, constants, precision):
    weight = inputs["weight"]
    flat = ops.patchify(inputs["pixels"], constants["patch"])
    return ops.linear(flat, weight.reshape(weight.shape[0], -1), inputs["bias"])


def embed(inputs, constants, precision):
    width = inputs["weight"].shape[1]
    return ops.embed(inputs["ids"], inputs["weight"]) * precision.number(width**0.5)


EQUATIONS = {
    "linear": linear,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "gelu": gelu,
    "softmax": softmax,
    "soft_cap": soft_cap,
    "angles": angles,
    "rotation": rotation,
    "scores": scores,
    "mixed": mixed,
    "patches": patches,
    "embed": embed,
}


def compute(name, precision_name):
    """Samples of npgemma's outputs of the equation ``name``, by golden name."""
    equation = golden_inputs.EQUATIONS[name]
    # Where nothing is rounded inside, the two bfloat16 recipes are one, called bf16.
    precision = PRECISIONS["bf16-hf-eager" if precision_name == "bf16" else precision_name]
    inputs = {
        key: array.astype(precision.dtype) if array.dtype == np.float64 else array
        for key, array in golden_inputs.inputs_of(name).items()
    }
    out = EQUATIONS[equation.kind](inputs, equation.constants, precision)
    outputs = out if isinstance(out, dict) else {"out": out}
    kept = outputs if equation.kind == "angles" else {key: precision.store(array) for key, array in outputs.items()}
    return {f"{name}/{key}": golden_inputs.sample(array, precision_name) for key, array in kept.items()}


def equation_cases():
    names = [name for name, case in golden_inputs.EQUATIONS.items() if case.kind != "angles"]
    return [(name, recipe) for name in names for recipe in golden_inputs.recipes_of(name)]


@pytest.mark.parametrize(("name", "precision"), equation_cases())
def test_equation_equals_pytorch(name, precision):
    key = f"{name}/out"
    ours, expected = compute(name, precision)[key], golden.read(f"equations/{precision}")[key]
    real = np.ones(expected.shape, dtype=bool)
    if precision.startswith("bf16"):
        if name == "gelu":
            real = golden_inputs.inputs_of(name)["x"] >= golden.TANH_GELU_IS_RIGHT_FROM
        assert golden.by_bits(key, ours, expected, real) is None
    else:
        assert golden.by_size(key, ours, expected, real, {"float64": 1e-13, "float32": 1e-6}[precision]) is None


@pytest.mark.parametrize("precision", golden.PRECISIONS)
@pytest.mark.parametrize("name", ["angles.128", "angles.256"])
def test_angles_equal_pytorch_up_to_the_last_position_of_the_context(name, precision):
    positions = golden_inputs.inputs_of(name)["positions"]
    half = golden_inputs.EQUATIONS[name].constants["head"] // 2
    at = golden_inputs.sample(np.broadcast_to(positions[..., None], (*positions.shape, half)), precision)
    for key, ours in compute(name, precision).items():
        expected = golden.read(f"equations/{precision}")[key]
        if precision == "float64":
            # The last bit of a frequency, in which the powers of two libraries differ, moves a far angle by this much.
            assert np.all(np.abs(ours - expected) <= 1e-13 + at * 2.0**-52)
        elif precision == "bf16-hf-eager":
            assert golden.by_bits(key, ours, expected, np.ones(expected.shape, dtype=bool)) is None
        else:
            assert golden.by_size(key, ours, expected, np.ones(expected.shape, dtype=bool), 1e-6) is None


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_in_the_tail_of_gelu_pytorch_is_wrong_and_npgemma_is_right(precision):
    """Judged by PyTorch's own float64, whose tanh form still has digits to lose down to -5."""
    x = golden_inputs.inputs_of("gelu")["x"]
    tail = (x >= -5.0) & (x < golden.TANH_GELU_IS_RIGHT_FROM)
    truth = golden.read("equations/float64")["gelu/out"][tail]
    theirs = golden.read(f"equations/{precision}")["gelu/out"][tail].astype(np.float64)
    ours = compute("gelu", precision)["gelu/out"][tail].astype(np.float64)
    unit = 2.0**-8 if precision == "bf16" else 2.0**-23
    our_error = np.max(np.abs(ours / truth - 1.0))
    their_error = np.max(np.abs(theirs / truth - 1.0))
    # Half a unit of bfloat16 is all that rounding may cost; float32 adds the conditioning of exp, |2u| < 16 units.
    assert our_error <= (1.01 * unit if precision == "bf16" else 16 * unit)
    assert their_error >= 10 * our_error


# ---- the whole model ----


@pytest.mark.parametrize("precision", golden.PRECISIONS)
@pytest.mark.parametrize("name", golden.MODELS)
def test_each_operation_equals_pytorch_on_pytorchs_own_inputs(name, precision):
    differences = golden.run(golden.trace_case(name, precision), inject=True).differences
    assert not differences, listed(differences)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", golden.MODELS)
def test_whole_run_equals_pytorch_end_to_end(name, precision):
    differences = golden.run(golden.trace_case(name, precision)).differences
    assert not differences, listed(differences)


@pytest.mark.parametrize("name", golden.MODELS)
def test_trace_has_the_names_that_pytorch_has_and_no_others(name):
    case = golden.trace_case(name, "float64")
    kept = golden.run(case).seen
    assert set(kept) - {"pixels", "ids", "token_types", "attention_mask", "positions"} == set(case.expected)


@pytest.mark.parametrize("inject", [True, False], ids=["inject", "end to end"])
@pytest.mark.parametrize("batch", golden.BATCHES)
@pytest.mark.parametrize("name", golden.MODELS)
def test_every_kind_of_batch_equals_pytorch(name, batch, inject):
    differences = golden.run(golden.batch_case(name, batch), inject).differences
    assert not differences, listed(differences)


@pytest.mark.parametrize("inject", [True, False], ids=["inject", "end to end"])
@pytest.mark.parametrize("name", golden.MODELS)
def test_cached_steps_equal_pytorch(name, inject):
    differences = [difference for judge in golden.run_cached(name, inject) for difference in judge.differences]
    assert not differences, listed(differences)


@pytest.mark.parametrize("batch", ["trace", *golden.BATCHES])
@pytest.mark.parametrize("name", golden.MODELS)
def test_greedy_choice_in_float32_is_pytorchs_everywhere(name, batch):
    whole = batch == "trace"
    case = golden.trace_case(name, "float32") if whole else golden.batch_case(name, batch)
    logits = golden.wiring.forward(golden.model(name, "float32"), **case.inputs)
    real = case.inputs["attention_mask"] != 0
    expected = case.expected["text.logits"]
    assert logits.dtype == np.float32
    assert np.array_equal(logits.argmax(axis=-1)[real], expected.argmax(axis=-1)[real])
    assert len(np.unique(expected.argmax(axis=-1)[real])) > 3, "a model that repeats itself proves nothing"


# ---- the goldens themselves ----


def test_manifest_is_true_of_the_files_and_together_they_stay_small():
    manifest = json.loads((golden.GOLDEN / "MANIFEST.json").read_text())
    folders = ("equations", *golden.MODELS)
    found = [path for folder in folders for path in (golden.GOLDEN / folder).iterdir()]
    assert {path.relative_to(golden.GOLDEN).as_posix() for path in found} == set(manifest["files"])
    for path in found:
        entry = manifest["files"][path.relative_to(golden.GOLDEN).as_posix()]
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest(), path
    assert sum(path.stat().st_size for path in found) == manifest["total_bytes"] <= 8_000_000


def test_inputs_of_equations_are_those_that_the_exporter_used():
    manifest = json.loads((golden.GOLDEN / "MANIFEST.json").read_text())
    assert set(manifest["equations"]) == set(golden_inputs.EQUATIONS)
    for name, entry in manifest["equations"].items():
        digest = hashlib.sha256()
        arrays = golden_inputs.inputs_of(name)
        for key in sorted(arrays):
            digest.update(key.encode() + arrays[key].tobytes())
        assert entry["inputs_sha256"] == digest.hexdigest(), name


def test_bfloat16_goldens_of_equations_hold_enough_elements_for_a_share():
    for precision in ("bf16", "bf16-hf-eager", "bf16-f32-inside"):
        for key, array in golden.read(f"equations/{precision}").items():
            # The tables beside the rotation are its inputs.
            assert array.size >= 1000 or key.startswith("rotation") and not key.endswith("out"), key


def test_failing_golden_says_tensor_place_values_tolerance_and_remedy():
    case = golden.trace_case("tiny-1", "float64")
    judge = golden.Judge(case, inject=False)
    spoilt = case.expected["text.blocks.1.out"].copy()
    spoilt[0, 3, 5] += 1.0
    judge.observe("text.blocks.1.out", spoilt)
    (difference,) = judge.differences
    theirs = case.expected["text.blocks.1.out"][0, 3, 5].item()
    for part in (
        "golden/tiny-1/trace-float64.safetensors",
        "text.blocks.1.out[0, 3, 5]",
        f"is {spoilt[0, 3, 5].item()!r}, PyTorch says {theirs!r}",
        "allowed 1e-12",
        "python tools/golden/export.py",
    ):
        assert part in difference.message


def test_nan_is_a_difference_in_every_kind_of_judgement():
    expected = np.linspace(1.0, 2.0, 5000)
    ours = expected.copy()
    ours[17] = np.nan
    real = np.ones(expected.shape, dtype=bool)
    assert "[17] is nan" in golden.by_size("x", ours, expected, real, 1e-5)
    assert "[17] is nan" in golden.by_bits("x", ours, expected, real)
