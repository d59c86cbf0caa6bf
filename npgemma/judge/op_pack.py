"""The op tier: every operation by itself, as a pack, and a port's results of it judged.

A case's arrays lie in ``inputs`` as ``CASE/x``, its result in ``truth`` and ``recipe`` as ``CASE``, and what its matrix
product sums to in ``accumulators``; a port may write its own accumulator down as ``CASE.acc``.
"""

import contextlib
from dataclasses import asdict

import numpy as np

from npgemma.base.errors import CheckpointError
from npgemma.base.precision import PRECISIONS
from npgemma.base.version import version
from npgemma.files import writer
from npgemma.judge import gates, raw, tensor_file, vectors
from npgemma.judge.comparison import Row, worst_of
from npgemma.judge.datasets import ONE_SIDED
from npgemma.judge.near import Near
from npgemma.judge.pack import FORMAT, MEANINGS, RAW_DTYPES, VERSION, files_in, write_manifest
from npgemma.judge.provenance import blas
from npgemma.judge.rerun import ANGLE_ROUNDINGS, bounds, kept_as, near_precision, stored_as, unit_of
from npgemma.judge.rounding import stored
from npgemma.judge.statistics import statistics

ACCUMULATED = ".acc"


def results(case, recipe):
    """Truth, emulation, accumulator and bound of a case, by file; what it has not is left out."""
    wide = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in case.arrays.items()}
    exact, own = PRECISIONS["float64"], PRECISIONS[recipe]
    arrays = case.arrays if own.dtype is np.float32 else wide
    emulated = case.run(own, arrays)
    found = {"recipe": stored_result(case, emulated, own), "truth": case.run(exact, wide)}
    if case.product:
        sizes = {name: np.abs(array) if array.dtype.kind == "f" else array for name, array in wide.items()}
        found["accumulators"] = case.run(exact, wide, case.product)
        found["bounds"] = case.run(exact, sizes, case.product)
    return found


def stored_result(case, result, precision):
    """A result as the recipe keeps it; angles are rounded by themselves."""
    return result if case.op == "angles" or result.dtype.kind != "f" else precision.store(result)


def kind_of(file, name, array, recipe):
    """In what numbers a file keeps an array."""
    if array.dtype.kind != "f":
        return "boolean" if array.dtype.kind == "b" else "integer"
    if file == "inputs" or file == "bounds":
        return "bfloat16"
    wide = "float64" if recipe == "float64" else "float32"
    if file in ("truth", "accumulators"):
        return wide
    return stored_as("text.cos" if name.startswith("angles.") else "", recipe)


def plan_files(cases, recipe, tell=None):
    """What each file will hold, and the arrays: file to name to array."""
    held = {name: {} for name in ("inputs", "truth", "recipe", "accumulators", "bounds")}
    for number, case in enumerate(cases):
        if tell is not None:
            tell(number, len(cases))
        held["inputs"] |= {f"{case.name}/{name}": array for name, array in case.arrays.items()}
        for file, array in results(case, recipe).items():
            held[file][case.name] = array
    return {file: arrays for file, arrays in held.items() if arrays}


def size_of(held, recipe):
    """Bytes of the files of tensors."""
    return sum(tensor_file.size_of_file(planned(file, arrays, recipe)) for file, arrays in held.items())


def planned(file, arrays, recipe):
    """Kind and shape of each array of a file."""
    return {name: (kind_of(file, name, array, recipe), array.shape) for name, array in arrays.items()}


def write_op_pack(cases, held, cfg, recipe, path, with_raw=False):
    """Write the cases as a pack into a new folder."""
    with writer.writing_folder(path) as folder:
        for file, arrays in held.items():
            write_file(folder, file, arrays, recipe, with_raw)
        entries = [entry(case, held, order, recipe) for order, case in enumerate(cases)]
        recipe_entry = {"name": recipe, "stored": kept_as(recipe), "meaning": MEANINGS[recipe]}
        write_manifest(
            folder,
            {
                "format": FORMAT,
                "version": VERSION,
                "producer": {"npgemma": version(), "numpy": np.__version__, "blas": blas()},
                "tier": "op",
                "recipe": recipe_entry,
                "model": {"name": "", "config": asdict(cfg)},
                "inputs": {},
                "files": files_in(folder),
                "tensors": entries,
            },
        )


def write_file(folder, file, arrays, recipe, with_raw):
    """Write one file of tensors, and its raw form if wanted."""
    kinds = planned(file, arrays, recipe)
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(tensor_file.writing(folder / f"{file}.safetensors", kinds))
        raws = raw.RawFolder(folder / "raw" / file) if with_raw else None
        for name, array in arrays.items():
            out.put(name, array)
            if raws is not None:
                raws.put(name, array, RAW_DTYPES[kinds[name][0]])
    if raws is not None:
        raws.finish()


def entry(case, held, order, recipe):
    """What the manifest says of a case."""
    emulated = held["recipe"][case.name]
    mode = "exact" if emulated.dtype.kind != "f" else "dot" if case.product else "noise"
    check = {"mode": mode} | ({"length": length_of(case)} if case.product else {})
    kind = {"f": "float", "b": "boolean"}.get(emulated.dtype.kind, "integer")
    return {
        "name": case.name,
        "shape": list(emulated.shape),
        "axes": [],
        "kind": kind,
        "order": order,
        "expression": case.expression,
        "formula": numbers_of(case),
        "source": "npgemma/judge/vectors.py",
        "made_of": [f"{case.name}/{name}" for name in case.arrays],
        "check": check,
        "expect": {},
        "stats": statistics(emulated),
        "sha256": {},
    }


def numbers_of(case):
    """The numbers of a case, as text."""
    return ", ".join(f"{name} = {value!r}" for name, value in case.numbers.items())


def length_of(case):
    """K of a case's product, which its name says."""
    return int(case.name.split(".")[1])


def near_result(case, recipe):
    """A case's result with its noise, as the recipe keeps it."""
    unit = unit_of(recipe)
    arrays = case.near(unit)
    if case.op == "angles":
        wide = case.arrays["positions"].astype(np.float64)
        arrays = {"positions": Near(wide, np.abs(wide) * ANGLE_ROUNDINGS * unit, unit)}
    result = case.run(near_precision(recipe), arrays)
    return stored_result(case, result, near_precision(recipe)) if isinstance(result, Near) else result


def judge_case(case, recipe, name, theirs):
    """Judge a port's result of a case, or its accumulator.

    Returns
    -------
    row : Row
    """
    if name.endswith(ACCUMULATED):
        return judge_accumulator(case, name, theirs)
    near, row = near_result(case, recipe), Row(name, name)
    fault = gates.form(theirs, near.shape, "float" if isinstance(near, Near) else gates.kind_of(near.dtype))
    if fault:
        row.status, row.message = "incomparable", fault
        return row
    if not isinstance(near, Near):
        wrong, want = theirs != near, near
    else:
        low, high = bounds("text.cos" if case.op == "angles" else "", near, recipe)
        wrong, want = ~((theirs >= low) & (theirs <= high)), near.value
        kind = kind_of("recipe", case.name, want, recipe)
        row.single = {"share": float(np.mean(theirs == stored(want, kind)))}
    if np.any(wrong):
        row.status = "bad"
        row.message = f"{int(wrong.sum()):,} of {wrong.size:,} elements are what no correct computation stores"
        row.worst = worst_of(theirs, want, np.ones(theirs.shape, bool))
    return row


def judge_accumulator(case, name, theirs):
    """Judge the accumulator of a case's product by the dot-product gate."""
    found, row = results(case, "float32"), Row(name, name)
    exact = found["accumulators"]
    fault = gates.form(theirs, exact.shape, "float") if case.product else "there is no matrix product in this operation"
    if fault:
        row.status, row.message = "incomparable", fault
        return row
    one_sided = case.name.split(".")[2] in ONE_SIDED
    verdict = gates.dot(theirs, exact, found["bounds"], gates.Product(length_of(case), one_sided=one_sided))
    row.single = verdict.figures
    if not verdict.passed:
        row.status, row.message = "bad", verdict.message
        row.worst = worst_of(theirs, exact, np.ones(theirs.shape, bool))
    return row


def cases_of(pack):
    """The cases of the operations that a pack names, at the lengths that it names."""
    cfg = pack.config
    named = {tuple(name.split(".")[:2]) for name in pack.entries}
    ops = {op.removeprefix("sliding_") for op, *_ in named}
    for op in ops:
        # A damaged size could be of any length, and fill the memory.
        for length in vectors.lengths(op, cfg):
            if (op, str(length)) not in named:
                raise CheckpointError(f"{pack.folder}: its configuration wants {op}.{length}, which it does not hold")
    return {case.name: case for op in vectors.MAKERS if op in ops for case in vectors.cases(op, cfg)}


def judge_ops(pack, port):
    """Judge all results of a port that the op tier has cases for, one at a time."""
    cases, rows = cases_of(pack), []
    for name in pack.entries:
        for each in (name, name + ACCUMULATED):
            if each in port.readers and name in cases:
                rows.append(judge_case(cases[name], pack.recipe, each, port.read(each)))
        if name not in port.readers:
            rows.append(Row(name, status="missing"))
    return rows
