"""Known mistakes of going backwards, put in by hand: each must fail the goldens of gradients, in the batch named."""

import numpy as np
import pytest
from golden_gradients import differences

from npgemma import masks
from npgemma import ops as forward
from npgemma import rotary as forward_rotary
from npgemma.backward import attention, ops, paligemma, rotary, text, vision, weighted
from npgemma.backward.tape import Product, Rows, Sums
from npgemma.base.precision import unrounded
from npgemma.learn import losses

RIGHT = {
    name: getattr(ops, name)
    for name in ("linear", "rms_norm", "layer_norm", "gelu", "softmax", "product", "splice", "patchify", "embed")
}
ATTEND = attention.attend


def no_slope_of_the_cap(d_mixed, q, k, v, t, scale, softcap):
    return ATTEND(d_mixed, q, k, v, t, scale, None)


class NoSlopeOfTheCap:
    @staticmethod
    def soft_cap(d_y, y, cap):
        return d_y


def table_used_once(d_embedded, ids, t, cfg):
    t.keep("embedded", d_embedded)


def table_not_scaled(d_embedded, ids, t, cfg):
    t.add("embedded.weight", ops.embed(d_embedded, ids, t["embedded.weight"]))


def gain_without_one(d_y, x, weight, eps):
    return RIGHT["rms_norm"](d_y, x, weight - 1.0, eps)


def norm_without_eps(d_y, x, weight, eps):
    return RIGHT["rms_norm"](d_y, x, weight, 1e-6)


def mean_over_the_batch(d_y, x, weight, eps):
    """Takes the mean over positions where the norm took it over the width."""
    rstd = 1.0 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)
    normed, d_normed = x * rstd, d_y * (1.0 + weight)
    d_x = rstd * (d_normed - normed * np.mean(d_normed * normed, axis=-2, keepdims=True))
    return d_x, ops.over_rows(d_y * normed)


def layer_norm_whose_mean_is_a_constant(d_y, x, weight, bias, eps):
    d_x, *rest = RIGHT["layer_norm"](d_y, x, weight, bias, eps)
    return d_x + np.mean(d_y * weight, axis=-1, keepdims=True), *rest


def gelu_of_the_error_function(d_y, x):
    s = 1.0 / (1.0 + np.exp(-1.702 * x))
    return d_y * (s + 1.702 * x * s * (1.0 - s))


def softmax_without_the_rows_mean(d_p, p):
    return p * d_p


def mask_leaks(d_p, p):
    return RIGHT["softmax"](d_p, p + 1e-3)


def scale_twice(d_mixed, q, k, v, t, scale, softcap):
    return ATTEND(d_mixed, q, k, v, t, scale * scale, softcap)


def turned_on(d_y, cos, sin):
    """Rotates the gradient as the query was, not back."""
    return forward_rotary.rotate(d_y, cos, sin, unrounded)


def groups_not_summed(d_y, a, b):
    """A shared key gets the gradient of the first head of its group only."""
    d_a, _ = RIGHT["product"](d_y, a, b)
    return d_a, a[:, :, :1].mT @ d_y[:, :, :1]


def image_tokens_keep_their_gradient(d_spliced, soft, places):
    return d_spliced, RIGHT["splice"](d_spliced, soft, places)[1]


def image_id_of_a_suffix_is_a_picture(ids, token_types, image_token_id):
    places = ids == image_token_id
    return places & (np.cumsum(places, axis=1) > 1)


def repeated_ids_overwrite(self):
    whole = np.zeros((self.size, self.d_rows.shape[1]))
    whole[self.ids] = self.d_rows
    return whole


def residual_forgotten(d_out, x, t, cfg):
    d_attn_norm = attention.vision_attention(d_out, t["attn_norm"], t.at("attn"), cfg)
    return weighted.layer_norm(d_attn_norm, x, t, "attn_norm", cfg.norm_eps)


def transposed_product(self):
    whole = self.left.T @ self.right
    return whole.T.copy() if whole.shape[0] == whole.shape[1] else whole


def later_uses_replace_earlier(self, name, d_weight):
    self[name] = d_weight.whole() if hasattr(d_weight, "whole") else d_weight


def post_norm_skipped(d_y, name, x, t, cfg):
    return d_y


def pixels_before_channels(pixels, patch_size):
    flat = forward_patchify(pixels, patch_size)
    return flat.reshape(*flat.shape[:2], 3, -1).swapaxes(2, 3).reshape(flat.shape)


forward_patchify = forward.patchify

# Name: module or class, name, replacement, the model and the batch whose golden must fail.
FAULTS = {
    "no slope of the attention's cap": (attention, "attend", no_slope_of_the_cap, "tiny-2", "suffix"),
    "no slope of the last cap": (losses, "backward", NoSlopeOfTheCap, "tiny-2", "suffix"),
    "tied table used once": (text, "embed", table_used_once, "tiny-1", "whole"),
    "lookup not scaled by sqrt(D)": (text, "embed", table_not_scaled, "tiny-1", "whole"),
    "1 + dropped": (ops, "rms_norm", gain_without_one, "tiny-1", "whole"),
    "eps forgotten": (ops, "rms_norm", norm_without_eps, "tiny-1", "whole"),
    "mean over another axis": (ops, "rms_norm", mean_over_the_batch, "tiny-2", "causal"),
    "LayerNorm's mean a constant": (ops, "layer_norm", layer_norm_whose_mean_is_a_constant, "tiny-1", "whole"),
    "slope of another GELU": (ops, "gelu", gelu_of_the_error_function, "tiny-1", "text_only"),
    "softmax without its row's mean": (ops, "softmax", softmax_without_the_rows_mean, "tiny-1", "empty_prompt"),
    "mask leaks": (ops, "softmax", mask_leaks, "tiny-2", "left_padding"),
    "scale twice": (attention, "attend", scale_twice, "tiny-1", "causal"),
    "rotated on, not back": (rotary, "rotate", turned_on, "tiny-2", "whole"),
    "group's keys not summed": (ops, "product", groups_not_summed, "tiny-2", "right_padding"),
    "pictures reach the table": (ops, "splice", image_tokens_keep_their_gradient, "tiny-2", "several_pictures"),
    "image id of a suffix taken for a picture": (
        masks, "image_places", image_id_of_a_suffix_is_a_picture, "tiny-2", "image_id_in_suffix"
    ),
    "repeated ids overwrite": (Rows, "whole", repeated_ids_overwrite, "tiny-1", "whole"),
    "residual forgotten": (vision, "block", residual_forgotten, "tiny-1", "uneven_pictures"),
    "square matrices transposed": (Product, "whole", transposed_product, "tiny-1", "whole"),
    "second use replaces the first": (Sums, "add", later_uses_replace_earlier, "tiny-2", "text_only"),
    "post-norms skipped": (text, "post_norm", post_norm_skipped, "tiny-2", "generation_positions"),
    "pixels before channels": (forward, "patchify", pixels_before_channels, "tiny-1", "several_pictures"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_the_golden_of_gradients(fault, monkeypatch):
    place, name, replacement, model, kind = FAULTS[fault]
    if place in (masks, forward):
        # The forward pass stays right: only what goes backwards is at fault.
        module = paligemma.masks if place is masks else vision.forward
        stub = type("stub", (), dict(vars(module)) | {name: staticmethod(replacement)})
        monkeypatch.setattr(paligemma if place is masks else vision, "masks" if place is masks else "forward", stub)
    else:
        monkeypatch.setattr(place, name, replacement)
    assert differences(model, kind)


def test_there_are_at_least_fifteen_faults():
    assert len(FAULTS) >= 15
