"""MathML from the expressions of the table: fractions, roots, indices, as a paper would print them."""

import ast
from functools import cache
from html import escape

from npgemma.base.expressions import dotted_name, spelled
from npgemma.base.tensors import Call, Tensor, tensors
from npgemma.config import Config

# How strongly an operation holds its operands together; a weaker one inside a stronger one gets brackets.
STRENGTH: dict[type[ast.AST], int] = {
    ast.IfExp: 0, ast.BoolOp: 1, ast.Compare: 2, ast.Add: 3, ast.Sub: 3, ast.Mult: 4, ast.MatMult: 5, ast.Div: 6,
    ast.USub: 6, ast.Pow: 7,
}
SIGNS: dict[type[ast.AST], str] = {ast.Add: "+", ast.Sub: "−", ast.Mult: "⋅"}
ATOM = 9
# Equations that the table calls by their name only, and one that the model has not, for comparison.
EQUATIONS = {
    "softmax(x)": "exp(x) / sum(exp(x))",
    "gelu(x)": "x / (1 + exp(-2 * sqrt(2 / pi) * (x + 0.044715 * x**3)))",
    "batch_norm(x)": "(x - mean_over_tokens(x)) / sqrt(var_over_tokens(x) + eps) * weight + bias",
}


def equation(name: str, cfg: Config, call: Call) -> str:
    """Write how a tensor of the table is made, as a ``math`` element."""
    tree = spelled(name, table_of(cfg, call)[name].row.expression, cfg, call)
    short = name.split(".")[-1] if ".blocks." in name else name
    return math(f"{symbol(short)}<mo>=</mo>{row(tree)}", f"{name} = {ast.unparse(tree)}")


@cache
def table_of(cfg: Config, call: Call) -> dict[str, Tensor]:
    """The tensors of a call, worked out once for all formulas of a page."""
    return tensors(cfg, call.batch, call.pictures, call.length, call.past, call.last_only)


def written(left: str) -> str:
    """Write one of :data:`EQUATIONS`."""
    sides = [ast.parse(side, mode="eval").body for side in (left, EQUATIONS[left])]
    return math(f"{row(sides[0])}<mo>=</mo>{row(sides[1])}", f"{left} = {EQUATIONS[left]}")


def math(inside: str, spoken: str) -> str:
    """Wrap a formula, with its plain text for who cannot see it."""
    return f'<math display="block" aria-label="{escape(spoken)}"><mrow>{inside}</mrow></math>'


def row(node: ast.AST) -> str:
    """Write a tree."""
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        return transposed(node.value)
    if named := dotted_name(node):
        return symbol(named)
    if isinstance(node, ast.Constant):
        return f"<mn>{escape(str(node.value))}</mn>"
    if isinstance(node, ast.BinOp):
        return operation(node)
    if isinstance(node, ast.UnaryOp):
        return f"<mrow><mo>−</mo>{inside(node.operand, STRENGTH[ast.USub])}</mrow>"
    if isinstance(node, ast.Call):
        return called(node)
    if isinstance(node, ast.Subscript):
        return f"<msub>{row(node.value)}{row(node.slice)}</msub>"
    raise NotImplementedError(f"no sign is known for {ast.unparse(node)}")


def transposed(node: ast.AST) -> str:
    """Write a matrix with its sign of turning; a weight's index stands below that."""
    base = row(node)
    if base.startswith("<msub>"):
        return base.replace("msub>", "msubsup>").removesuffix("</msubsup>") + "<mo>⊤</mo></msubsup>"
    return f"<msup>{inside(node, ATOM)}<mo>⊤</mo></msup>"


def operation(node: ast.BinOp) -> str:
    """Write two operands and what stands between them."""
    kind = type(node.op)
    if kind is ast.Div:
        return f"<mfrac><mrow>{row(node.left)}</mrow><mrow>{row(node.right)}</mrow></mfrac>"
    if kind is ast.Pow:
        return f"<msup>{inside(node.left, ATOM)}<mrow>{row(node.right)}</mrow></msup>"
    # On the right even an equal one is bracketed, unless the order makes no difference.
    right = STRENGTH[kind] + (kind is ast.Sub)
    sign = '<mspace width="0.25em"/>' if kind is ast.MatMult else f"<mo>{SIGNS[kind]}</mo>"
    return f"{inside(node.left, STRENGTH[kind])}{sign}{inside(node.right, right)}"


def called(node: ast.Call) -> str:
    """Write a function: the root and the exponential by their signs, any other by its name."""
    function = dotted_name(node.func)
    arguments = "<mo>,</mo>".join(row(each) for each in node.args)
    if function == "sqrt":
        return f"<msqrt><mrow>{arguments}</mrow></msqrt>"
    if function == "exp":
        return f"<msup><mi>e</mi><mrow>{arguments}</mrow></msup>"
    return f'<mrow><mi mathvariant="normal">{escape(function)}</mi><mo>(</mo>{arguments}<mo>)</mo></mrow>'


def inside(node: ast.AST, strength: int) -> str:
    """Write an operand, in brackets where it holds together less than ``strength``."""
    own = STRENGTH.get(type(node.op), ATOM) if isinstance(node, ast.BinOp | ast.UnaryOp) else ATOM
    # A fraction and a function have their own signs of where they begin and end.
    held = own >= strength or isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and strength < ATOM
    return row(node) if held else f"<mrow><mo>(</mo>{row(node)}<mo>)</mo></mrow>"


def symbol(name: str) -> str:
    """Write a name; a weight as a letter with an index."""
    owner, _, last = name.rpartition(".")
    if last in ("weight", "bias"):
        letter = f"<mi>{'W' if last == 'weight' else 'b'}</mi>"
        return f"<msub>{letter}<mtext>{escape(owner)}</mtext></msub>" if owner else letter
    return f"<mi>{escape(name)}</mi>"
