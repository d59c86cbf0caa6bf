"""Faults of the norms: the gain, the epsilon, the order of roundings."""

import numpy as np

from npgemma import ops
from npgemma.judge.faults import with_equations, with_expressions
from npgemma.judge.near import rounded

RMS = (
    "text.blocks.{n}.attn_norm text.blocks.{n}.attn_post_norm text.blocks.{n}.mlp_norm text.blocks.{n}.mlp_post_norm "
    "text.norm"
)
LAYER = "vision.blocks.{n}.attn_norm vision.blocks.{n}.mlp_norm vision.norm"


def mean(x):
    """The mean over the last axis, which stays."""
    return np.mean(x, axis=-1, keepdims=True)


def normed(x, eps):
    """x over its root mean square."""
    return x * (1.0 / np.sqrt(mean(np.square(x)) + eps))


def eps_of(equation, value):
    """An equation of a norm that does not read its epsilon."""
    return lambda *arguments: equation(*arguments[:-1], value)


def layer_norm_biased(x, weight, bias, eps, count):
    """LayerNorm whose squares are divided by ``count`` of the width."""
    centred = x - mean(x)
    return centred * (1.0 / np.sqrt(mean(np.square(centred)) * count(x.shape[-1]) + eps)) * weight + bias


def layer_norm_in_steps(x, weight, bias, eps, of_mean, of_normed):
    """LayerNorm with a rounding of its mean, or of what leaves the division."""
    centred = x - of_mean(mean(x))
    return of_normed(centred * (1.0 / np.sqrt(mean(np.square(centred)) + eps))) * weight + bias


def same(x):
    """No rounding."""
    return x


EPS = (1e-5, 1e-6, 1e-12, 0.0)

FAULTS = [
    with_equations(
        "rms-norm-without-one",
        "RMSNorm multiplies by the stored gain; it is an offset, the gain is 1 + weight",
        RMS,
        rms_norm=lambda x, weight, eps: normed(x, eps) * weight,
    ),
    with_equations(
        "rms-norm-llama-order",
        "RMSNorm is rounded to bfloat16 before the gain (Llama's order); the gain comes first",
        RMS,
        rms_norm=lambda x, weight, eps: rounded(normed(x, eps)) * (1.0 + weight),
    ),
    with_equations(
        "rms-norm-llama-order-and-gain",
        "RMSNorm and its gain are each rounded to bfloat16 before they are multiplied",
        RMS,
        rms_norm=lambda x, weight, eps: rounded(normed(x, eps)) * rounded(1.0 + weight),
    ),
    with_equations(
        "rms-norm-gain-in-bf16",
        "1 + weight is rounded to bfloat16, which loses small offsets; add in float32",
        RMS,
        rms_norm=lambda x, weight, eps: normed(x, eps) * rounded(1.0 + weight),
    ),
    with_equations(
        "rms-norm-squares-in-bf16",
        "the mean square is rounded to bfloat16; keep it in float32",
        RMS,
        rms_norm=lambda x, weight, eps: x * (1.0 / np.sqrt(rounded(mean(np.square(x))) + eps)) * (1.0 + weight),
    ),
    with_equations(
        "rms-norm-eps-outside",
        "RMSNorm adds its epsilon to the root; it belongs inside, to the mean square",
        RMS,
        rms_norm=lambda x, weight, eps: x / (np.sqrt(mean(np.square(x))) + eps) * (1.0 + weight),
    ),
    with_equations(
        "rms-norm-centred",
        "the mean is subtracted, as in LayerNorm; RMSNorm does not",
        RMS,
        rms_norm=lambda x, weight, eps: normed(x - mean(x), eps) * (1.0 + weight),
    ),
    with_equations(
        "rms-norm-sum",
        "squares are summed where their mean is wanted",
        RMS,
        rms_norm=lambda x, weight, eps: x / np.sqrt(mean(np.square(x)) * x.shape[-1] + eps) * (1.0 + weight),
    ),
    *(
        with_equations(
            f"rms-norm-eps-{eps:g}",
            f"RMSNorm's epsilon is {eps:g}, whatever the configuration says (rms_norm_eps)",
            RMS,
            rms_norm=eps_of(ops.rms_norm, eps),
        )
        for eps in EPS
    ),
    *(
        with_equations(
            f"layer-norm-eps-{eps:g}",
            f"LayerNorm's epsilon is {eps:g}, whatever the configuration says (layer_norm_eps)",
            LAYER,
            layer_norm=eps_of(ops.layer_norm, eps),
        )
        for eps in EPS
    ),
    with_equations(
        "layer-norm-eps-outside",
        "LayerNorm adds its epsilon to the root; it belongs inside, to the variance",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: (
            (x - mean(x)) / (np.sqrt(mean(np.square(x - mean(x)))) + eps) * weight + bias
        ),
    ),
    with_equations(
        "layer-norm-unbiased",
        "the variance is divided by the width less one; LayerNorm's is biased, divided by the width",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: layer_norm_biased(x, weight, bias, eps, lambda C: C / (C - 1)),
    ),
    with_equations(
        "layer-norm-cast-before-affine",
        "LayerNorm is rounded to bfloat16 before its gain and bias",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: layer_norm_in_steps(x, weight, bias, eps, same, rounded),
    ),
    with_equations(
        "layer-norm-mean-in-bf16",
        "LayerNorm's mean is rounded to bfloat16; keep it in float32",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: layer_norm_in_steps(x, weight, bias, eps, rounded, same),
    ),
    with_equations(
        "layer-norm-without-bias",
        "LayerNorm's bias is left out",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: ops.layer_norm(x, weight, bias * 0.0, eps),
    ),
    with_equations(
        "layer-norm-without-mean",
        "the mean is not subtracted, as in RMSNorm; LayerNorm subtracts it",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: normed(x, eps) * weight + bias,
    ),
    with_equations(
        "layer-norm-gain-plus-one",
        "LayerNorm's gain is taken as an offset from one; it is a plain gain",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: ops.layer_norm(x, 1.0 + weight, bias, eps),
    ),
    with_expressions(
        "attn-norm-left-out",
        "the norm before attention is left out",
        {"text.blocks.{n}.attn_norm": "x * 1.0", "vision.blocks.{n}.attn_norm": "x * 1.0"},
    ),
    with_expressions(
        "norms-swapped",
        "the norms before attention and before the MLP have each other's weights",
        {
            "text.blocks.{n}.attn_norm": "rms_norm(x, mlp_norm.weight, norm_eps)",
            "text.blocks.{n}.mlp_norm": "rms_norm(middle, attn_norm.weight, norm_eps)",
            "vision.blocks.{n}.attn_norm": "layer_norm(x, mlp_norm.weight, mlp_norm.bias, norm_eps)",
            "vision.blocks.{n}.mlp_norm": "layer_norm(middle, attn_norm.weight, attn_norm.bias, norm_eps)",
        },
    ),
    with_expressions(
        "post-norm-taken-for-pre-norm",
        "the norm before the MLP has the weight of the norm behind attention: post_attention_layernorm is another norm"
        " in Gemma 2 than in Gemma",
        {"text.blocks.{n}.mlp_norm": "rms_norm(middle, attn_post_norm.weight, norm_eps)"},
    ),
    with_expressions(
        "final-norm-left-out",
        "the norm behind the last block is left out",
        {"text.norm": "x * 1.0", "vision.norm": "x * 1.0"},
    ),
]

FAULTS += [
    with_equations(
        "rms-norm-gain-left-out",
        "RMSNorm's gain is left out, as if its weights had not been loaded",
        RMS,
        rms_norm=lambda x, weight, eps: normed(x, eps),
    ),
    with_equations(
        "rms-norm-gain-of-two",
        "RMSNorm's weights are ones, as before they are loaded, and 1 + weight is 2",
        RMS,
        rms_norm=lambda x, weight, eps: normed(x, eps) * 2.0,
    ),
    with_equations(
        "layer-norm-weights-not-loaded",
        "LayerNorm's gain is one and its bias zero, as before they are loaded",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: ops.layer_norm(x, weight * 0.0 + 1.0, bias * 0.0, eps),
    ),
    with_equations(
        "layer-norm-gain-left-out",
        "LayerNorm's gain is left out",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: ops.layer_norm(x, weight * 0.0 + 1.0, bias, eps),
    ),
]

VARIANTS = [
    with_equations(
        "layer-norm-one-pass",
        "LayerNorm's variance is E[x^2] - E[x]^2, as Flax has it",
        LAYER,
        layer_norm=lambda x, weight, bias, eps: (
            (x - mean(x)) * (1.0 / np.sqrt(mean(np.square(x)) - np.square(mean(x)) + eps)) * weight + bias
        ),
    ),
]
