"""One operation's inputs for a port, and the model going on from a port's tensor."""

from dataclasses import dataclass

import numpy as np

from npgemma.base.device import to_host
from npgemma.base.errors import InputError
from npgemma.base.expressions import inputs_of
from npgemma.base.tensors import Call, Tensor, schema, tensors
from npgemma.judge import gates, tensor_file
from npgemma.judge.beside import call_of
from npgemma.judge.comparison import PortTensors
from npgemma.judge.rerun import kept_as, real_elements, stored_as
from npgemma.judge.single import FLOORS
from npgemma.tracing.plan import plan
from npgemma.tracing.precisions import in_precision
from npgemma.tracing.replacing import replace_with
from npgemma.tracing.selection import check_patterns
from npgemma.tracing.trace import Watch, carry_out


@dataclass(frozen=True)
class Fed:
    """What one operation reads and makes: arrays by name, with the kind of numbers of each."""

    tensor: Tensor
    call: Call
    arrays: dict
    kinds: dict


def fed(model, question, recipe, name):
    """The golden inputs of one operation.

    Raises
    ------
    InputError
        If there is no such tensor, or it is given, not made.
    """
    cfg, call = model.config, call_of(question, model.config)
    table, parameters = tensors(cfg, call.batch, call.pictures, call.length), schema(cfg)
    check_patterns([name], table)
    if name not in table or not table[name].row.expression:
        raise InputError(
            f"{name!r} is {'an input of the run' if name in table else 'a pattern'}; want one computed tensor"
        )
    used = list(dict.fromkeys(inputs_of(name, table[name], cfg, call, {**table, **parameters})))
    own = in_precision(model, recipe)
    found: dict = {}
    carry_out(
        planned := plan(own, question, [*(each for each in used if each in table), name]),
        Watch(planned, found.__setitem__),
    )
    arrays = {each: found[each] if each in table else to_host(own.weights[each]) for each in used}
    arrays[f"want/{name}"] = found[name]
    kinds = {each: kind_of(each, array, recipe, each in parameters) for each, array in arrays.items()}
    return Fed(table[name], call, {each: widened(array) for each, array in arrays.items()}, kinds)


def kind_of(name, array, recipe, is_weight):
    """In what numbers an array is written."""
    if array.dtype == np.uint16:
        return "bfloat16"
    if array.dtype.kind != "f":
        return "boolean" if array.dtype.kind == "b" else "integer"
    return kept_as(recipe) if is_weight else stored_as(name.removeprefix("want/"), recipe)


def widened(array):
    """A weight that is stored in 16 bits as float32."""
    return (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array


def write_fed(path, found):
    """Write the file."""
    planned = {name: (found.kinds[name], array.shape) for name, array in found.arrays.items()}
    with tensor_file.writing(path, planned) as file:
        for name, array in found.arrays.items():
            file.put(name, array)


@dataclass(frozen=True)
class Injected:
    """What came of going on from a port's tensor.

    Parameters
    ----------
    at : str
    rows : list of dict
        ``name ratio verdict`` of each tensor of theirs behind it.
    first : str
        The first of them that differs; empty if none does.
    """

    at: str
    rows: list
    first: str

    @property
    def summary(self):
        """One line."""
        if not self.rows:
            return f"nothing of theirs stands behind {self.at}; write down text.logits too"
        if self.first:
            return f"going on from their {self.at}, {self.first} is the first that differs: a fault lies between them"
        return f"going on from their {self.at}, everything behind is right: what is wrong came before"


def injected(model, question, recipe, theirs, names_map, at=None):
    """Go on from a tensor of theirs, in the recipe and in float64, and judge what is theirs behind it.

    Raises
    ------
    InputError
        If the tensor is not there, or does not fit.
    """
    cfg, call = model.config, call_of(question, model.config)
    port = PortTensors(theirs, cfg, call, names_map)
    table = port.table
    made = [name for name in table if name in port.names and table[name].row.expression and table[name].kind == "float"]
    at = at or next(iter(made), None)
    if at not in made:
        raise InputError(f"{at!r} is no tensor of theirs that is computed; theirs: {', '.join(made[:4]) or 'none'}")
    start = port.read(at)
    if at in port.unfit:
        raise InputError(f"{at}: {port.unfit[at]}")
    behind = made[made.index(at) + 1 :]
    runs = (
        [run_from(model, question, precision, at, start, behind) for precision in (recipe, "float64")] if behind else []
    )
    rows = []
    for name in behind:
        array = port.read(name)
        if name not in port.unfit:
            real = real_elements(name, table[name].letters, array.shape, question.attention_mask)
            emulated, truth = (port.cut(name, run[name], question.attention_mask) for run in runs)
            verdict = gates.dual_delta(array, truth, emulated, FLOORS[kept_as(recipe)], real=real)
            rows.append(
                {"name": name, "ratio": verdict.figures["ratio"], "verdict": "ok" if verdict.passed else "differs"}
            )
    return Injected(at, rows, next((row["name"] for row in rows if row["verdict"] != "ok"), ""))


def run_from(model, question, precision, at, start, behind):
    """The tensors behind one that is replaced."""
    own = in_precision(model, precision)
    replaced = replace_with({at: start.astype(own.weights.precision.dtype)})
    planned = plan(own, question, behind, observe=replaced)
    found: dict = {}
    carry_out(planned, Watch(planned, found.__setitem__))
    return found
