"""Faults of the MLP, of residuals and of the embedding."""

import math

import numpy as np

from npgemma.judge.faults import with_equations, with_expressions
from npgemma.judge.near import TRANSCENDENTAL, Near, rounded

GELU = "text.blocks.{n}.mlp.opened vision.blocks.{n}.mlp.hidden"
erf_of = np.vectorize(math.erf, otypes=[np.float64])


def erf(x):
    """The error function, whose slope is at most 2/sqrt(pi)."""
    value = erf_of(x.value)
    return Near(value, 1.13 * x.noise + TRANSCENDENTAL * x.unit, x.unit)


def gelu_by_erf(x):
    """The exact GELU."""
    return x * 0.5 * (1.0 + erf(x / math.sqrt(2.0)))


def gelu_by_tanh(x):
    """PyTorch's form of the tanh approximation, which loses the negative tail."""
    return x * 0.5 * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))))


def gelu_in_bf16(x):
    """PyTorch's form with every step rounded to bfloat16."""
    cube = rounded(rounded(rounded(x * x) * x) * 0.044715)
    tangent = rounded(np.tanh(rounded(rounded(x + cube) * math.sqrt(2.0 / math.pi))))
    return rounded(x * 0.5) * rounded(1.0 + tangent)


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + np.exp(-x))


FAULTS = [
    with_equations(
        "gelu-erf",
        "GELU is the exact one, by erf; PaliGemma has the tanh approximation (gelu_pytorch_tanh)",
        GELU,
        gelu=gelu_by_erf,
    ),
    with_equations(
        "gelu-quick",
        "GELU is x * sigmoid(1.702 x); PaliGemma has the tanh approximation",
        GELU,
        gelu=lambda x: x * sigmoid(1.702 * x),
    ),
    with_equations("silu", "SiLU stands where GELU belongs", GELU, gelu=lambda x: x * sigmoid(x)),
    with_equations("relu", "ReLU stands where GELU belongs", GELU, gelu=lambda x: np.where(x > 0.0, x, 0.0)),
    with_equations(
        "gelu-in-bf16", "every step of GELU is rounded to bfloat16; compute it in float32", GELU, gelu=gelu_in_bf16
    ),
    with_equations("gelu-left-out", "GELU is left out", GELU, gelu=lambda x: x * 1.0),
    with_expressions(
        "gate-and-up-swapped",
        "gate_proj and up_proj have each other's weights: GELU is for the gate",
        {
            "text.blocks.{n}.mlp.gate": "linear(mlp_norm, up.weight)",
            "text.blocks.{n}.mlp.up": "linear(mlp_norm, gate.weight)",
        },
    ),
    with_expressions("gelu-of-up", "GELU opens up instead of gate", {"text.blocks.{n}.mlp.opened": "gelu(up)"}),
    with_expressions(
        "gate-not-opened",
        "gate and up are multiplied without the GELU between",
        {"text.blocks.{n}.mlp.hidden": "gate * up"},
    ),
    with_expressions(
        "up-left-out",
        "the gate alone goes on; it is to be multiplied by up",
        {"text.blocks.{n}.mlp.hidden": "opened * 1.0"},
    ),
    with_expressions(
        "gate-and-up-added",
        "gate and up are added; they are to be multiplied",
        {"text.blocks.{n}.mlp.hidden": "opened + up"},
    ),
    # Residuals.
    with_expressions(
        "residual-left-out",
        "the block's input is not added to what attention gives",
        {
            "text.blocks.{n}.middle": "(attn_post_norm if post_norms else attn.out) * 1.0",
            "vision.blocks.{n}.middle": "attn.out * 1.0",
        },
    ),
    with_expressions(
        "residual-of-the-normed",
        "the normed input is added back; the residual is taken before the norm",
        {
            "text.blocks.{n}.middle": "attn_norm + (attn_post_norm if post_norms else attn.out)",
            "vision.blocks.{n}.middle": "attn_norm + attn.out",
        },
    ),
    with_expressions(
        "mlp-residual-left-out",
        "the MLP's result is not added to its input's residual",
        {
            "text.blocks.{n}.out": "(mlp_post_norm if post_norms else mlp.out) * 1.0",
            "vision.blocks.{n}.out": "mlp.out * 1.0",
        },
    ),
    with_expressions(
        "mlp-residual-of-the-block",
        "the block's input is added to the MLP's result; the middle belongs there",
        {
            "text.blocks.{n}.out": "x + (mlp_post_norm if post_norms else mlp.out)",
            "vision.blocks.{n}.out": "x + mlp.out",
        },
    ),
    with_expressions(
        "attn-post-norm-left-out",
        "Gemma 2's norm behind attention is left out",
        {"text.blocks.{n}.middle": "x + attn.out"},
    ),
    with_expressions(
        "mlp-post-norm-left-out",
        "Gemma 2's norm behind the MLP is left out",
        {"text.blocks.{n}.out": "middle + mlp.out"},
    ),
    with_expressions(
        "attn-post-norm-of-the-sum",
        "the norm behind attention is taken of the sum with the residual",
        {"text.blocks.{n}.attn_post_norm": "rms_norm(x + attn.out, attn_post_norm.weight, norm_eps)"},
    ),
    # The embedding, and soft tokens among it.
    with_expressions(
        "embedding-unscaled",
        "embeddings are not multiplied by sqrt(width)",
        {"text.embedded": "embed(ids, embedded.weight) * 1.0"},
    ),
    with_expressions(
        "embedding-scale-unrounded",
        "sqrt(width) is not rounded to bfloat16 before it multiplies embeddings (45.25, not 45.2548)",
        {"text.embedded": "embed(ids, embedded.weight) * embed_scale"},
    ),
    with_expressions(
        "embedding-scaled-twice",
        "embeddings are multiplied by sqrt(width) twice",
        {"text.embedded": "embed(ids, embedded.weight) * number(embed_scale) * number(embed_scale)"},
    ),
    with_expressions(
        "embedding-divided",
        "embeddings are divided by sqrt(width); they are to be multiplied",
        {"text.embedded": "embed(ids, embedded.weight) * (1.0 / number(embed_scale))"},
    ),
    with_expressions(
        "image-rows-scaled",
        "soft tokens are multiplied by sqrt(width) as embeddings are; they go in unscaled",
        {
            "text.spliced": (
                "splice(embedded, connector.out * number(embed_scale), image_places(ids, token_types, image_token_id))"
            )
        },
    ),
    with_expressions(
        "image-rows-scaled-unrounded",
        "soft tokens are multiplied by sqrt(width), not rounded; they go in unscaled",
        {
            "text.spliced": (
                "splice(embedded, connector.out * embed_scale, image_places(ids, token_types, image_token_id))"
            )
        },
    ),
    with_expressions(
        "image-rows-divided",
        "soft tokens are divided by sqrt(width), as transformers before 5.4 did; they go in unscaled",
        {
            "text.spliced": (
                "splice(embedded, connector.out * (1.0 / embed_scale), image_places(ids, token_types, image_token_id))"
            )
        },
    ),
    with_expressions(
        "image-rows-normalised",
        "each soft token is divided by its length; they go in unscaled",
        {
            "text.spliced": (
                "splice(embedded, unit_length(connector.out), image_places(ids, token_types, image_token_id))"
            )
        },
        unit_length=lambda x: x / np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True)),
    ),
    with_expressions(
        "image-rows-reversed",
        "soft tokens go in last first",
        {"text.spliced": "splice(embedded, backwards(connector.out), image_places(ids, token_types, image_token_id))"},
        backwards=lambda x: np.flip(x, axis=1),
    ),
    with_expressions(
        "image-rows-one-late",
        "soft tokens go in one place too far on",
        {"text.spliced": "splice(embedded, one_on(connector.out), image_places(ids, token_types, image_token_id))"},
        one_on=lambda x: np.roll(x, 1, axis=1),
    ),
    with_expressions(
        "image-rows-left-out", "soft tokens are not put among the embeddings", {"text.spliced": "embedded * 1.0"}
    ),
    # The head.
    with_expressions(
        "final-cap-left-out",
        "the final soft-cap is left out (transformers before 5.23.0, in PaliGemma 2)",
        {"text.logits": "linear(scored, embedded.weight)"},
    ),
    with_expressions(
        "final-cap-of-attention",
        "logits are bounded by the cap of the attention",
        {"text.logits": "soft_cap(inner(linear(scored, embedded.weight)), attn_softcap, inner)"},
    ),
    with_expressions(
        "final-cap-of-another-model",
        "logits are bounded by 30, whatever the configuration says",
        {"text.logits": "soft_cap(inner(linear(scored, embedded.weight)), 30.0, inner)"},
    ),
    with_expressions(
        "head-scaled",
        "logits are multiplied by sqrt(width): the head is the unscaled embedding table",
        {"text.logits": "linear(scored, embedded.weight) * embed_scale"},
    ),
]

VARIANTS = [
    with_equations(
        "gelu-by-tanh",
        "GELU is x/2 (1 + tanh u), PyTorch's form, which loses its negative tail below -3",
        GELU,
        gelu=gelu_by_tanh,
    ),
]
