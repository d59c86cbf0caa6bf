"""A port's tensors against the model, one at a time, in order of execution: the first operation that differs, and why.

Each tensor is judged twice.  *Entire*, as it came: its error against float64 beside that of the recipe's own emulation.
*Single*, by its operation alone: what the port's own inputs should have led to.  A fault is where the single judgement
fails; what only differs as a whole follows from it.
"""

import math
import re
from dataclasses import astuple, dataclass, field, replace

import numpy as np

from npgemma import ops
from npgemma.base import threads
from npgemma.base.tensors import tensors
from npgemma.judge import diagnose, flax_names, gates, layout
from npgemma.judge import single as one
from npgemma.judge.rerun import GIVEN, kept_as, real_elements
from npgemma.judge.symptoms import signal_to_noise

# What stands before a name of a step's tensors; nothing before those of the prompt.
STEP = re.compile(r"(step\.\d+\.)?")
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
    prefix : str
        What stands before the names of this call's tensors, ``step.0.``.
    """

    def __init__(self, theirs, cfg, call, names_map=(), prefix=""):
        self.cfg, self.names_map = cfg, dict(names_map)
        self.source = theirs = replace(theirs, readers=flax_names.unstacked(theirs.readers))
        mine = {name.removeprefix(prefix): name for name in theirs.readers if STEP.match(name)[0] == prefix}
        found, self.notes = layout.known_names(mine, cfg, self.names_map)
        self.names = {ours: mine[each] for ours, each in found.items()}
        self.call = call = replace(call, last_only=self.scores_last_only(call))
        self.table = tensors(cfg, *astuple(call))
        self.names = {ours: each for ours, each in self.names.items() if ours in self.table}
        self.unfit, self.how = {}, {}

    def scores_last_only(self, call):
        """Whether their logits are those of each row's last token."""
        name = self.names.get("text.logits")
        return name is not None and self.source.read(name).size == call.batch * self.cfg.text.vocab_size

    def cut(self, name, ours, attention_mask):
        """Our tensor where they scored the last token of each row only."""
        if ours is None or name != "text.logits" or ours.shape == self.table[name].shape:
            return ours
        return ops.last_real(ours, attention_mask)

    def __contains__(self, name):
        return name in self.names and name not in self.unfit

    def __getitem__(self, name):
        return self.read(name)

    def let_go(self, name):
        """Hand the memory of a tensor's file back to the system; it can be read again."""
        self.source.let_go(self.names[name])

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
        self.let_go = lambda: None
        self.explained: dict = {}

    def take(self, name, emulated, truth, sample=None, let_go=None):
        """Compare one tensor, and let its memory go.

        Parameters
        ----------
        name : str
        emulated, truth : (...)
            From a run in the recipe, and from one in float64; both None where the operation alone is to be judged, the
            second where there was one run only.
        sample : dict, optional
            ``step`` and ``count``, where the two are samples of the flat order.
        let_go : callable, optional
            Hands the memory of the two back to the system; they can be read again.
        """
        self.let_go = lambda: (self.port.let_go(name), let_go and let_go())
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
            if sample is None:
                emulated, truth = (self.port.cut(name, each, self.attention_mask) for each in (emulated, truth))
            self.judge_whole(row, theirs, emulated, truth, sample)
        if row.status == "ok" and not self.quantised:
            self.judge_single(row, theirs)
        self.let_go()

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
        verdict = self.verdict_of(row, theirs, emulated, truth, real)
        row.entire = verdict.figures
        if not math.isfinite(verdict.figures.get("relative", 0.0)):
            special = gates.specials(theirs, emulated) & real
            row.status, row.message = "bad", f"{int(special.sum()):,} elements are NaN or infinite, ours are not"
            row.worst = worst_of(theirs, emulated, special)
            return
        if row.name == "text.logits" and theirs.ndim == 3:
            self.logits = of_logits(theirs, emulated if truth is None else truth, real[..., 0], self.let_go)
        only_entire = self.rerun is None or row.name in GIVEN and row.name != "pixels"
        if only_entire and not verdict.passed and not self.quantised:
            self.fail(row, theirs, emulated, real, verdict.message)

    def verdict_of(self, row, theirs, emulated, truth, real):
        """The judgement of a whole tensor: numbers that are counted are equal, floats have their errors."""
        if theirs.dtype.kind != "f":
            share = float(np.mean((theirs == emulated)[real])) if real.any() else 1.0
            return gates.Verdict("equal", share == 1.0, "differs", {"share": share})
        kept = kept_as(self.recipe)
        if truth is None:
            return gates.alone(theirs, emulated, one.BETWEEN_RUNS[kept], real, self.let_go)
        return gates.dual_delta(theirs, truth, emulated, one.FLOORS[kept], real=real, let_go=self.let_go)

    def fail(self, row, theirs, want, real, message):
        """Mark a tensor as wrong; it follows from an earlier one where only whole tensors are judged."""
        before = any(each.status == "bad" for each in self.rows)
        row.status = "follows" if before and self.rerun is None else "bad"
        row.message, row.worst = message, worst_of(theirs, want, real)
        if theirs.dtype.kind == "i":
            row.causes = diagnose.of_given(row.name, theirs, want, real)

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


def of_logits(theirs, truth, real, let_go):
    """What users of a quantised port ask: KL divergence, and the share of equal best tokens; a row at a time."""
    places = np.argwhere(real)
    divergence, same = np.zeros(len(places)), np.zeros(len(places), bool)

    def work(rows):
        for n in range(*rows.indices(len(places))):
            ours, other = (log_softmax(each[tuple(places[n])].astype(np.float64)) for each in (truth, theirs))
            divergence[n] = np.sum(np.exp(ours) * (ours - other))
            same[n] = np.argmax(ours) == np.argmax(other)
        let_go()

    threads.share(len(places), 4, work)
    return {
        "kl_mean": float(np.mean(divergence)),
        "kl_max": float(np.max(divergence)),
        "same_top": float(np.mean(same)),
    }


def log_softmax(x):
    """Logarithms of probabilities, over the last axis."""
    shifted = x - np.max(x, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
