"""Each equation alone, computed by the modules of torch and transformers, at the widths of released models."""

import golden_inputs
import torch
from golden_precision import (
    ROTARY_CLASSES,
    capped_scores,
    mixed_values,
    patched,
    probabilities,
    rotate_in_float32,
    scaled_scores,
)
from torch import nn
from torch.nn import functional
from transformers import Gemma2Config
from transformers.activations import ACT2FN
from transformers.models.gemma2 import modeling_gemma2

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bf16-hf-eager": torch.bfloat16,
    "bf16-f32-inside": torch.bfloat16,
}


def compute(name, precision):
    """Outputs of the equation ``name``, in full, as ``{output name: tensor}``."""
    equation = golden_inputs.EQUATIONS[name]
    dtype = DTYPES[precision]
    inputs = {}
    for key, array in golden_inputs.inputs_of(name).items():
        tensor = torch.from_numpy(array)
        inputs[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    with torch.no_grad(), patched(precision):
        out = FUNCTIONS[equation.kind](inputs, equation.constants, precision)
    return out if isinstance(out, dict) else {"out": out}


def inside_of(precision):
    """Dtype between two named tensors; None where transformers' own is meant."""
    return torch.float32 if precision == "bf16-f32-inside" else None


def linear(inputs, constants, precision):
    return functional.linear(inputs["x"], inputs["weight"], inputs.get("bias"))


def layer_norm(inputs, constants, precision):
    x = inputs["x"]
    return functional.layer_norm(x, x.shape[-1:], inputs["weight"], inputs["bias"], constants["eps"])


def rms_norm(inputs, constants, precision):
    norm = modeling_gemma2.Gemma2RMSNorm(inputs["x"].shape[-1], constants["eps"])
    norm.weight = nn.Parameter(inputs["weight"])
    return norm(inputs["x"])


def gelu(inputs, constants, precision):
    return ACT2FN["gelu_pytorch_tanh"](inputs["x"])


def softmax(inputs, constants, precision):
    """As the eager attention: the lowest finite number is added where a query may not look."""
    scores = inputs["scores"]
    lowest = torch.finfo(scores.dtype).min
    return probabilities(scores, torch.where(inputs["mask"], torch.zeros((), dtype=scores.dtype), lowest))


def soft_cap(inputs, constants, precision):
    return capped_scores(inputs["x"], constants["cap"], inside_of(precision))


def rotary_of(head, theta):
    config = Gemma2Config(head_dim=head, rope_parameters={"rope_type": "default", "rope_theta": theta})
    return ROTARY_CLASSES[1](config)


def angles(inputs, constants, precision):
    like = torch.zeros((), dtype=DTYPES[precision])
    cos, sin = rotary_of(constants["head"], constants["theta"])(like, inputs["positions"])
    half = constants["head"] // 2
    return {"cos": cos[..., :half].contiguous(), "sin": sin[..., :half].contiguous()}


def rotation(inputs, constants, precision):
    x = inputs["x"].transpose(1, 2)
    cos, sin = rotary_of(constants["head"], constants["theta"])(x, inputs["positions"])
    rotate = rotate_in_float32 if precision == "bf16-f32-inside" else modeling_gemma2.apply_rotary_pos_emb
    rotated = rotate(x, x, cos, sin)[0].transpose(1, 2).contiguous()
    # With the tables beside it the rotation is judged alone, without the rounding of far angles.
    half = constants["head"] // 2
    return {"out": rotated, "cos": cos[..., :half].contiguous(), "sin": sin[..., :half].contiguous()}


def scores(inputs, constants, precision):
    q, k = inputs["q"].transpose(1, 2), inputs["k"].transpose(1, 2)
    return scaled_scores(q, k, constants["scale"], inside_of(precision)).unflatten(1, (k.shape[1], -1)).contiguous()


def mixed(inputs, constants, precision):
    """Values mixed by probabilities, (B, T, K, G, H)."""
    v = inputs["v"].transpose(1, 2)
    return mixed_values(inputs["probs"].flatten(1, 2), v).unflatten(2, (v.shape[1], -1)).contiguous()


def patches(inputs, constants, precision):
    pixels = inputs["pixels"].permute(0, 3, 1, 2)
    out = functional.conv2d(pixels, inputs["weight"], inputs["bias"], stride=constants["patch"])
    return out.flatten(2).transpose(1, 2).contiguous()


def embed(inputs, constants, precision):
    weight = inputs["weight"]
    module = modeling_gemma2.Gemma2TextScaledWordEmbedding(*weight.shape, 0, embed_scale=weight.shape[1] ** 0.5)
    if precision == "float64":
        module.embed_scale = torch.tensor(module.scalar_embed_scale, dtype=torch.float64)
    module.weight = nn.Parameter(weight)
    return module(inputs["ids"])


FUNCTIONS = {
    "linear": linear,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
    "gelu": gelu,
    "softmax": softmax,
    "soft_cap": soft_cap,
    "angles": angles,
    "rotation": rotation,
    "scores": scores,
    "mixed": mixed,
    "patches": patches,
    "embed": embed,
}


def export(precision):
    """Stored samples of all equations that have a golden in ``precision``, named ``EQUATION/OUTPUT``."""
    tensors = {}
    for name in golden_inputs.EQUATIONS:
        if precision in golden_inputs.recipes_of(name):
            for output, tensor in compute(name, precision).items():
                tensors[f"{name}/{output}"] = golden_inputs.sample(tensor.contiguous(), precision).clone()
    return tensors
