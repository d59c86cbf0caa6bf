"""What a fault is: an alternative for some rows of the table, with the sentence that explains it.

The faults themselves stand in ``faults_*.py``, each a few lines: another expression for a row, or another equation
under a right one's name.  :mod:`npgemma.judge.fault_list` gathers them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """A way to be wrong (or, among the variants, to be right in another way).

    Parameters
    ----------
    name : str
        In words with hyphens: ``rms-norm-without-one``.
    sentence : str
        What the port does, and what is right.
    changes : mapping of str to str
        Names of rows of the table, ``text.blocks.{n}.attn_norm``, each with another expression for it; an empty one
        keeps the row's own, computed with the other equations.
    equations : mapping of str to callable
        Other equations under the names of the right ones, and what else the expressions name.
    """

    name: str
    sentence: str
    changes: Mapping[str, str]
    equations: Mapping[str, Callable] = field(default_factory=dict)


def with_equations(name, sentence, rows, **equations):
    """A fault of the equations that some rows, separated by spaces, are computed with."""
    return Fault(name, sentence, dict.fromkeys(rows.split(), ""), equations)


def with_expressions(name, sentence, changes, **equations):
    """A fault of the expressions of some rows."""
    return Fault(name, sentence, changes, equations)
