"""Reading the expressions of the table: which branch a model takes, what goes in, and the formula for a reader.

Nothing is computed here (:mod:`npgemma.tracing.evaluate` does); names are looked up and text is made.
"""

import ast
import re
from collections.abc import Collection
from functools import cache

from npgemma.base.table import WORDS
from npgemma.base.tensors import Call, Tensor, sizes_by_tower, tower_of
from npgemma.config import Config

# The equations, as a reader wants them in a formula; a test holds each against the function of its name.
FORMULAS = {
    "linear": "x @ weight.T + bias",
    "embed": "table[ids]",
    "layer_norm": "(x - mean(x)) / sqrt(var(x) + eps) * weight + bias",
    "rms_norm": "x / sqrt(mean(x**2) + eps) * (1 + weight)",
    "soft_cap": "cap * tanh(x / cap)",
    "angles": "positions / theta ** (2 * i / head_dim)",
}
ARGUMENTS = {
    "linear": ("x", "weight", "bias"),
    "embed": ("ids", "table"),
    "layer_norm": ("x", "weight", "bias", "eps"),
    "rms_norm": ("x", "weight", "eps"),
    "soft_cap": ("x", "cap", "inner"),
    "angles": ("positions", "head_dim", "theta", "dtype"),
}
# What a formula leaves out: rounding is the precision's, not the equation's.
ROUNDINGS = ("inner", "number")


def chosen(expression: str, name: str, cfg: Config, call: Call) -> ast.expr:
    """Parse an expression with its words replaced, and of each ``a if c else b`` the branch that this call takes."""

    class Choose(ast.NodeTransformer):
        def visit_IfExp(self, node):
            return self.visit(node.body if numbers(name, cfg, call)[ast.unparse(node.test)] else node.orelse)

        def visit_Name(self, node):
            return self.visit(parsed(WORDS[node.id])) if node.id in WORDS else node

    return Choose().visit(parsed(expression))


def parsed(expression: str) -> ast.expr:
    """Parse an expression, anew each time: trees are changed."""
    return ast.parse(expression, mode="eval").body


def numbers(name: str, cfg: Config, call: Call) -> dict[str, object]:
    """The numbers that an expression of this row may name: sizes by their letter, fields of the configuration."""
    tower = getattr(cfg, tower_of(name))
    fields = {key: getattr(tower, key) for key in dir(tower) if not key.startswith("_")}
    here = re.search(r"\.blocks\.(\d+)\.", name)
    window = cfg.text.layer_windows[int(here[1])] if here and tower is cfg.text else None
    own = {"window": window, "last_only": call.last_only, "pictures": call.pictures}
    return fields | own | {"image_token_id": cfg.image_token_id} | sizes_by_tower(cfg, call)[tower_of(name)]


def names_in(tree: ast.expr) -> list[str]:
    """The dotted names of an expression, in order, without those of the functions it calls."""
    found = []

    def visit(node):
        dotted = dotted_name(node)
        if dotted:
            found.append(dotted)
            return
        children = [*node.args, *node.keywords] if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
        for child in children:
            visit(child)

    visit(tree)
    return list(dict.fromkeys(found))


def dotted_name(node: ast.AST) -> str:
    """``attn.out`` of the tree of such a name, and nothing of any other; ``.mT`` is an operation."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and node.attr != "mT":
        owner = dotted_name(node.value)
        return f"{owner}.{node.attr}" if owner else ""
    return ""


def full_name(short: str, name: str, known: Collection[str]) -> str | None:
    """Look for a tensor or a weight from a row's own place outwards; None for what is neither."""
    if short == "x":
        return entering(name, known)
    parts = name.split(".")[:-1]
    places = [".".join(parts[:count]) + "." * bool(count) for count in range(len(parts), -1, -1)]
    return next((place + short for place in places if place + short in known), None)


def entering(name: str, known: Collection[str]) -> str:
    """What the block of a row reads, and the norm behind the last one: the block before, or the tower's beginning."""
    tower = name.split(".")[0]
    here = re.match(r"\w+\.blocks\.(\d+)\.", name)
    depth = len({place.split(".")[2] for place in known if place.startswith(f"{tower}.blocks.")})
    block = int(here[1]) if here else depth
    outs = [f"{tower}.blocks.{block - 1}.out"] if block else [f"{tower}.spliced", f"{tower}.embedded"]
    return next(out for out in outs if out in known)


def inputs_of(name: str, tensor: Tensor, cfg: Config, call: Call, known: Collection[str]) -> list[str]:
    """The full names of the tensors and weights that a tensor is made of; nothing where it is given.

    Raises
    ------
    LookupError
        If a name of the expression is neither, and no number of the configuration.
    """
    if not tensor.row.expression:
        return []
    plain = {*numbers(name, cfg, call), *ROUNDINGS, "dtype"}
    found = []
    for short in names_in(chosen(tensor.row.expression, name, cfg, call)):
        full = full_name(short, name, known)
        if full is None and short not in plain:
            raise LookupError(f"{name}: its expression names {short!r}, which is no tensor, weight or number")
        if full is not None:
            found.append(full)
    return found


def multiplied(name: str, expression: str, cfg: Config, call: Call) -> list[str]:
    """The names over whose last axis the matrix products of an expression sum: a weight, or what stands left of @."""
    if not expression:
        return []
    nodes = list(ast.walk(chosen(expression, name, cfg, call)))
    linear = [node.args[1] for node in nodes if isinstance(node, ast.Call) and dotted_name(node.func) == "linear"]
    products = [node.left for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)]
    return [names_in(operand)[0] for operand in linear + products]


@cache
def formula(row_name: str, expression: str, cfg: Config, call: Call) -> str:
    """Write an expression for a reader, in a line: powers and transposes as ``^``."""
    written = ast.unparse(spelled(row_name, expression, cfg, call))
    return written.replace(" ** ", "^").replace(".mT", "^T").replace(".T", "^T")


def spelled(row_name: str, expression: str, cfg: Config, call: Call) -> ast.expr:
    """Parse an expression with its equations spelled out and its roundings left out."""

    class Spell(ast.NodeTransformer):
        def visit_Call(self, node):
            called = node.func.id
            if called in ROUNDINGS:
                return self.visit(node.args[0])
            arguments = [self.visit(each) for each in node.args]
            if called not in FORMULAS:
                kept = [each for each in arguments if dotted_name(each) not in ("inner", "dtype")]
                return ast.Call(node.func, kept, [])
            given = dict(zip(ARGUMENTS[called], arguments, strict=False))
            return substituted(FORMULAS[called].removesuffix("" if "bias" in given else " + bias"), given)

    return Spell().visit(chosen(expression, row_name, cfg, call))


def substituted(equation: str, given: dict[str, ast.expr]) -> ast.expr:
    """Put arguments into an equation's formula."""

    class Put(ast.NodeTransformer):
        def visit_Name(self, node):
            return given.get(node.id, node)

    return Put().visit(parsed(equation))


def explained(name: str, tensor: Tensor, cfg: Config, call: Call | None = None) -> str:
    """What a tensor is, in a line: its formula, or what is given."""
    row = tensor.row
    return formula(name, row.expression, cfg, call or Call()) if row.expression else row.meaning
