"""Run npgemma and transformers on one random full-size PaliGemma in float32, and compare every block.

    python tools/golden/compare_full_size.py paligemma-3b-224
    python tools/golden/compare_full_size.py paligemma2-3b-224 --folder /big/disk
    python tools/golden/compare_full_size.py tiny                the same path in seconds

The checkpoint has the layout of the releases (bfloat16, sharded); it is written once and kept, about 6 GB.  In float32
a 3B model takes 12 GB, so the two run one after the other, each in a process of its own.  Prints relative L2 of each
block's output and of the last logits, and both greedy choices; exits with 3 if logits differ by more than 1e-5.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PaliGemmaForConditionalGeneration

from npgemma.checkpoints.hf_config import read_config
from npgemma.checkpoints.loading import load
from npgemma.config import VARIANTS
from npgemma.paligemma import forward

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "bench")]

from random_checkpoint import default_folder, ensure_checkpoint  # noqa: E402

TOLERANCE = 1e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=[*VARIANTS, "tiny"])
    parser.add_argument("--folder", type=pathlib.Path, default=default_folder(), help="where checkpoints are kept")
    parser.add_argument("--stage", choices=STAGES, help="internal: what this process is to do")
    arguments = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    is_tiny = arguments.variant == "tiny"
    model = ROOT / "golden" / "tiny-2" if is_tiny else ensure_checkpoint(arguments.variant, arguments.folder)
    results = arguments.folder / f"compare-{arguments.variant}"
    results.mkdir(parents=True, exist_ok=True)
    if arguments.stage:
        STAGES[arguments.stage](model, results)
        return
    for stage in STAGES:
        command = [sys.executable, __file__, arguments.variant, "--folder", arguments.folder, "--stage", stage]
        if subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode:
            sys.exit(f"{stage}: failed, see above")
    sys.exit(0 if report(results) else 3)


# ---- stages, each in a process of its own ----


def make_batch(folder):
    """One picture and a short prompt: ids (1, T) and pixels (1, 3, R, R)."""
    cfg = read_config(folder)
    rng = np.random.default_rng(5)
    side = cfg.vision.image_size
    words = rng.integers(5, min(cfg.text.vocab_size, cfg.image_token_id), size=6).tolist()
    ids = [cfg.image_token_id] * cfg.vision.num_patches + [cfg.bos_id, *words, 4]
    pixels = rng.uniform(-1.0, 1.0, size=(1, 3, side, side)).astype(np.float32)
    return np.array([ids]), pixels


def run_transformers(model_folder, folder):
    start = time.perf_counter()
    model = PaliGemmaForConditionalGeneration.from_pretrained(
        model_folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids, pixels = (torch.from_numpy(array) for array in make_batch(model_folder))
    kept = {}

    def keep(module, tensor_name):
        module.register_forward_hook(lambda _m, _args, out: kept.update({tensor_name: out.contiguous().clone()}))

    for number, layer in enumerate(model.model.vision_tower.encoder.layers):
        keep(layer, f"vision.blocks.{number}.out")
    for number, layer in enumerate(model.model.language_model.layers):
        keep(layer, f"text.blocks.{number}.out")
    keep(model.model.vision_tower.post_layernorm, "vision.norm")
    keep(model.model.multi_modal_projector, "connector.out")
    keep(model.model.language_model.norm, "text.norm")
    loaded = time.perf_counter()
    with torch.no_grad():
        kept["text.logits"] = model(
            input_ids=ids,
            pixel_values=pixels,
            attention_mask=torch.ones_like(ids),
            token_type_ids=torch.zeros_like(ids),
            position_ids=torch.arange(1, ids.shape[1] + 1)[None],
            use_cache=False,
            logits_to_keep=1,
        ).logits
    save_file(kept, folder / "theirs.safetensors")
    print(f"transformers: loaded in {loaded - start:.0f} s, ran in {time.perf_counter() - loaded:.0f} s")


def run_npgemma(model_folder, folder):
    start = time.perf_counter()
    model = load(model_folder, dtype="float32")
    loaded = time.perf_counter()
    ids, pixels = make_batch(model_folder)
    kept = {}

    def observe(tensor_name, array):
        parts = tensor_name.split(".")
        if parts[-1] in ("norm", "logits") or (parts[-1] == "out" and len(parts) in (2, 4)):
            kept[tensor_name] = torch.from_numpy(array.copy())

    forward(model, ids, pixels, last_only=True, observe=observe)
    save_file(kept, folder / "ours.safetensors")
    print(f"npgemma: loaded in {loaded - start:.0f} s, ran in {time.perf_counter() - loaded:.0f} s")


STAGES = {"transformers": run_transformers, "npgemma": run_npgemma}


def report(folder):
    """Print the table; True if the logits agree."""
    ours, theirs = load_file(folder / "ours.safetensors"), load_file(folder / "theirs.safetensors")
    if set(ours) != set(theirs):
        raise SystemExit(f"kept by one of the two only: {sorted(set(ours) ^ set(theirs))}")
    print(f"{'tensor':<24}{'shape':<20}{'relative L2':>12}{'largest':>12}")
    for key in sorted(theirs, key=execution_order):
        gap = (ours[key].double() - theirs[key].double()).abs()
        relative = (gap.norm() / theirs[key].double().norm()).item()
        largest = (gap.max() / theirs[key].double().abs().max()).item()
        print(f"{key:<24}{tuple(theirs[key].shape)!s:<20}{relative:>12.2e}{largest:>12.2e}")
    choices = [tensors["text.logits"].argmax().item() for tensors in (ours, theirs)]
    print(f"greedy choice: npgemma {choices[0]}, transformers {choices[1]}")
    # The last tensor in order is the logits.
    agree = relative <= TOLERANCE and choices[0] == choices[1]
    print(f"last logits: relative L2 {relative:.2e}, allowed {TOLERANCE:.0e}: {'agree' if agree else 'DIFFER'}")
    return agree


def execution_order(key):
    place, *rest = key.split(".")
    number = int(rest[1]) if rest[0] == "blocks" else {"norm": 1000, "out": 1000, "logits": 1001}[rest[0]]
    return ("vision", "connector", "text").index(place), number


if __name__ == "__main__":
    main()
