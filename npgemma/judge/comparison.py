"""A port's tensors against the model, one at a time, in order of execution: the first operation that differs, and why.

Each tensor is judged twice.  *Entire*, as it came: its error against float64 beside that of the recipe's own emulation.
*Single*, by its operation alone: what the port's own inputs should have led to.  A fault is where the single judgement
fails; what only differs as a whole follows from it.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from npgemma.base.tensors import tensors
from npgemma.judge import diagnose, gates, layout
from npgemma.judge import single as one
from npgemma.judge.rerun import GIVEN, kept_as, real_elements
from npgemma.judge.symptoms import signal_to_noise

# Diagnoses are made for so many kinds of rows: a port that differs everywhere is not explained by more.
MOST_DIAGNOSES = 6


@dataclass
class Row:
    """What was found of one tensor.

    Parameters
    ----------
    name, theirs : str
        Our name, and theirs.
    status : str
        ``ok``, ``bad``, ``follows`` (from an earlier one), ``missing``, ``incomparable``.
    entire, single : dict
        Figures: ``ratio relative share``; ``share outside``.
    message : str
        What is wrong.
    note : str
        What was done to compare it, or how it is right in another way.
    worst : dict
        ``index theirs want gap`` of the worst element.
    causes : list of Cause
    """

    name: str
    theirs: str = ""
    status: str = "ok"
    entire: dict = field(default_factory=dict)
    single: dict = field(default_factory=dict)
    message: str = ""
    note: str = ""
    worst: dict = field(default_factory=dict)
    causes: list = field(default_factory=list)
    expected: bool = False


class PortTensors:
    """A port's tensors by our names and in our axes, each read when it is asked for; what cannot be is left out.

    Parameters
    ----------
    theirs : Theirs
    cfg : Config
    call : Call
        Whose tensors they are.
    names_map : dict of str to str
        Their names to ours, beside what the table knows.
    """

    def __init__(self, theirs, cfg, call, names_map=()):
        self.source, self.cfg, self.call = theirs, cfg, call
        self.table = table = tensors(cfg, call.batch, call.pictures, call.length, call.past)
        found, self.notes = layout.known_names(theirs.readers, cfg, dict(names_map))
        self.names = {ours: each for ours, each in found.items() if ours in table}
        self.unfit, self.how = {}, {}

    def __contains__(self, name):
        return name in self.names and name not in self.unfit

    def __getitem__(self, name):
        return self.read(name)

    def read(self, name):
        """The tensor as ours lies; notes how, or why it cannot be compared."""
        tensor = self.table[name]
        array, self.how[name] = layout.in_our_axes(name, self.source.read(self.names[name]), tensor)
        kind = tensor.kind
        if kind != "float" and array.dtype.kind in "iub":
            array = array.astype(np.bool_ if kind == "boolean" else np.int64)
        fault = gates.form(array, tensor.shape, kind)
        if fault:
            self.unfit[name] = fault
        return array


class Comparison:
    """Takes our tensors one by one, and finds out about theirs.

    Parameters
    ----------
    port : PortTensors
    rerun : Rerun or None
        Makes operations again; without the model's weights there is none, and tensors are judged entire only.
    recipe : str
    attention_mask : (B, S)
    quantised : bool
        Whether bits and bounds are not to be judged, only how much of the signal is left.
    """

    def __init__(self, port, rerun, recipe, attention_mask, quantised=False):
        self.cfg, self.call = port.cfg, port.call
        self.port, self.rerun, self.recipe, self.quantised = port, rerun, recipe, quantised
        self.attention_mask = attention_mask
        self.rows: list[Row] = []
        self.logits: dict = {}
        self.explained: dict = {}

    def take(self, name, emulated, truth, sample=None):
        """Compare one tensor.

        Parameters
        ----------
        name : str
        emulated, truth : (...)
            From a run in the recipe, and from one in float64; None where the operation alone is to be judged.
        sample : dict, optional
            ``step`` and ``count``, where the two are samples of the flat order.
        """
        row = Row(name, self.port.names.get(name, ""))
        self.rows.append(row)
        if not row.theirs:
            row.status = "missing"
            return
        theirs = self.port.read(name)
        row.note = self.port.how[name]
        if name in self.port.unfit:
            row.status, row.message = "incomparable", self.port.unfit[name]
            return
        if emulated is not None:
            self.judge_whole(row, theirs, emulated, truth, sample)
        if row.status == "ok" and not self.quantised:
            self.judge_single(row, theirs)

    def judge_whole(self, row, theirs, emulated, truth, sample):
        """Judge a tensor as it came, or the sample of it that a pack holds."""
        letters = self.port.table[row.name].letters
        real = real_elements(row.name, letters, theirs.shape, self.attention_mask)
        whole = [theirs, real]
        if sample is not None:
            whole = [each.reshape(-1)[:: sample["step"]][: sample["count"]] for each in whole]
        self.judge_entire(row, whole[0], emulated, truth, whole[1])

    def judge_entire(self, row, theirs, emulated, truth, real):
        """Note how far a whole tensor is from float64, beside the emulation; refuse what is not finite."""
        special = gates.specials(theirs, emulated) & real
        if np.any(special):
            row.status, row.message = "bad", f"{int(special.sum()):,} elements are NaN or infinite, ours are not"
            row.worst = worst_of(theirs, emulated, special)
            return
        if theirs.dtype.kind != "f":
            row.entire = {"share": float(np.mean((theirs == emulated)[real])) if real.any() else 1.0}
        else:
            floor = one.FLOORS[kept_as(self.recipe)]
            row.entire = gates.dual_delta(theirs, truth, emulated, floor, real=real).figures
        if row.name == "text.logits" and theirs.ndim == 3:
            self.logits = of_logits(theirs[real_rows(real)], np.asarray(truth)[real_rows(real)])
        if self.rerun is None or row.name in GIVEN and row.name != "pixels":
            limit = row.entire.get("ratio", 0.0 if row.entire["share"] == 1.0 else math.inf)
            if limit > gates.RATIO_ACCEPTABLE and not self.quantised:
                self.fail(
                    row,
                    theirs,
                    emulated,
                    real,
                    (
                        "differs"
                        if theirs.dtype.kind != "f"
                        else f"its error is {limit:.3g} times the recipe's own, want at most {gates.RATIO_ACCEPTABLE:g}"
                    ),
                )

    def fail(self, row, theirs, want, real, message):
        """Mark a tensor as wrong; it follows from an earlier one where only whole tensors are judged."""
        before = any(each.status == "bad" for each in self.rows)
        row.status = "follows" if before and self.rerun is None else "bad"
        row.message, row.worst = message, worst_of(theirs, want, real)

    def judge_single(self, row, theirs):
        """Make the operation again on their inputs; name the fault where it fails."""
        if self.rerun is None or row.name in GIVEN and row.name != "pixels":
            return
        found = one.judge(self.rerun, row.name, theirs)
        row.single = found.figures
        row.note = "; ".join(filter(None, [row.note, found.note]))
        if found.verdict.passed:
            if row.entire.get("ratio", 0.0) > gates.RATIO_ACCEPTABLE and any(
                each.status == "bad" for each in self.rows
            ):
                row.status = "follows"
            return
        row.status, row.message = "bad", found.verdict.message
        row.worst = worst_of(theirs, found.want, found.real)
        if found.missing:
            row.message += (
                f"; made of {len(found.missing)} tensors that were not written down, from {found.missing[-1]} on"
            )
        self.explain(row, theirs, found.real)

    def explain(self, row, theirs, real):
        """Name what is wrong, once for each kind of row."""
        kind = self.port.table[row.name].row.name
        if kind not in self.explained and len(self.explained) < MOST_DIAGNOSES:
            self.explained[kind] = row.name
            row.causes = diagnose.causes(self.rerun, row.name, theirs, real)

    @property
    def first(self):
        """The first tensor that is wrong, if there is one."""
        return next((row for row in self.rows if row.status == "bad" and not row.expected), None)

    def advice(self):
        """Which tensor to write down next, so that half of what lies between is left; empty if nothing lies between."""
        first = self.first
        if first is None:
            return ""
        index = self.rows.index(first)
        before = next(
            (n for n in range(index - 1, -1, -1) if self.rows[n].status not in ("missing", "incomparable")), -1
        )
        between = [row.name for row in self.rows[before + 1 : index] if row.name not in GIVEN]
        if not between:
            return ""
        return f"{len(between)} tensors before it are not there; write down {between[len(between) // 2]} next"

    def growth(self):
        """How the error grows with depth, by tower: the exponent of a power law (1/2 random, 1 systematic)."""
        found = {}
        for tower in ("vision", "text"):
            outs = [
                row
                for row in self.rows
                if row.name.startswith(f"{tower}.blocks.")
                and row.name.count(".") == 3
                and row.name.endswith(".out")
                and row.entire.get("relative")
            ]
            if len(outs) >= 3:
                depth = np.log([int(row.name.split(".")[2]) + 1 for row in outs])
                found[tower] = float(np.polyfit(depth, np.log([row.entire["relative"] for row in outs]), 1)[0])
        return found

    def noise_by_layer(self):
        """Decibels that the signal stands above the error, by tensor of the residual."""
        return {
            row.name: signal_to_noise(row.entire["relative"])
            for row in self.rows
            if row.name.endswith(".out") and row.name.count(".") == 3 and "relative" in row.entire
        }


def worst_of(theirs, want, real):
    """The worst judged element, as a record."""
    index, their_value, value, gap = one.place_of(np.asarray(theirs), np.asarray(want), real)
    return {"index": list(index), "theirs": their_value, "want": value, "gap": gap}


def real_rows(real):
    """Rows of logits that belong to real tokens."""
    return real[..., 0]


def of_logits(theirs, truth):
    """What users of a quantised port ask: KL divergence, and the share of equal best tokens."""
    ours, other = (log_softmax(np.asarray(each, dtype=np.float64)) for each in (truth, theirs))
    divergence = np.sum(np.exp(ours) * (ours - other), axis=-1)
    same = np.argmax(ours, axis=-1) == np.argmax(other, axis=-1)
    return {
        "kl_mean": float(np.mean(divergence)),
        "kl_max": float(np.max(divergence)),
        "same_top": float(np.mean(same)),
    }


def log_softmax(x):
    """Logarithms of probabilities, over the last axis."""
    shifted = x - np.max(x, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
