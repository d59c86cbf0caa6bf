"""Reads golden/ and judges npgemma by it: which tensor differs first, where, by how much, and what was allowed.

Form, shares of bits, and which elements count are the judge's of :mod:`npgemma.judge`; what it says of PyTorch's own
tensors, as those of a port, is in ``tests/judge/test_faults_found.py``.

End to end, npgemma runs on its own tensors.  In inject mode every tensor is replaced by PyTorch's as soon as it was
judged, so that each operation is judged alone, on PyTorch's own inputs, and one run shows every wrong place.
"""

import dataclasses
import functools
import importlib.util
import json
import pathlib
import sys

import numpy as np

from npgemma import paligemma as wiring
from npgemma.base.elsewhere import rows_of
from npgemma.checkpoints.loading import load
from npgemma.judge import gates
from npgemma.judge.rerun import real_elements

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "golden"
MODELS = ("tiny-1", "tiny-2")
PRECISIONS = ("float64", "float32", "bf16-hf-eager", "bf16-f32-inside")
BATCHES = (
    "left_padding",
    "right_padding",
    "generation_positions",
    "several_pictures",
    "uneven_pictures",
    "text_only",
    "empty_prompt",
    "suffix",
    "causal",
)
INTEGERS = ("ids", "positions", "mask.full", "mask.sliding")
# Below this PyTorch's tanh form of GELU loses bits to cancellation, in float32 and so in bfloat16.
TANH_GELU_IS_RIGHT_FROM = -2.9
LEAST_SHARE = 0.999
REMEDY = "to export again: python tools/golden/export.py"
FLOATS = {"F64": np.float64, "F32": np.float32, "I64": np.int64, "BOOL": np.bool_}


def import_inputs():
    """The module of tools/ that makes the inputs of the equations; it needs NumPy alone."""
    spec = importlib.util.spec_from_file_location("golden_inputs", ROOT / "tools" / "golden" / "golden_inputs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["golden_inputs"] = module
    spec.loader.exec_module(module)
    return module


golden_inputs = import_inputs()


@functools.cache
def read(name):
    """Arrays of one golden file; bfloat16 comes as float32 arrays of bfloat16 values.

    Parameters
    ----------
    name : str
        Below golden/ and without its suffix: ``tiny-1/trace-float64``.

    Returns
    -------
    arrays : dict of str to read-only array, in the file's order
    """
    content = (GOLDEN / f"{name}.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    arrays = {}
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        low, high = entry["data_offsets"]
        stored = content[start + low : start + high]
        if entry["dtype"] == "BF16":
            array = (np.frombuffer(stored, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            array = np.frombuffer(stored, FLOATS[entry["dtype"]])
        arrays[key] = array.reshape(entry["shape"])
    return arrays


@functools.cache
def model(name, precision):
    """The tiny model ``name``, loaded by npgemma."""
    dtype = "float64" if precision == "float64" else "float32"
    return load(GOLDEN / name, dtype=dtype, precision=precision)


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of the model and what PyTorch computed in it.

    Parameters
    ----------
    name : str
        ``tiny-2/suffix``: the model and the batch.
    precision : str
    file : str
        Golden file that holds it.
    inputs : dict of str to array
        ``ids token_types attention_mask positions``, (B, T), and ``pixels`` (I, 3, R, R) or None.
    expected : dict of str to array
        By trace name.
    operations : bool
        Whether every tensor is there, so that inject mode judges single operations; else whole blocks.
    """

    name: str
    precision: str
    file: str
    inputs: dict
    expected: dict
    operations: bool = False

    @property
    def model(self):
        return self.name.split("/")[0]

    def __str__(self):
        return f"{self.name} {self.precision}"


def trace_case(name, precision):
    """The batch of the model ``name`` that was recorded whole."""
    stored = read(f"{name}/trace-inputs")
    file = f"{name}/trace-{precision}"
    expected = {key: array for key, array in read(file).items() if key != "pixels"}
    inputs = inputs_of(stored, stored["pixels"])
    return Case(f"{name}/trace", precision, file, inputs, expected, operations=True)


def batch_case(name, batch):
    """One of :data:`BATCHES`: masks, output of each block of both towers, logits; all float64."""
    stored = below(read(f"{name}/batches"), batch)
    return case_of(f"{name}/{batch}", stored, stored)


def cached_cases(name):
    """The prefill, and then each step of one token a row, with the step's ids and positions as its inputs."""
    stored = below(read(f"{name}/batches"), "cached_steps")
    cases = [case_of(f"{name}/cached_steps prefill", stored, below(stored, "prefill"))]
    last = stored["positions"][:, -1:]
    for number in range(stored["steps"].shape[1]):
        seen = np.concatenate([stored["attention_mask"], np.ones_like(stored["steps"][:, : number + 1])], axis=1)
        inputs = {
            "ids": stored["steps"][:, number : number + 1],
            "positions": last + number + 1,
            "attention_mask": seen,
        }
        expected = below(stored, f"step{number}")
        cases.append(Case(f"{name}/cached_steps step {number}", "float64", f"{name}/batches", inputs, expected))
    return cases


def case_of(name, stored, answers):
    """A float64 case whose pictures, and what the vision tower makes of them, are stored once for all batches."""
    folder = name.split("/")[0]
    pictures = read(f"{folder}/pictures")
    expected = {key: array for key, array in answers.items() if key.startswith(("mask.", "text."))}
    pixels = None
    if stored["picked"].size:
        pixels = pictures["pixels"][stored["picked"]]
        expected |= {key: array[stored["picked"]] for key, array in pictures.items() if key != "pixels"}
    return Case(name, "float64", f"{folder}/batches", inputs_of(stored, pixels), expected)


def inputs_of(stored, pixels):
    inputs = {key: stored[key] for key in ("ids", "token_types", "attention_mask", "positions")}
    return inputs | {"pixels": None if pixels is None else pixels.transpose(0, 3, 1, 2)}


def below(arrays, prefix):
    """The arrays whose names start with ``prefix/``, without it."""
    return {key[len(prefix) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{prefix}/")}


def run(case, inject=False, changed_model=None):
    """Run npgemma on ``case``; the judge that comes back knows every difference and every tensor.

    Parameters
    ----------
    case : Case
    inject : bool
        Go on with PyTorch's tensor after each that was judged.
    changed_model : Model, optional
        Run this one instead of the case's own (one with a fault).

    Returns
    -------
    judge : Judge
    """
    judge = Judge(case, inject)
    wiring.forward(changed_model or model(case.model, case.precision), **case.inputs, observe=judge.observe)
    judge.finish()
    return judge


def run_cached(name, inject=False):
    """Prefill the model ``name`` and step through its cache; a judge for the prefill and for each step."""
    ours, cases = model(name, "float64"), cached_cases(name)
    judges = [Judge(case, inject) for case in cases]
    given = dict(cases[0].inputs)
    w = ours.weights.watched_by(judges[0].observe)
    soft = wiring.see(w, ours.config, given.pop("pixels").transpose(0, 2, 3, 1))
    _, state = wiring.prefill(w, ours.config, soft=soft, **given)
    for case, judge in zip(cases[1:], judges[1:], strict=True):
        w = ours.weights.watched_by(judge.observe)
        _, state = wiring.step(w, ours.config, case.inputs["ids"], case.inputs["positions"], state)
    for judge in judges:
        judge.finish()
    return judges


class Judge:
    """An observer that holds each tensor against the golden of its name.

    Attributes
    ----------
    differences : list of Difference
        In order of execution.
    shares : dict of str to float
        Share of elements with equal bits, bfloat16 recipes only; of ``judged[name]`` elements.
    seen : dict of str to array
        npgemma's own tensors.
    """

    def __init__(self, case, inject):
        self.case = case
        self.inject = inject
        self.differences = []
        self.shares = {}
        self.judged = {}
        self.seen = {}

    def observe(self, name, ours):
        if name in self.seen:
            raise AssertionError(f"{name} was kept twice in one call")
        self.seen[name] = ours
        expected = self.case.expected.get(name)
        if expected is None:
            return None
        message = self.compare(name, ours, expected)
        if message:
            where = f"golden/{self.case.file}.safetensors, {self.case}"
            self.differences.append(Difference(name, f"{where}: {message}; {REMEDY}"))
        return expected if self.inject and name not in INTEGERS and ours.shape == expected.shape else None

    def finish(self):
        """Note goldens that npgemma never kept."""
        for name in self.case.expected:
            if name not in self.seen:
                self.differences.append(Difference(name, f"{self.case}: npgemma keeps no tensor {name}; {REMEDY}"))

    def compare(self, name, ours, expected):
        """What is wrong with one tensor, or None."""
        fault = gates.form(ours, expected.shape, gates.kind_of(expected.dtype))
        if fault:
            return f"{name}: {fault}"
        letters = rows_of(model(self.case.model, self.case.precision).config)[name].axes
        real = real_elements(name, letters, expected.shape, self.case.inputs["attention_mask"])
        if name in INTEGERS:
            return exact(name, ours, expected, real)
        # The angles of bf16-f32-inside stay float32.
        is_float32 = name in ("text.cos", "text.sin") and self.case.precision == "bf16-f32-inside"
        if not self.case.precision.startswith("bf16") or is_float32:
            return by_size(name, ours, expected, real, self.tolerance())
        if is_gelu(name):
            real = real & (self.case.expected[before_gelu(name)] >= TANH_GELU_IS_RIGHT_FROM)
        self.shares[name] = float(np.mean(ours[real] == expected[real]))
        self.judged[name] = int(np.sum(real))
        return by_bits(name, ours, expected, real)

    def tolerance(self):
        if self.case.precision == "float64":
            return 1e-13 if self.inject and self.case.operations else 1e-12
        return 1e-6 if self.inject else 1e-5


@dataclasses.dataclass(frozen=True)
class Difference:
    """A tensor that is not what PyTorch says: its name, and one line for a reader."""

    name: str
    message: str

    def __str__(self):
        return self.message


def is_gelu(name):
    """Whether the tensor ``name`` leaves a GELU: ``opened`` of the decoder's MLP, ``hidden`` of the vision tower's."""
    return name.endswith("mlp.opened") or (name.startswith("vision.") and name.endswith("mlp.hidden"))


def before_gelu(name):
    """The tensor that enters the GELU whose result is ``name``."""
    return name.replace("opened", "gate").replace("hidden", "up")


def exact(name, ours, expected, real):
    if np.array_equal(ours[real], expected[real]):
        return None
    return f"{first_place(name, ours, expected, (ours != expected) & real)} (want equal values)"


def by_size(name, ours, expected, real, tolerance):
    """Judge by relative L2, and by the largest difference over the largest value.

    Parameters
    ----------
    name : str
    ours, expected : (...)
    real : (...)
        True where an element is judged.
    tolerance : float
        For both measures.

    Returns
    -------
    message : str or None
    """
    gap = np.where(real, np.abs(ours.astype(np.float64) - expected), 0.0)
    sizes = np.where(real, np.abs(expected.astype(np.float64)), 0.0)
    relative = np.sqrt(np.sum(gap**2)) / max(np.sqrt(np.sum(sizes**2)), 1e-300)
    largest = np.max(gap) / max(np.max(sizes), 1e-300)
    # Written so that NaN fails.
    if relative <= tolerance and largest <= tolerance:
        return None
    worst = gap == np.max(gap) if np.all(np.isfinite(gap)) else ~np.isfinite(gap)
    return (
        f"{first_place(name, ours, expected, worst)} (relative L2 {relative:.2e}, largest difference over largest "
        f"value {largest:.2e}; allowed {tolerance:.0e})"
    )


def by_bits(name, ours, expected, real):
    """Judge bfloat16: 99.9 % of elements equal, the rest one unit away except where large terms cancelled.

    Parameters and result as :func:`by_size`; in a tensor of fewer than 1,000 elements one may differ.
    """
    wrong = real & ~(ours == expected)
    count, size = int(np.sum(wrong)), int(np.sum(real))
    share = gates.bits(ours[real], expected[real], LEAST_SHARE)
    # A bfloat16 number has 8 significant bits.  What is left when terms cancel carries the error of their float32
    # sum, which is measured by the tensor's largest value.
    unit = np.exp2(np.floor(np.log2(np.maximum(np.abs(expected), 1e-38))) - 7)
    far = wrong & ~(np.abs(ours - expected) <= np.maximum(unit, np.max(np.abs(expected)) * 2.0**-16))
    if share.passed and not np.any(far):
        return None
    return (
        f"{first_place(name, ours, expected, far if np.any(far) else wrong)} ({count} of {size} elements differ, "
        f"{int(np.sum(far))} by more than one unit; want {LEAST_SHARE:.1%} equal and none so far)"
    )


def first_place(name, ours, expected, wrong):
    """Where the first wrong element is, and both values."""
    place = tuple(int(i) for i in np.argwhere(np.broadcast_to(wrong, expected.shape))[0])
    return f"{name}{list(place)} is {ours[place].item()!r}, PyTorch says {expected[place].item()!r}"
