"""Writes what transformers computes in bfloat16, by its own module names: a port that nobody here wrote, to be judged.

    python tools/golden/export_port.py FOLDER -o port.safetensors [--attention sdpa] [--wrong-gelu] [--dtype float32]
    npgemma compare port.safetensors IMAGE PROMPT --model FOLDER

Hooks alone look at it; nothing in it is changed, but for the GELU where that is asked for.  FOLDER is a checkpoint; the
question comes from a file of ``npgemma trace IMAGE PROMPT --only pixels,ids``.  Of the decoders, Gemma's alone can do
``--attention sdpa``.
"""

import argparse
import json
import pathlib

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PaliGemmaForConditionalGeneration

# Modules whose output is a tensor of npgemma's, by the end of their names; the names themselves go into the file.
OUTPUTS = (
    "patch_embedding", "layer_norm1", "layer_norm2", "q_proj", "k_proj", "v_proj", "out_proj", "o_proj", "fc1", "fc2",
    "post_layernorm", "multi_modal_projector.linear", "gate_proj", "up_proj", "down_proj", "input_layernorm",
    "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm", "language_model.norm",
    "act_fn", "activation_fn",
)
INPUTS = ("o_proj", "down_proj", "out_proj")


def question_of(path):
    """ids, token types, mask, positions and pixels of a trace."""
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata(), set(file.keys())
        pixels = file.get_tensor("pixels") if "pixels" in names else None
    names = ("ids", "token_types", "attention_mask", "positions")
    given = {name: torch.tensor(json.loads(metadata[name])) for name in names}
    return given, pixels


def hook_everything(model, found):
    """Record each module's output (and some inputs) under its name."""

    def keep(name):
        def record(_module, _arguments, out):
            tensor = out[0] if isinstance(out, tuple) else out
            # The first call wins: what a cache replays is not of this pass.
            found.setdefault(name, tensor.detach().clone().contiguous())

        return record

    def keep_input(name):
        def record(_module, arguments):
            found.setdefault(f"{name}.input", arguments[0].detach().clone().contiguous())

        return record

    for name, module in model.named_modules():
        if name.endswith(OUTPUTS):
            module.register_forward_hook(keep(name))
        if name.endswith(INPUTS):
            module.register_forward_pre_hook(keep_input(name))
        parts = name.split(".")
        if parts[-1].isdigit() and parts[-2] == "layers":
            module.register_forward_hook(keep(name))


def put_wrong_gelu(model):
    """Put the exact GELU where the tanh approximation belongs."""
    for module in model.modules():
        for name in ("act_fn", "activation_fn"):
            if hasattr(module, name):
                setattr(module, name, nn.GELU(approximate="none"))


def run(folder, question, dtype, attention, wrong_gelu):
    """Every recorded tensor of one forward pass."""
    model = PaliGemmaForConditionalGeneration.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()
    if wrong_gelu:
        put_wrong_gelu(model)
    found = {}
    hook_everything(model, found)
    found["lm_head"] = ask(model, question, dtype)
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}


def ask(model, question, dtype):
    """Run the model on a question: its logits, which the head's module gives before PaliGemma 2's final soft-cap."""
    given, pixels = question
    arguments = {"input_ids": given["ids"], "token_type_ids": given["token_types"],
                 "attention_mask": given["attention_mask"], "position_ids": given["positions"]}
    if pixels is not None:
        arguments["pixel_values"] = pixels.permute(0, 3, 1, 2).to(dtype)
    with torch.no_grad():
        return model(**arguments, use_cache=False).logits.contiguous()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--trace", type=pathlib.Path, required=True, help="a file of npgemma trace, for its question")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--attention", choices=("eager", "sdpa"), default="eager")
    parser.add_argument("--wrong-gelu", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    question = question_of(args.trace)
    tensors = run(args.folder, question, getattr(torch, args.dtype), args.attention, args.wrong_gelu)
    save_file(tensors, args.output)
    print(f"{len(tensors)} tensors of transformers, {args.dtype}, {args.attention}, written to {args.output}")


if __name__ == "__main__":
    main()
