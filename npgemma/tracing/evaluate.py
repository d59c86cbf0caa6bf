"""One operation again: a row of the table, evaluated on given tensors with the equations of the model.

The layers stay the model; this is how the table is held against them, and how one operation of a run is made again
without the others.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from npgemma import masks, ops, rotary
from npgemma.base.expressions import chosen, dotted_name, full_name, numbers
from npgemma.base.tensors import Call, Tensor, tensors
from npgemma.base.weights import Weights
from npgemma.config import Config

EQUATIONS = {name: value for module in (ops, rotary, masks) for name, value in vars(module).items() if callable(value)}
# Shown as they are computed: a recipe rounds them itself, by `inner`.
SHOWN = ("text.cos", "text.sin")


def evaluate(
    name: str,
    seen: Mapping[str, Any],
    w: Weights,
    cfg: Config,
    call: Call | None = None,
    before: Sequence[Mapping[str, Any]] = (),
    expression: str | None = None,
    equations: Mapping[str, Any] = EQUATIONS,
    table: Mapping[str, Tensor] | None = None,
) -> np.ndarray:
    """Make one tensor from the tensors of a run.

    Parameters
    ----------
    name : str
        Of a tensor that has an expression, ``text.norm``; no ``step.N.`` before it.
    seen : mapping of str to array
        Tensors of the call by name: those that the row's expression names.
    w : Weights
        Of the whole model; its precision is computed in.
    cfg : Config
    call : Call, optional
        Its sizes; the prefill of one row and one picture if left out.
    before : sequence of mapping
        The tensors of the calls before this one, in order.
    expression : str, optional
        Another expression than the row's, for what a fault would compute.
    equations : mapping of str to callable, optional
        Other equations by name, likewise.
    table : mapping of str to Tensor, optional
        The call's rows, where they are known already.

    Returns
    -------
    tensor : array
        Rounded as the precision keeps it.

    Raises
    ------
    LookupError
        If a name of the expression is no tensor, weight, number or equation.
    """
    call = call or Call()
    table = table or tensors(cfg, call.batch, call.pictures, call.length, call.past, call.last_only)
    known = {**table, **dict.fromkeys(w.arrays)}
    plain = numbers(name, cfg, call)
    plain |= {"inner": w.inner, "number": w.precision.number, "dtype": w.precision.dtype}

    def read(short: str) -> Any:
        full = full_name(short, name, known)
        if full is None:
            return plain[short]
        return seen[full] if full in table else w[full]

    def earlier(short: str) -> Any:
        full = str(full_name(short, name, known))
        return np.concatenate([each[full] for each in (*before, seen)], axis=1)

    tree = ast.Expression(Read().visit(chosen(expression or table[name].row.expression, name, cfg, call)))
    words = {"read": read, "earlier": earlier, "cos": np.cos, "sin": np.sin}
    words |= {word: plain[word] for word in ("inner", "number")}
    result = eval(compile(ast.fix_missing_locations(tree), name, "eval"), {"__builtins__": {}}, {**words, **equations})
    return w.precision.store(result) if table[name].kind == "float" and name not in SHOWN else result


class Read(ast.NodeTransformer):
    """Turns each dotted name into a call that reads it: ``attn.out`` into ``read("attn.out")``."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if isinstance(node.func, ast.Name) and node.func.id == "earlier":
            return ast.Call(node.func, [ast.Constant(dotted_name(node.args[0]))], [])
        return ast.Call(node.func, [self.visit(each) for each in node.args], [])

    def visit_Name(self, node: ast.Name) -> ast.Call:
        return ast.Call(ast.Name("read", ast.Load()), [ast.Constant(node.id)], [])

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        dotted = dotted_name(node)
        if not dotted:
            return ast.Attribute(self.visit(node.value), node.attr, ast.Load())
        return ast.Call(ast.Name("read", ast.Load()), [ast.Constant(dotted)], [])
