"""Write golden/gradients: what PyTorch's autograd says of every weight, through transformers, in float64.

    python tools/golden/export_gradients.py        a minute on a CPU; needs the packages of tools/requirements.txt

Both tiny models, every kind of batch.  Of each gradient a fingerprint is stored (golden_inputs.fingerprint).
"""

import json
import pathlib
import platform
from unittest import mock

import golden_inputs
import golden_lessons
import golden_models
import golden_trace
import numpy as np
import torch
import transformers
from golden_precision import load, patched
from safetensors.torch import save_file
from torch.nn import functional
from transformers import PaliGemmaModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "golden" / "gradients"
INPUTS = ("ids", "token_types", "attention_mask", "positions", "labels")


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    kinds = {}
    for name in golden_models.MODELS:
        lessons = golden_lessons.lessons(golden_models.config_of(name))
        kinds[name] = list(lessons)
        save(export_model(name, lessons), FOLDER / f"{name}.safetensors")
    manifest = {
        "command": "python tools/golden/export_gradients.py",
        "made_by": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
        },
        "rows": "of each weight's array, (kinds of batch, 28): see fingerprint in tools/golden/golden_inputs.py",
        "kinds": kinds,
    }
    (FOLDER / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n")


def export_model(name, lessons):
    """The batches, their losses, and the fingerprints of each parameter's gradients by transformers' name."""
    model = load(ROOT / "golden" / name, "float64")
    found, losses = {}, []
    for lesson in lessons.values():
        loss = teach(model, lesson)
        losses.append(loss)
        for number, (key, weight) in enumerate(model.named_parameters()):
            gradient = np.zeros(tuple(weight.shape)) if weight.grad is None else weight.grad.numpy()
            numbers = golden_inputs.fingerprint(gradient, golden_lessons.SEED + 3 * number)
            found.setdefault(key, []).append(torch.from_numpy(numbers))
    tensors = {key: torch.stack(rows) for key, rows in found.items()}
    order = torch.arange(len(tensors))
    tensors |= {f"seed/{key}": golden_lessons.SEED + 3 * number for key, number in zip(tensors, order, strict=True)}
    for kind, lesson in lessons.items():
        tensors |= {f"{kind}/{each}": torch.from_numpy(lesson[each]) for each in (*INPUTS, "picked")}
    return tensors | {"losses": torch.tensor(losses, dtype=torch.float64)}


def teach(model, lesson):
    """Leave the gradients of the mean loss of a lesson in the parameters; gives the loss."""
    model.zero_grad(set_to_none=True)
    wanted = torch.from_numpy(lesson["labels"])
    with patched("float64"), prefix_only(lesson["token_types"]):
        logits = model(**golden_trace.arguments(lesson, torch.float64), use_cache=False).logits
    loss = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=golden_lessons.IGNORED)
    loss.backward()
    return loss.item()


def prefix_only(token_types):
    """transformers takes each image token for a picture's; this leaves those of a suffix alone."""
    original = PaliGemmaModel.get_placeholder_mask
    in_prefix = torch.from_numpy(token_types == 0)
    if not in_prefix.any():
        in_prefix = torch.ones_like(in_prefix)

    def masked(self, input_ids, inputs_embeds, image_features):
        words = torch.where(in_prefix, input_ids, torch.zeros_like(input_ids))
        return original(self, words, inputs_embeds, image_features)

    return mock.patch.object(PaliGemmaModel, "get_placeholder_mask", masked)


def save(tensors, path):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    path.chmod(0o644)  # safetensors writes files that only their owner can read


if __name__ == "__main__":
    main()
