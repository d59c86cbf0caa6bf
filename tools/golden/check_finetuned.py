"""Load what ``npgemma finetune`` wrote with transformers and peft, and what peft wrote with npgemma: logits are equal.

    PYTHONPATH=. python tools/golden/check_finetuned.py        half a minute; needs tools/requirements.txt and peft

Prints a line a check, the largest difference of logits over the largest logit, and exits with 3 above 1e-5.
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PaliGemmaForConditionalGeneration

import npgemma
from npgemma import cli
from npgemma.checkpoints.loading import TINY

ALLOWED = 1e-5
WORDS = ["--steps", "3", "--batch", "2", "--held-out", "0", "--rate", "0.003"]
ROWS = (("1-word.png", "what colors?", "red, blue"), ("3-number.png", "ocr", "12"))


def main():
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        data = folder / "data.jsonl"
        rows = [{"image": str(TINY / "pictures" / row[0]), "prefix": row[1], "suffix": row[2]} for row in ROWS]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        differences = {
            "whole model, in transformers": whole(data, folder / "whole"),
            "adapter, in peft": adapter(data, folder / "adapter"),
            "adapter of both towers, in peft": adapter(data, folder / "both", "--on", "*.attn.*,vision.*.mlp.*"),
            "adapter that peft trained, here": theirs(folder / "theirs"),
        }
    for check, difference in differences.items():
        print(f"{check}: logits off by {difference:.1e} of the largest")
    sys.exit(3 if max(differences.values()) > ALLOWED else 0)


def finetune(data, out, *words):
    if cli.main(["finetune", str(data), "-o", str(out), *WORDS, *words]):
        raise SystemExit("npgemma finetune failed")


def whole(data, out):
    finetune(data, out)
    return apart(npgemma.load(out), transformers_model(out))


def adapter(data, out, *words):
    finetune(data, out, "--lora", "4", *words)
    learnt = PeftModel.from_pretrained(transformers_model(TINY), str(out)).eval()
    plain = apart(npgemma.load(), learnt)
    if plain < 1e-3:
        raise SystemExit("the adapter changes nothing, so that the check proves nothing")
    return apart(npgemma.load(adapter=out), learnt)


def theirs(out):
    """An adapter as peft trains it, with names as its users write them."""
    torch.manual_seed(0)
    modules = ["q_proj", "v_proj", "down_proj"]
    model = get_peft_model(transformers_model(TINY), LoraConfig(r=3, lora_alpha=12, target_modules=modules))
    optimiser = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=3e-3)
    for _ in range(3):
        logits = model(**question(), use_cache=False).logits
        torch.nn.functional.cross_entropy(logits[0, -3:], torch.tensor([700, 5, 1])).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(out)
    return apart(npgemma.load(adapter=out), model.eval())


def transformers_model(folder):
    return PaliGemmaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def question():
    ids = torch.tensor([[1791] * 64 + [2, 40, 41, 4, 50, 51]])
    types = torch.tensor([[0] * 68 + [1] * 2])
    pixels = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32))
    positions = torch.arange(1, 71)[None]
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": torch.ones_like(ids), "pixel_values": pixels,
            "position_ids": positions}


def apart(ours, model):
    """The largest difference of logits over the largest of theirs."""
    asked = question()
    with torch.no_grad():
        expected = model(**asked, use_cache=False).logits.numpy()
    arrays = {name: tensor.numpy() for name, tensor in asked.items()}
    found = npgemma.forward(ours, arrays["input_ids"], arrays["pixel_values"], arrays["token_type_ids"])
    return np.max(np.abs(found - expected)) / np.max(np.abs(expected))


if __name__ == "__main__":
    main()
