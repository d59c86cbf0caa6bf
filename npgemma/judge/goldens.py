"""Where a comparison gets right tensors from: a pack, or the model run beside the port."""

import numpy as np

from npgemma.base.errors import CheckpointError, InputError
from npgemma.base.tensors import Call
from npgemma.judge.beside import call_of, given_of, run_beside
from npgemma.judge.comparison import Comparison, PortTensors
from npgemma.judge.op_pack import config_of
from npgemma.judge.pack import weights_digest
from npgemma.judge.rerun import Rerun


def compare_with_pack(pack, model, theirs, names_map, quantised, tell=None):
    """Hold a port's tensors against a pack; with the model's weights, each operation by itself too.

    Returns
    -------
    comparison : Comparison
        Of the pack's tensors and, with the model, of all others that the port wrote down.
    """
    given, cfg = pack.given(), config_of(pack)
    if model is not None and weights_digest(model, tell) != pack.manifest["model"].get("weights_sha256"):
        raise InputError(
            "the model's weights are not those that the pack was made with; leave --model out, or give the other"
        )
    B, T = given["ids"].shape
    port = PortTensors(theirs, cfg, Call(B, pack.manifest["inputs"]["pictures"], T), names_map)
    check_shapes(pack, port.table)
    has_all = model is not None and ("pixels" in given or not pack.manifest["inputs"]["pictures"])
    rerun = Rerun(model, pack.recipe, given, port) if has_all else None
    comparison = Comparison(port, rerun, pack.recipe, given["attention_mask"], quantised)
    for number, name in enumerate(port.table):
        if tell is not None:
            tell(number, len(port.table))
        entry = pack.entries.get(name)
        if entry is not None:
            emulated, truth = pack.read("recipe", name), pack.read("truth", name)
            comparison.take(name, emulated, emulated if truth is None else truth, entry.get("sample"))
        elif rerun is not None and name in port.names:
            comparison.take(name, None, None)
    return comparison


def check_shapes(pack, table):
    """Hold the tensors of a pack against those that its own configuration and question make."""
    for name, entry in pack.entries.items():
        if name not in table:
            raise CheckpointError(f"{pack.folder}: the manifest lists {name!r:.80}, which this model does not compute")
        if tuple(entry["shape"]) != table[name].shape:
            made = table[name].shape
            raise CheckpointError(f"{pack.folder}: {name} is {entry['shape']}, its configuration makes it {made}")


def compare_beside(model, question, recipe, theirs, names_map, quantised, tell=None):
    """Hold a port's tensors against the model, which runs beside in the recipe and in float64."""
    given = given_of(question, model.config)
    port = PortTensors(theirs, model.config, call_of(question, model.config), names_map)
    rerun = Rerun(model, recipe, given, port)
    comparison = Comparison(port, rerun, recipe, question.attention_mask, quantised)
    run_beside(model, question, recipe, comparison.take, tell)
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
