"""Formulas: whole XML, what a paper would print, and equations that are those of the model."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from random_models import GENERATIONS

from npgemma import ops
from npgemma.base.tensors import Call, tensors
from npgemma.config import VARIANTS
from npgemma.explaining import mathml

CALL = Call(1, 1, 9, last_only=True)


def flat(element):
    """A formula as text, with a sign for what MathML shows by its form."""
    tag, parts = element.tag, [flat(child) for child in element]
    if tag == "mfrac":
        return f"({parts[0]})/({parts[1]})"
    if tag == "msqrt":
        return f"√({''.join(parts)})"
    if tag in ("msup", "msub"):
        return f"{parts[0]}{'^' if tag == 'msup' else '_'}{parts[1]}"
    if tag == "msubsup":
        return f"{parts[0]}_{parts[1]}^{parts[2]}"
    return (element.text or "") + " " * (tag == "mspace") + "".join(parts)


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("vision.patches", "vision.patches=patchify(pixels,patch_size) W_patches^⊤+b_patches"),
        ("text.blocks.1.attn_norm", "attn_norm=(x)/(√(mean(x^2)+norm_eps))⋅(1+W_attn_norm)"),
        ("text.blocks.1.attn.probs", "probs=softmax(hide(capped,mask.full))"),
        ("text.blocks.0.mlp.hidden", "hidden=opened⋅up"),
        ("text.cos", "text.cos=cos((positions)/(rope_theta^(2⋅i)/(H)))"),
        ("text.embedded", "text.embedded=W_embedded_ids⋅embed_scale"),
    ],
)
def test_a_formula_reads_as_in_a_paper(name, wanted):
    formula = mathml.equation(name, GENERATIONS["paligemma-2"], CALL)
    assert flat(ElementTree.fromstring(formula)) == wanted


@pytest.mark.parametrize("variant", ["paligemma-3b-224", "paligemma2-3b-448"])
def test_every_row_of_the_table_has_a_formula(variant):
    cfg = VARIANTS[variant]
    rows = {tensor.row.name: (name, tensor) for name, tensor in tensors(cfg, 1, 1, 9, last_only=True).items()}
    for name, tensor in rows.values():  # blocks differ by their number only
        if tensor.row.expression:
            root = ElementTree.fromstring(mathml.equation(name, cfg, CALL))
            assert root.tag == "math" and root.get("aria-label", "").startswith(name)


def test_what_holds_less_together_is_in_brackets():
    import ast

    for written, wanted in [("(a + b) * c", "(a+b)⋅c"), ("a - (b - c)", "a−(b−c)"), ("a - b - c", "a−b−c"),
                            ("(a @ b).T", "(a b)^⊤"), ("(-a)**2", "(−a)^2"), ("a * b + c", "a⋅b+c")]:
        inside = mathml.row(ast.parse(written, mode="eval").body)
        assert flat(ElementTree.fromstring(f"<m>{inside}</m>")) == wanted


def test_equations_that_the_table_only_names_are_those_of_the_model():
    x = np.linspace(-4, 4, 33)
    words = {"exp": np.exp, "sqrt": math.sqrt, "pi": math.pi, "sum": np.sum, "x": x}
    for written, equation in (("softmax(x)", ops.softmax), ("gelu(x)", ops.gelu)):
        assert eval(mathml.EQUATIONS[written], words) == pytest.approx(equation(x), rel=1e-12)
