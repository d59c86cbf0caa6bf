"""Where a comparison gets right tensors from: a pack, a trace, or the model run beside the port."""

import functools

import numpy as np

from npgemma.base.errors import CheckpointError, InputError
from npgemma.base.tensors import Call, tensors
from npgemma.judge.beside import call_of, given_of, of_weights, run_beside
from npgemma.judge.comparison import Comparison, PortTensors
from npgemma.judge.provenance import weights_digest
from npgemma.judge.rerun import Rerun
from npgemma.judge.steps import take_steps
from npgemma.tracing import trace_file

# Of a summary pack's few samples, one a token: too few to judge, and to pass over without a word.
LAST_ONLY = "of the last token only, and the pack holds samples of all; want all tokens' logits, or another tier's pack"


def compare_with_pack(pack, model, theirs, names_map, quantised, tell=None):
    """Hold a port's tensors against a pack; with the model's weights, each operation by itself too.

    Returns
    -------
    comparison : Comparison
        Of the pack's tensors and, with the model, of all others that the port wrote down.
    """
    given, cfg = pack.given(), pack.config
    if model is not None and weights_digest(model, tell) != pack.manifest["model"].get("weights_sha256"):
        raise InputError(
            "the model's weights are not those that the pack was made with; leave --model out, or give the other"
        )
    B, T = given["ids"].shape
    port = PortTensors(theirs, cfg, Call(B, pack.manifest["inputs"]["pictures"], T), names_map)
    check_shapes(pack, tensors(cfg, B, port.call.pictures, T))
    has_all = model is not None and ("pixels" in given or not pack.manifest["inputs"]["pictures"])
    rerun = Rerun(model, pack.recipe, given, port, last_only=port.call.last_only) if has_all else None
    comparison = Comparison(port, rerun, pack.recipe, given["attention_mask"], quantised)
    for number, name in enumerate(port.table):
        if tell is not None:
            tell(number, len(port.table))
        entry = pack.entries.get(name)
        sampled = entry is not None and "sample" in entry and entry["shape"] != list(port.table[name].shape)
        if entry is not None and not sampled:
            emulated, truth = pack.read("recipe", name), pack.read("truth", name)
            truth = emulated if truth is None else truth
            comparison.take(name, emulated, truth, entry.get("sample"), functools.partial(pack.let_go, name))
        elif name in port.names and (sampled or rerun is not None):
            if rerun is None:
                port.unfit[name] = LAST_ONLY
            comparison.take(name, None, None)
    take_steps(comparison, model)
    return comparison


def compare_with_run(run, model, theirs, names_map, quantised, tell=None):
    """Hold a port's tensors against a trace; with the model's weights, each operation by itself too.

    Without float64 nobody says whose an error is: whole tensors are held to what lies between two correct runs.
    """
    given, recipe = run.given, run.manifest["precision"]
    pictures = tensor_shape(run.file, "vision.norm")[:1] or tensor_shape(run.file, "pixels")[:1] or (0,)
    port = PortTensors(theirs, run.cfg, Call(*given["ids"].shape[:1], pictures[0], given["ids"].shape[1]), names_map)
    has_all = model is not None and ("pixels" in given or not pictures[0])
    rerun = Rerun(model, recipe, given, port, last_only=port.call.last_only) if has_all else None
    comparison = Comparison(port, rerun, recipe, given["attention_mask"], quantised)
    full = tensors(run.cfg, *given["ids"].shape[:1], pictures[0], given["ids"].shape[1])
    for number, name in enumerate(port.table):
        if tell is not None:
            tell(number, len(port.table))
        if tensor_shape(run.file, name) in (port.table[name].shape, full[name].shape):
            ours = trace_file.read_tensor(run.file, name)
            comparison.take(name, ours, None, let_go=functools.partial(run.file.let_go, name))
        elif rerun is not None and name in port.names:
            comparison.take(name, None, None)
    take_steps(comparison, model)
    return comparison


def tensor_shape(file, name):
    """The shape of a tensor of a file; empty if it is not there."""
    return file.tensors[name].shape if name in file.tensors else ()


def check_shapes(pack, table):
    """Hold the tensors of a pack against those that its own configuration and question make."""
    for name, entry in pack.entries.items():
        if name not in table:
            raise CheckpointError(f"{pack.folder}: the manifest lists {name!r:.80}, which this model does not compute")
        if tuple(entry["shape"]) != table[name].shape:
            made = table[name].shape
            raise CheckpointError(f"{pack.folder}: {name} is {entry['shape']}, its configuration makes it {made}")


def compare_beside(model, question, recipe, theirs, names_map, quantised, sources=(), tell=None):
    """Hold a port's tensors against the model, which runs beside in the recipe and in float64.

    With ``sources``, the pictures before they were resized, faults of their resizing can be named.
    """
    given = given_of(question, model.config, sources)
    port = PortTensors(theirs, model.config, call_of(question, model.config), names_map)
    port.notes += filter(None, [of_weights(model, recipe)])
    rerun = Rerun(model, recipe, given, port, last_only=port.call.last_only)
    comparison = Comparison(port, rerun, recipe, question.attention_mask, quantised)
    run_beside(model, question, recipe, comparison.take, tell)
    take_steps(comparison, model)
    return comparison


def guessed_recipe(theirs):
    """The recipe that a port's numbers look like: bfloat16 where all are bfloat16 values, else by their type."""
    for name in theirs.readers:
        array = theirs.read(name)
        if array.dtype == np.float64:
            return "float64"
        if array.dtype == np.float32:
            bits = np.ascontiguousarray(array).view(np.uint32) & 0xFFFF
            if np.any(bits):
                return "float32"
    return "bf16-hf-eager"
