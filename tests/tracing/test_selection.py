"""The table of tensors: what it says of names, axes, sizes and places is what runs do."""

import ast
import inspect

import numpy as np
import pytest
from random_models import GENERATIONS, random_model, random_prompt

from npgemma import forward
from npgemma.base.errors import InputError
from npgemma.base.expressions import explained
from npgemma.base.tensors import tensors
from npgemma.config import VARIANTS
from npgemma.tracing.selection import as_patterns, check_patterns, matches, nearest
from npgemma.tracing.sources import made_at


def shown(model, **prompt):
    """Every tensor of a run: name, shape and dtype, in order."""
    seen = {}

    def observe(name, x):
        assert name not in seen
        seen[name] = (x.shape, x.dtype)

    forward(model, **prompt, observe=observe)
    return seen


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("precision, floating", [("float64", np.float64), ("bf16-hf-eager", np.float32)])
def test_the_table_has_the_names_order_shapes_and_dtypes_of_a_run(generation, precision, floating):
    cfg = GENERATIONS[generation]
    prompt = random_prompt(cfg, num_rows=3)
    seen = shown(random_model(cfg, precision), **prompt)
    table = tensors(cfg, batch=3, pictures=3, length=prompt["ids"].shape[1])
    assert list(table) == list(seen)
    assert {name: (tensor.shape, tensor.dtype(floating)) for name, tensor in table.items()} == seen


def test_without_pictures_the_vision_tower_is_left_out():
    cfg = GENERATIONS["paligemma-1"]
    seen = shown(random_model(cfg), ids=[[2, 5, 6]])
    assert list(tensors(cfg, pictures=0, length=3)) == list(seen)


def test_last_only_leaves_one_position_of_the_logits():
    cfg = GENERATIONS["paligemma-2"]
    logits = tensors(cfg, batch=2, pictures=0, length=7, last_only=True)["text.logits"]
    assert logits.shape == (2, 1, 43)
    assert logits.letters == "B 1 V"


def test_a_trace_of_the_3b_at_224_pixels_takes_two_and_a_half_gigabytes_without_its_logits():
    table = tensors(VARIANTS["paligemma-3b-224"], length=256 + 8)
    assert table["text.logits"].nbytes(np.float32) == 264 * 257_152 * 4
    rest = sum(tensor.nbytes(np.float32) for name, tensor in table.items() if name != "text.logits")
    # The scores of one block of the decoder are 8 * 264 * 264 * 4 bytes = 2.2 MB; three matrices of the MLP 17 MB each.
    assert 2.4e9 < rest < 2.5e9


@pytest.mark.parametrize("variant", ["paligemma-3b-224", "paligemma2-3b-224"])
def test_the_source_line_of_each_tensor_keeps_that_name(variant):
    for name, tensor in tensors(VARIANTS[variant]).items():
        file, line = made_at(tensor.row.kept_in, name)
        code = file.read_text(encoding="utf-8").splitlines()[line - 1]
        short = name if name.startswith("mask.") else name.split(".")[-1]
        assert f'"{short}"' in code, f"{name}: {file.name}:{line}"


def test_the_source_line_lies_in_the_function_that_is_named():
    import npgemma.attention

    _, line = made_at("attention.attend", "text.blocks.3.attn.scores")
    lines, first = inspect.getsourcelines(npgemma.attention.attend)
    assert first <= line < first + len(lines)
    with pytest.raises(LookupError, match="attention.attend keeps no 'q'"):
        made_at("attention.attend", "text.blocks.3.attn.q")


def test_formulas_name_only_tensors_that_the_model_has():
    one, two = VARIANTS["paligemma-3b-224"], VARIANTS["paligemma2-3b-224"]
    formulas = {name: explained(name, tensor, one) for name, tensor in tensors(one).items()}
    assert formulas["text.blocks.0.middle"] == "x + attn.out"
    assert not any("capped" in formula or "post_norm" in formula for formula in formulas.values())
    assert explained("text.blocks.0.middle", tensors(two)["text.blocks.0.middle"], two) == "x + attn_post_norm"


@pytest.mark.parametrize(
    "name, pattern, fits",
    [
        ("text.blocks.3.attn.q", "text.*", True),
        ("text.blocks.3.attn.q", "text.blocks.3.attn.q", True),
        ("text.blocks.13.attn.q", "text.blocks.[0-3].attn.q", False),
        ("text.blocks.3.attn.q_rot", "*.attn.q", False),
        ("step.2.text.logits", "text.logits", True),
        ("step.2.text.logits", "step.2.*", True),
        ("step.12.text.logits", "step.2.*", False),
    ],
)
def test_patterns_may_leave_the_step_out(name, pattern, fits):
    assert matches(name, [pattern]) is fits


def test_patterns_come_one_by_one_or_between_commas():
    assert as_patterns("a.*, b") == ("a.*", "b")
    assert as_patterns(["a", "b,c"]) == ("a", "b", "c")


def test_a_pattern_that_fits_nothing_names_the_nearest():
    table = tensors(GENERATIONS["paligemma-2"])
    with pytest.raises(InputError, match=r"'text.block.0.attn.prob' fits none of 108 tensors; nearest: .*attn.probs"):
        check_patterns(["text.block.0.attn.prob"], table)
    assert nearest("text.blocks.99.attn.k_rot", table)[0] == "text.blocks.*.attn.k_rot"


def test_every_name_that_the_source_keeps_is_in_the_table():
    """The other way round: no layer keeps what the table does not know."""
    from npgemma import attention, paligemma, text, vision

    known = {name.split(".")[-1] for cfg in GENERATIONS.values() for name in tensors(cfg)}
    kept = set()
    for module in (attention, vision, text, paligemma):
        calls = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
        for call in calls:
            is_keeping = isinstance(call.func, ast.Attribute) and call.func.attr in ("keep", "show")
            if is_keeping and isinstance(call.args[0], ast.Constant):
                kept.add(call.args[0].value.split(".")[-1])
    assert kept <= known
    assert len(kept) > 25
