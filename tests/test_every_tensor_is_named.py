"""Every floating tensor that a layer computes has a name: a walk through the source of the layers.

A layer is a function that takes the weights' view ``w``, or makes one.  What it computes must be kept: stand in the
arguments of ``w.keep`` or ``w.show``, or in a local that only such arguments read, and not enter another equation
there: that would hide a tensor between the two.  What only moves numbers (reshapes, slices), counts shapes or compares
is exempt, and so is the rounding of a precision.
"""

import ast
import pathlib
import typing

import pytest

import npgemma

FILES = ("attention", "vision", "text", "paligemma")
SOURCE = pathlib.Path(npgemma.__file__).parent

# The scores below the final soft-cap: the formula of `text.logits` is the product and its cap together.
ONE_FORMULA = {"ops.linear(x, w['embedded.weight'])"}

# Functions and methods that move numbers, count, or check; none computes a floating tensor.
MOVES = {
    "reshape", "transpose", "astype", "concatenate", "split", "zeros_like", "ones_like", "arange", "append",
    "patchify", "last_real", "flat_pictures", "as_integers", "slot_positions", "split_heads", "group_heads",
    "merge_heads", "cut", "join", "heads_and_rows", "attended", "image_places", "hide", "angles", "swapaxes", "head",
}
MODULES_OF_EQUATIONS = {"np", "ops", "rotary", "masks", "blocks"}
COMPARISONS = (ast.BitAnd, ast.BitOr, ast.Invert, ast.Not)


def unnamed_operations(source, name="source"):
    """The array operations of a module that have no name, as ``file:line: code``."""
    tree = ast.parse(source)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    equations = {function.name for function in functions if not is_layer(function)}
    found = []
    for function in functions:
        if is_layer(function):
            found += [(node.lineno, ast.unparse(node)) for node in unnamed_in(function, equations)]
    return [f"{name}.py:{line}: {code}" for line, code in sorted(found)]


def is_layer(function):
    """Whether a function takes ``w``, or makes it of a model."""
    taken = {argument.arg for argument in function.args.args}
    return bool({"w", "model"} & taken)


def unnamed_in(function, equations):
    """Operations of one layer that do not end in a kept tensor."""
    parents = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}
    layer = Layer(function, parents, equations)
    operations = [node for node in ast.walk(function) if is_operation(node, equations)]
    return [node for node in operations if not is_named(node, layer, set()) and ast.unparse(node) not in ONE_FORMULA]


class Layer(typing.NamedTuple):
    """A function to judge: its tree, each node's parent, and the names of the module's own equations."""

    function: ast.FunctionDef
    parents: dict
    equations: set


def is_operation(node, equations):
    """Whether a node computes an array: arithmetic on anything but sizes, or the call of an equation."""
    if isinstance(node, ast.BinOp):
        return not isinstance(node.op, COMPARISONS) and not counts(node)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and not counts(node.operand)
    return is_equation(node, equations) or (isinstance(node, ast.AugAssign) and not counts(node.value))


def is_equation(node, equations):
    """Whether a node calls what computes: NumPy, a module of equations, or a neighbour without w."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name):
        return node.func.id in equations - MOVES
    owner = node.func.value
    if isinstance(owner, ast.Name) and owner.id in MODULES_OF_EQUATIONS:
        return node.func.attr not in MOVES
    # A method of an array: x.mean().  Methods of w, cfg and inputs are none, nor are those of plain objects.
    return node.func.attr in {"sum", "mean", "max", "min", "cumsum", "prod", "std", "var", "dot", "clip", "round"}


def counts(node):
    """Whether arithmetic is about sizes alone: numbers, dimensions in upper case, lengths."""
    if isinstance(node, ast.BinOp):
        return counts(node.left) and counts(node.right)
    if isinstance(node, ast.Attribute):
        return node.attr in {"length", "ndim", "depth"} or node.attr.startswith("num_")
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
    return isinstance(node, ast.Constant) or (isinstance(node, ast.Name) and (node.id.isupper() or node.id in INDICES))


INDICES = {"start", "block", "index"}


def is_named(node, layer, seen):
    """Whether a value ends in a kept tensor: directly, or by way of a local that is read nowhere else."""
    while node is not layer.function:
        parent = layer.parents[node]
        if isinstance(parent, ast.Call) and is_keeping(parent):
            return True
        # An index chooses, and a comparison decides; neither is a tensor of the model.
        if isinstance(parent, ast.Compare) or (isinstance(parent, ast.Subscript) and node is parent.slice):
            return True
        # What enters an equation, a layer, or arithmetic with another tensor is a tensor of its own.
        if is_joined(node, parent) and not is_index(parent, layer):
            return False
        if isinstance(parent, ast.Assign):
            return all(is_read_well(target, layer, seen) for target in parent.targets)
        if isinstance(parent, ast.stmt):
            return False
        node = parent
    return False


def is_joined(node, parent):
    """Whether a value meets another one here: in a call that does more than move or round, in arithmetic of tensors."""
    if isinstance(parent, ast.Call) and node is not parent.func:
        called = parent.func.attr if isinstance(parent.func, ast.Attribute) else parent.func.id
        return called not in MOVES | {"inner"}
    if isinstance(parent, ast.BinOp):
        other = parent.right if node is parent.left else parent.left
        return not (counts(other) or is_scalar(other))
    return False


def is_scalar(node):
    """Whether a factor is one number: a field of the configuration, or a local called scale."""
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == "cfg"
    return isinstance(node, ast.Name) and node.id == "scale"


def is_index(node, layer):
    """Whether a node stands within an index, whose arithmetic is about places."""
    while node is not layer.function:
        parent = layer.parents[node]
        if isinstance(parent, ast.Subscript) and node is parent.slice:
            return True
        node = parent
    return False


def is_read_well(target, layer, seen):
    """Whether every reading of an assigned name ends in a kept tensor."""
    names = {name.id for name in ast.walk(target) if isinstance(name, ast.Name)} - seen
    readings = [
        node for node in ast.walk(layer.function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names
    ]
    return all(is_named(node, layer, seen | names) for node in readings)


def is_keeping(call):
    """Whether a call is ``w.keep(...)`` or ``w.show(...)``."""
    return isinstance(call.func, ast.Attribute) and call.func.attr in ("keep", "show")


@pytest.mark.parametrize("name", FILES)
def test_every_array_operation_of_a_layer_is_kept_or_part_of_what_is_kept(name):
    source = (SOURCE / f"{name}.py").read_text(encoding="utf-8")
    assert unnamed_operations(source, name) == []


MUTATIONS = {
    "a residual that is not kept": ("text", 'w.keep("middle", x + attn_branch)', "x + attn_branch"),
    "an equation that is not kept": (
        "text", 'w.keep("opened", blocks.in_cache(ops.gelu, gate, whole_rows=False))', "ops.gelu(gate)",
    ),
    "an equation hidden in another": (
        "text", 'w.keep("hidden", opened * up)', 'w.keep("hidden", ops.gelu(ops.linear(x, w["gate.weight"])) * up)',
    ),
    "arithmetic on a layer's argument": ("vision", 'mlp(mlp_norm, w.at("mlp"))', 'mlp(mlp_norm * 2.0, w.at("mlp"))'),
    "arithmetic on what a layer returns": (
        "vision", 'return w.keep("out", middle + mlp_out)', "return middle + mlp_out",
    ),
    "a local that another layer reads": (
        "attention", 'return w.keep("out", ', 'doubled = mixed * 2.0\n    late(doubled, w)\n    return w.keep("out", ',
    ),
    "a NumPy function": (
        "attention", "mixed = attend(q, k, v, None, w, cfg.query_scale, softcap=None)",
        "mixed = np.tanh(attend(q, k, v, None, w, cfg.query_scale, softcap=None))",
    ),
    "a method": ("paligemma", "return connect(patches,", "return connect(patches.cumsum(axis=1),"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_walk_finds_an_operation_without_a_name(mutation):
    name, right, wrong = MUTATIONS[mutation]
    source = (SOURCE / f"{name}.py").read_text(encoding="utf-8")
    assert right in source
    assert unnamed_operations(source.replace(right, wrong), name) != []
