"""Known mistakes, put in by hand: each must fail a named golden, and its first differing tensor must name the place.

This is the mutation test of the goldens: a fault that slips through here would slip through everywhere.
"""

import dataclasses
import functools
import math

import numpy as np
import pytest

import golden
from npgemma import attention, masks, ops, paligemma, rotary
from npgemma.base.precision import round_bf16

RIGHT = {
    "rms_norm": ops.rms_norm,
    "layer_norm": ops.layer_norm,
    "attend": attention.attend,
    "prefix_lm": masks.prefix_lm,
    "sliding_prefix_lm": masks.sliding_prefix_lm,
    "splice": paligemma.splice,
    "patchify": ops.patchify,
    "angles": rotary.angles,
}
erf = np.vectorize(math.erf)


# ---- faults that replace a function: (module, name, replacement) ----


def rms_norm_without_one(x, weight, eps):
    return RIGHT["rms_norm"](x, weight - 1.0, eps)


def rms_norm_in_llamas_order(x, weight, eps):
    """Rounded before the gain, and the gain rounded: what costs bfloat16 a third of its bits."""
    rstd = 1.0 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)
    return round_bf16(x * rstd) * round_bf16(1.0 + weight)


def rms_norm_with_eps_outside_the_root(x, weight, eps):
    return x / (np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True)) + eps) * (1.0 + weight)


def layer_norm_with_eps_outside_the_root(x, weight, bias, eps):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / (np.std(centred, axis=-1, keepdims=True) + eps) * weight + bias


def layer_norm_with_default_eps(x, weight, bias, eps):
    return RIGHT["layer_norm"](x, weight, bias, 1e-6)


def exact_gelu(x):
    return x * 0.5 * (1.0 + erf(x / math.sqrt(2.0)))


def attend_with_groups_before_heads(q, k, v, mask, w, scale, softcap):
    """Reads query head n as g * K + k instead of k * G + g."""
    B, T, N, H = q.shape
    K = k.shape[2]
    swapped = q.reshape(B, T, N // K, K, H).swapaxes(2, 3).reshape(B, T, N, H)
    return RIGHT["attend"](swapped, k, v, mask, w, scale, softcap)


def rotate_neighbours(x, cos, sin, inner):
    """Turns channels 2i and 2i + 1 together, as the paper draws it."""
    c, s = cos[:, :, None], sin[:, :, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = np.stack([even * c - odd * s, odd * c + even * s], axis=-1)
    return turned.reshape(x.shape)


def suffix_that_starts_one_late(token_types, attention_mask, num_queries):
    later = np.concatenate([np.zeros_like(token_types[:, :1]), token_types[:, :-1]], axis=1)
    return RIGHT["prefix_lm"](later, attention_mask, num_queries)


def suffix_that_starts_one_early(token_types, attention_mask, num_queries):
    earlier = np.concatenate([token_types[:, 1:], np.ones_like(token_types[:, :1])], axis=1)
    return RIGHT["prefix_lm"](earlier, attention_mask, num_queries)


def no_bidirectional_prefix(token_types, num_queries):
    return np.zeros((token_types.shape[0], num_queries, token_types.shape[1]), dtype=bool)


def window_moved_by(change, token_types, attention_mask, num_queries, window):
    return RIGHT["sliding_prefix_lm"](token_types, attention_mask, num_queries, window + change)


def hiding_before_the_cap(scores, mask):
    """Masks first and caps afterwards: a masked score becomes -cap, which is no mask at all."""
    cap = 1.5
    return np.where(mask[:, None, None], scores, -cap)


def no_soft_cap(x, cap, inner):
    return x


def no_soft_cap_on_logits(x, cap, inner):
    return x if x.ndim == 3 else cap * np.tanh(x / cap)


def patches_column_by_column(pixels, patch_size):
    return RIGHT["patchify"](pixels.transpose(0, 2, 1, 3), patch_size)


def pixels_before_channels(pixels, patch_size):
    """Flattens a patch as row, column, channel, as big_vision does."""
    flat = RIGHT["patchify"](pixels, patch_size)
    return flat.reshape(*flat.shape[:2], 3, -1).swapaxes(2, 3).reshape(flat.shape)


def positions_from_zero(positions, head_dim, theta, dtype):
    return RIGHT["angles"](positions - 1, head_dim, theta, dtype)


def splice_with_scaled_rows(factor, embedded, soft, image_places, w):
    return RIGHT["splice"](embedded, None if soft is None else soft * embedded.shape[-1] ** factor, image_places, w)


# ---- faults in what is read from the configuration ----


def with_text(changed):
    """The tiny-2 model with another decoder configuration."""
    right = golden.model("tiny-2", "float64")
    text = dataclasses.replace(right.config.text, **changed(right.config.text))
    return dataclasses.replace(right, config=dataclasses.replace(right.config, text=text))


def windows_on_the_other_layers(text):
    window = text.sliding_window
    return {"layer_windows": tuple(None if own else window for own in text.layer_windows)}


def query_scale_from_head_size(text):
    return {"query_pre_attn_scalar": text.head_dim}


def default_norm_eps(text):
    return {"norm_eps": 1e-6}


REPLACED = {
    "RMSNorm without 1 +": (ops, "rms_norm", rms_norm_without_one, "tiny-2", "text.blocks.0.attn_norm"),
    "RMSNorm's eps outside the root": (
        ops, "rms_norm", rms_norm_with_eps_outside_the_root, "tiny-1", "text.blocks.0.attn_norm",
    ),
    "LayerNorm's eps outside the root": (
        ops, "layer_norm", layer_norm_with_eps_outside_the_root, "tiny-1", "vision.blocks.0.attn_norm",
    ),
    "LayerNorm's eps not read": (ops, "layer_norm", layer_norm_with_default_eps, "tiny-2", "vision.blocks.0.attn_norm"),
    "erf GELU, vision tower": (ops, "gelu", exact_gelu, "tiny-1", "vision.blocks.0.mlp.hidden"),
    "K and G swapped": (attention, "attend", attend_with_groups_before_heads, "tiny-2", "text.blocks.0.attn.scores"),
    "interleaved rotation": (rotary, "rotate", rotate_neighbours, "tiny-1", "text.blocks.0.attn.q_rot"),
    "suffix one late": (masks, "prefix_lm", suffix_that_starts_one_late, "tiny-1", "mask.full"),
    "suffix one early": (masks, "prefix_lm", suffix_that_starts_one_early, "tiny-2", "mask.full"),
    "causal prefix": (masks, "both_in_prefix", no_bidirectional_prefix, "tiny-1", "mask.full"),
    "window one too wide": (
        masks, "sliding_prefix_lm", functools.partial(window_moved_by, 1), "tiny-2", "mask.sliding",
    ),
    "window one too narrow": (
        masks, "sliding_prefix_lm", functools.partial(window_moved_by, -1), "tiny-2", "mask.sliding",
    ),
    "soft-cap after the mask": (masks, "hide", hiding_before_the_cap, "tiny-2", "text.blocks.0.attn.probs"),
    "soft-cap left out": (ops, "soft_cap", no_soft_cap, "tiny-2", "text.blocks.0.attn.capped"),
    "final soft-cap left out": (ops, "soft_cap", no_soft_cap_on_logits, "tiny-2", "text.logits"),
    "patches column by column": (ops, "patchify", patches_column_by_column, "tiny-1", "vision.patches"),
    "a patch's pixels before its channels": (ops, "patchify", pixels_before_channels, "tiny-2", "vision.patches"),
    "positions from zero": (rotary, "angles", positions_from_zero, "tiny-1", "text.cos"),
    "image rows divided by sqrt(D)": (
        paligemma, "splice", functools.partial(splice_with_scaled_rows, -0.5), "tiny-1", "text.spliced",
    ),
    "image rows multiplied by sqrt(D)": (
        paligemma, "splice", functools.partial(splice_with_scaled_rows, 0.5), "tiny-2", "text.spliced",
    ),
}
CONFIGURED = {
    "window on the wrong layers": (windows_on_the_other_layers, "text.blocks.0.attn.probs"),
    "query scale from the head size": (query_scale_from_head_size, "text.blocks.0.attn.scores"),
    "RMSNorm's eps not read": (default_norm_eps, "text.blocks.0.attn_norm"),
}


def first_difference(name, changed_model=None):
    """Name of the first tensor that differs in the whole trace of the model ``name``, end to end in float64."""
    differences = golden.run(golden.trace_case(name, "float64"), changed_model=changed_model).differences
    return differences[0].name if differences else None


def test_nothing_differs_before_a_fault_is_put_in():
    assert [first_difference(name) for name in golden.MODELS] == [None, None]


@pytest.mark.parametrize("fault", REPLACED)
def test_fault_is_named_by_the_first_tensor_that_differs(fault, monkeypatch):
    module, name, replacement, folder, expected = REPLACED[fault]
    monkeypatch.setattr(module, name, replacement)
    assert first_difference(folder) == expected


@pytest.mark.parametrize("fault", CONFIGURED)
def test_fault_in_the_configuration_is_named_by_the_first_tensor_that_differs(fault):
    changed, expected = CONFIGURED[fault]
    assert first_difference("tiny-2", with_text(changed)) == expected


@pytest.mark.parametrize("precision", ["bf16-hf-eager", "bf16-f32-inside"])
@pytest.mark.parametrize("name", golden.MODELS)
def test_llamas_cast_order_shows_in_every_rms_norm_and_nowhere_else(name, precision, monkeypatch):
    """Float64 cannot see this fault, and at the logits it drowns in bfloat16's own noise: only inject mode names it."""
    monkeypatch.setattr(ops, "rms_norm", rms_norm_in_llamas_order)
    case = golden.trace_case(name, precision)
    wrong = [difference.name for difference in golden.run(case, inject=True).differences]
    norms = [key for key in case.expected if key.startswith("text.") and key.endswith("norm")]
    assert wrong[0] == "text.blocks.0.attn_norm"
    assert set(wrong) == set(norms)


def test_embedding_scale_that_is_not_rounded_shows_in_bfloat16():
    """The scale of tiny-1 is sqrt(40), 6.3125 in bfloat16; that of PaliGemma 2 3B is 48 and cannot show it."""
    right = golden.model("tiny-1", "bf16-hf-eager")
    # Of all that is rounded only the scale is a single number.
    precision = dataclasses.replace(right.weights.precision, store=lambda x: x if x.size == 1 else round_bf16(x))
    changed = dataclasses.replace(right, weights=dataclasses.replace(right.weights, precision=precision))
    case = golden.trace_case("tiny-1", "bf16-hf-eager")
    differences = golden.run(case, inject=True, changed_model=changed).differences
    assert [difference.name for difference in differences] == ["text.embedded"]


def test_erf_gelu_in_the_decoder_alone_is_named_too(monkeypatch):
    right = ops.gelu
    # The decoder's MLP of tiny-1 is 58 wide, the vision tower's 90.
    monkeypatch.setattr(ops, "gelu", lambda x: exact_gelu(x) if x.shape[0] == 58 else right(x))
    assert first_difference("tiny-1") == "text.blocks.0.mlp.opened"


def test_equation_alone_sees_a_wrong_eps_of_the_release():
    """An eps of 1e-6 shows only where a vector is small, so one of the golden's is."""
    inputs = golden.golden_inputs.inputs_of("rms_norm.2048")
    expected = golden.read("equations/float64")["rms_norm.2048/out"]
    real = np.ones(expected.shape, dtype=bool)
    for eps, equal in ((1e-6, True), (1e-5, False), (0.0, False)):
        ours = golden.golden_inputs.sample(RIGHT["rms_norm"](inputs["x"], inputs["weight"], eps), "float64")
        assert (golden.by_size("rms_norm.2048/out", ours, expected, real, 1e-13) is None) == equal
