"""Further tokens: a port's tensors of step after step, ``step.0.text.blocks.3.attn.q``, each operation by itself.

What a step remembers of the calls before is the port's own: a wrong key of the prompt is the prompt's fault, a key that
a step reads from the wrong slot is the step's.  Whole tensors are not held against a run of ours, which may choose
other tokens.
"""

import itertools
from dataclasses import replace

import numpy as np

from npgemma.base.tensors import Call
from npgemma.judge.comparison import STEP, Comparison, PortTensors
from npgemma.judge.diagnose import outside
from npgemma.judge.fault_list import FAULTS
from npgemma.judge.rerun import Rerun, real_elements


def take_steps(comparison, model):
    """Judge the steps that a port wrote down, and put their rows behind those of the prompt."""
    port, before = comparison.port, [comparison.rerun]
    written = {STEP.match(name)[0] for name in port.source.readers} - {""}
    if written and comparison.rerun is None:
        port.notes.append(f"{len(written)} steps were not judged: that takes the model (--model)")
        return
    for number in itertools.takewhile(lambda number: f"step.{number}." in written, itertools.count()):
        prefix = f"step.{number}."
        past = sum(each.call.length for each in before)
        mine = PortTensors(port.source, port.cfg, Call(port.call.batch, 0, 1, past), port.names_map, prefix)
        if "ids" not in mine:
            port.notes.append(f"{prefix}ids is not there, what the step was given: it and later ones are left out")
            return
        rerun = step_of(model, comparison.recipe, before, mine.read("ids"), mine)
        judged = Comparison(mine, rerun, comparison.recipe, rerun.real, comparison.quantised)
        judged.explained = comparison.explained
        for name in mine.names:
            given = rerun.given.get(name)
            judged.take(name, given, given)
        for row in judged.rows:
            row.causes = [cause for cause in row.causes if not shows_before(cause, row.name, before)]
        port.table |= {prefix + name: tensor for name, tensor in mine.table.items()}
        comparison.rows += [replace(row, name=prefix + row.name) for row in in_order(judged.rows, mine.table)]
        before.append(rerun)


def shows_before(cause, name, before):
    """Whether a fault would have changed the same tensor of an earlier call too, which is right: then it is not it."""
    fault = FAULTS.get(cause.name)
    for call in before:
        if fault is None or name not in call.theirs or call.table[name].row.name not in fault.changes:
            continue
        theirs = call.theirs[name]
        real = real_elements(name, call.table[name].letters, theirs.shape, call.real)
        right, wrong = (call.near(name, each)[0] for each in (None, fault))
        if np.any(outside(name, wrong, theirs, real, call.recipe)):
            if not np.any(outside(name, right, theirs, real, call.recipe)):
                return True
    return False


def in_order(rows, table):
    """Rows in order of execution."""
    order = list(table)
    return sorted(rows, key=lambda row: order.index(row.name))


def step_of(model, recipe, before, ids, theirs):
    """The judge of one step: what it is given follows from the calls before and its ids (B, 1).

    Parameters
    ----------
    model : Model
    recipe : str
    before : list of Rerun
    ids : (B, 1)
    theirs : mapping of str to array
    """
    ones = np.ones_like(ids)
    last = np.max(before[-1].given["positions"], axis=1, keepdims=True)
    given = {"ids": ids, "token_types": ones, "attention_mask": ones, "positions": last + 1}
    return Rerun(model, recipe, given, theirs, tuple(before))
