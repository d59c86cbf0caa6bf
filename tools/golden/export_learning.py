"""Write golden/learning: losses, batch norm and ten optimiser steps, as PyTorch computes them in float64.

    python tools/golden/export_learning.py         half a minute; needs the packages of tools/requirements.txt

Inputs are made by golden_inputs and are not stored.  The ten steps are transformers' model on the whole batch.
"""

import json
import math
import pathlib
import platform
from unittest import mock

import golden_inputs
import golden_lessons
import golden_models
import torch
from export_gradients import teach
from golden_precision import load
from torch.nn import functional

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "golden" / "learning"
STEPS, WARM_UP, RATE, DECAY, LIMIT = 10, 3, 0.02, 0.1, 1.0


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = {
        "command": "python tools/golden/export_learning.py",
        "made_by": {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]},
        "sigmoid_loss": sigmoid_loss(spread=1.0),
        "sigmoid_loss_far": sigmoid_loss(spread=1.0, log_scale=math.log(1e4)),
        "softmax_loss": softmax_loss(math.log(1 / 0.07)),
        "softmax_loss_clamped": softmax_loss(math.log(1e4)),
        "cross_entropy": cross_entropy(),
        "batch_norm": batch_norm(),
        "steps": {name: ten_steps("tiny-2", name) for name in ("adamw", "muon")},
    }
    (FOLDER / "learning.json").write_text(json.dumps(found, indent=1) + "\n")


def leaf(seed, shape, spread=1.0):
    return torch.from_numpy(golden_inputs.bell(seed, shape, spread)).requires_grad_()


def prints(*tensors):
    """Fingerprints of the gradients that ``backward`` left."""
    return [golden_inputs.fingerprint(tensor.grad.numpy(), 900 + 3 * n).tolist() for n, tensor in enumerate(tensors)]


def sigmoid_loss(spread, log_scale=math.log(10.0)):
    """big_vision's loss, written with PyTorch: normalise, all pairs, log-sigmoid, mean over rows of sums."""
    images, texts = leaf(1, (7, 5), spread), leaf(2, (7, 5), spread)
    scale, bias = torch.tensor(log_scale, dtype=torch.float64), torch.tensor(-10.0, dtype=torch.float64)
    scale.requires_grad_(), bias.requires_grad_()
    logits = functional.normalize(images) @ functional.normalize(texts).T * scale.exp() + bias
    signs = 2 * torch.eye(7, dtype=torch.float64) - 1
    loss = -functional.logsigmoid(signs * logits).sum(dim=-1).mean()
    loss.backward()
    return {"loss": loss.item(), "gradients": prints(images, texts), "scalars": [scale.grad.item(), bias.grad.item()]}


def softmax_loss(log_scale):
    images, texts = leaf(3, (6, 5)), leaf(4, (6, 5))
    scale = torch.tensor(log_scale, dtype=torch.float64).requires_grad_()
    logits = functional.normalize(images) @ functional.normalize(texts).T * scale.exp().clamp(max=100.0)
    wanted = torch.arange(6)
    loss = (functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted)) / 2
    loss.backward()
    return {"loss": loss.item(), "gradients": prints(images, texts), "scalars": [scale.grad.item()]}


def cross_entropy():
    """Rows by the tied table through the soft-cap, some of them ignored."""
    x, table = leaf(5, (9, 11)), leaf(6, (53, 11), 0.5)
    logits = 2.0 * torch.tanh(x @ table.T / 2.0)
    loss = functional.cross_entropy(logits, torch.tensor([3, 0, -100, 52, 17, 17, -100, 8, 51]), reduction="sum") / 5
    loss.backward()
    return {"loss": loss.item(), "gradients": prints(x, table)}


def batch_norm():
    """Two batches through BatchNorm1d, then use; the gradients of the second."""
    norm = torch.nn.BatchNorm1d(6, eps=0.1, momentum=0.3, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(golden_inputs.bell(7, (6,))))
        norm.bias.copy_(torch.from_numpy(golden_inputs.bell(8, (6,))))
    norm(torch.from_numpy(golden_inputs.bell(9, (8, 6), 2.0, 1.0)))
    x = leaf(10, (8, 6), 3.0)
    norm.zero_grad()
    y = norm(x)
    (y * torch.from_numpy(golden_inputs.bell(11, (8, 6)))).sum().backward()
    statistics = {"mean": norm.running_mean.tolist(), "variance": norm.running_var.tolist()}
    used = norm.eval()(torch.from_numpy(golden_inputs.bell(12, (8, 6)))).detach()
    return statistics | {
        "y": y.detach().tolist(), "used": used.tolist(), "gradients": prints(x, norm.weight, norm.bias),
    }


def ten_steps(name, kind):
    """Losses of ten steps, clipped, warmed up, then down a cosine; and what weights became."""
    model = load(ROOT / "golden" / name, "float64").requires_grad_()
    lesson = golden_lessons.lessons(golden_models.config_of(name))["whole"]
    named = dict(model.named_parameters())
    optimisers = make_optimisers(named, kind)
    losses, norms = [], []
    # Muon's rounds run in bfloat16 in PyTorch; here in the dtype of the weights.
    with mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor):
        for step in range(STEPS):
            losses.append(teach(model, lesson))
            norms.append(torch.nn.utils.clip_grad_norm_(named.values(), LIMIT).item())
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = RATE * part(step)
                optimiser.step()
    weights = {
        key: golden_inputs.fingerprint(weight.detach().numpy(), golden_lessons.SEED).tolist()
        for key, weight in named.items()
        if "layers.1." in key or "embed_tokens" in key
    }
    return {"losses": losses, "norms": norms, "weights": weights}


def part(step):
    gone = max(0.0, (step - WARM_UP) / (STEPS - WARM_UP))
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * gone))


def make_optimisers(named, kind):
    """AdamW, or Muon for the matrices inside layers and AdamW for all others; only matrices inside layers forget."""
    inner = [weight for key, weight in named.items() if weight.dim() == 2 and ".layers." in key]
    others = [weight for key, weight in named.items() if weight.dim() != 2 or ".layers." not in key]
    groups = [{"params": others, "weight_decay": 0.0}]
    if kind == "adamw":
        groups.append({"params": inner, "weight_decay": DECAY})
    adam = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), eps=1e-8, foreach=False)
    if kind == "adamw":
        return [adam]
    muon = torch.optim.Muon(inner, lr=RATE, weight_decay=DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [adam, muon]


if __name__ == "__main__":
    main()
