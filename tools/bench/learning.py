"""Time learning: a training step of the model in the box, beside PyTorch's; a LoRA step of a full-size model.

    python tools/bench/learning.py                       steps of the box, npgemma and PyTorch eager in turn
    python tools/bench/learning.py --lora FOLDER         one step, rank 8 on the decoder's attention, 272 tokens

A step of the box is train.py's, its batch drawn before: 32 pictures, each seen once and asked seven questions; forward,
backward, clip, Muon inside blocks and AdamW elsewhere, averages of weights; float32.  npgemma also teaches the lessons
of the patches.  PyTorch does the same through transformers' eager modules: as four micro-batches on two Python threads
of one thread each, as npgemma does, and as one batch on PyTorch's own threads; its better time counts.  Both score
labelled rows only; Muon's rounds stay in float32.  Each side runs in a process of its own, the sides in turn; figures
are medians over rounds of medians over steps, of seconds and of CPU seconds.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "tiny")]
from npgemma.base import threads  # noqa: E402

SIDES = {"npgemma": 1, "pytorch-parts": 1, "pytorch-whole": 0}  # 0: its library's own threads
PICTURES, PARTS, THREADS, FIRST, STEPS = 32, 4, 2, 1500, 6000
RATE = 1e-4
# PaliGemma 2 3B at 224 pixels has 256 image tokens.
TEXT, ANSWER, RANK = 16, 8, 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="timed in each process, after one that warms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--lora", type=Path, metavar="FOLDER", help="a checkpoint in bfloat16")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.lora:
        threads.take_over()  # as the command does, before NumPy is imported
        print(json.dumps(lora_step(options.lora), indent=1))
    elif options.side:
        print(json.dumps(timed_steps(options.side, options.steps)))
    else:
        compare(options)


def compare(options):
    """Run the sides in turn, and print their medians and ratios."""
    found = {side: [] for side in options.only}
    for _ in range(options.rounds):
        for side, rounds in found.items():
            told = str(SIDES[side] or THREADS)
            environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": told}
            command = [sys.executable, __file__, "--side", side, "--steps", str(options.steps)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
            print(side, rounds[-1], file=sys.stderr, flush=True)
    middle = {side: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
              for side, rounds in found.items()}
    for side, figures in middle.items():
        print(side + ":", ", ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    for key in ("seconds", "cpu"):
        theirs = [figures[key] for side, figures in middle.items() if side != "npgemma"]
        if "npgemma" in middle and theirs:
            print(f"npgemma / PyTorch's better, {key}: {middle['npgemma'][key] / min(theirs):.2f}")


def timed_steps(side, steps):
    """Median seconds and CPU seconds of a step, and the gradients' norm at the first, by which the sides agree."""
    import train

    from npgemma import load_codec
    from npgemma.checkpoints.loading import TINY

    parts = 1 if side == "pytorch-whole" else PARTS
    words = train.load_tokenizer(TINY / "tokenizer.model"), load_codec()
    batches = [train.make_batch(FIRST, STEPS, PICTURES // PARTS, part, PARTS, *words) for part in range(PARTS)]
    if parts == 1:
        batches = [joined(batches)]
    step = npgemma_step(batches) if side == "npgemma" else pytorch_step(batches, SIDES[side])
    seconds, cpu, norms = [], [], []
    for _ in range(steps + 1):
        start = time.perf_counter(), time.process_time()
        norms.append(step())
        seconds.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {"seconds": statistics.median(seconds[1:]), "cpu": statistics.median(cpu[1:]), "norm": norms[0]}


def joined(batches):
    """One batch of several; the parts' pictures are numbered on."""
    import numpy as np
    import train

    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0] if name != "lots"}
    whole["lots"] = []
    for lots in zip(*(batch["lots"] for batch in batches), strict=True):
        length = max(lot["ids"].shape[1] for lot in lots)
        fill = {"labels": train.IGNORED}
        lot = {name: np.concatenate([filled(each[name], length, fill.get(name, 0)) for each in lots])
               for name in lots[0]}
        first = np.repeat(np.arange(len(lots)) * (PICTURES // len(lots)), [len(each["picture"]) for each in lots])
        whole["lots"].append(lot | {"picture": lot["picture"] + first})
    return whole


def filled(rows, length, value):
    """Rows of one number stay; those of tokens are filled up: (Q) or (Q, T)."""
    import numpy as np

    missing = length - rows.shape[1] if rows.ndim == 2 else 0
    return np.pad(rows, ((0, 0), (0, missing)), constant_values=value) if missing else rows


def npgemma_step(batches):
    """train.py's own step, on batches that are there already; gives the gradients' norm."""
    import train

    from npgemma.base.heap import keep_memory

    keep_memory()
    cfg = train.architecture()
    weights = train_weights() | train.fresh_heads(cfg.vision.width, 0)
    learner = train.Learner(weights, train.Settings(muon=True, decay=0.02))
    options = argparse.Namespace(
        parts=PARTS, batch=PICTURES, lessons=0.0, steps=10**6, cooldown=0.3, lr=RATE, often={}, coloured=0.0
    )
    pool, average = ThreadPoolExecutor(THREADS), dict(weights)

    def step():
        nonlocal average
        with mock.patch.object(train, "make_batch", lambda step, steps, size, part, *rest: batches[part]):
            average, figures = train.take_step(learner, average, cfg, (), options, pool)
        return float(figures.split()[-1])

    return step


def train_weights():
    """The weights of the box in float32, and waves that are not learnt yet."""
    import fresh

    import npgemma

    model = npgemma.load()
    weights = {name: model.weights[name].astype("float32") for name in model.weights.arrays}
    return weights | {fresh.WAVES: fresh.fresh_weights(model.config, 0)[fresh.WAVES] * 0}


def pytorch_step(batches, own_threads):
    """The same step through transformers' modules and PyTorch's optimisers; gives the gradients' norm."""
    import torch
    from transformers import PaliGemmaForConditionalGeneration

    from npgemma.checkpoints.loading import TINY

    torch.set_num_threads(own_threads or THREADS)
    model = PaliGemmaForConditionalGeneration.from_pretrained(TINY, dtype=torch.float32, attn_implementation="eager")
    named = dict(model.named_parameters())
    weights = list(named.values())
    inner = [weight for key, weight in named.items() if weight.dim() == 2 and ".layers." in key]
    others = [weight for key, weight in named.items() if weight.dim() != 2 or ".layers." not in key]
    optimisers = [
        torch.optim.Muon(inner, lr=RATE, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=RATE, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    average = [weight.detach().clone() for weight in weights]
    pool = ThreadPoolExecutor(THREADS if len(batches) > 1 else 1)

    def part(batch):
        return torch.autograd.grad(pytorch_loss(model, batch), weights, allow_unused=True)

    def step():
        taught = list(pool.map(part, batches))
        for weight, *each in zip(weights, *taught, strict=True):
            weight.grad = None if each[0] is None else sum(each) / len(batches)
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        with mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor):
            for optimiser in optimisers:
                optimiser.step()
        torch._foreach_lerp_(average, [weight.detach() for weight in weights], 0.002)
        return norm.item()

    return step


def pytorch_loss(model, batch):
    """The weighted surprise at all answers of a batch."""
    import torch
    import train

    inner, cfg = model.model, train.architecture()
    soft = inner.get_image_features(torch.from_numpy(train.scaled(batch["pixels"])).permute(0, 3, 1, 2)).pooler_output
    total, loss = sum(lot["weights"].sum() for lot in batch["lots"]), 0.0
    for lot in batch["lots"]:
        given, P = train.asked(lot, cfg), soft.shape[1]
        words = inner.language_model.embed_tokens(torch.from_numpy(lot["ids"]))
        rows = torch.cat([soft[torch.from_numpy(lot["picture"])], words], dim=1)
        norm = inner.language_model(
            inputs_embeds=rows, attention_mask=pytorch_masks(given, cfg), use_cache=False,
            position_ids=torch.from_numpy(given.positions),
        ).last_hidden_state[:, P:]
        labels = torch.from_numpy(lot["labels"])
        counted = labels >= 0
        cap = cfg.text.final_softcap
        logits = torch.tanh(model.lm_head(norm[counted]) / cap) * cap
        losses = torch.nn.functional.cross_entropy(logits, labels[counted], reduction="none")
        loss = loss + (losses * torch.from_numpy(lot["weights"] / total)[counted]).sum()
    return loss


def pytorch_masks(given, cfg):
    """Who may look at whom, as what transformers adds to scores."""
    import torch

    from npgemma import masks

    T, lowest = given.ids.shape[1], torch.finfo(torch.float32).min
    full = masks.prefix_lm(given.token_types, given.attention_mask, T)
    sliding = masks.sliding_prefix_lm(given.token_types, given.attention_mask, T, cfg.text.sliding_window)
    return {name: torch.where(torch.from_numpy(mask)[:, None], 0.0, lowest)
            for name, mask in (("full_attention", full), ("sliding_attention", sliding))}


def lora_step(folder):
    """CPU seconds of one step of rank 8 on the decoder's attention, one example, and memory above the file's."""
    import numpy as np
    from subjects import MemoryWatch

    import npgemma
    from npgemma.base.heap import keep_memory
    from npgemma.learn import lora, schedules, teaching
    from npgemma.learn.finetune import Course, begin, now

    keep_memory()
    watch = MemoryWatch()
    model = npgemma.load(folder, dtype="bfloat16")
    cfg, course = model.config, Course(lora=RANK, on=("text.blocks.*.attn.*",))
    learner, rng = begin(model, course), np.random.default_rng(0)
    prompt = [cfg.image_token_id] * cfg.vision.num_patches + rng.integers(5, 1000, size=TEXT - ANSWER + 1).tolist()
    R = cfg.vision.image_size
    pixels = rng.uniform(-1, 1, size=(1, R, R, 3)).astype(np.float32)
    batch = teaching.make_batch(cfg, [(prompt, rng.integers(5, 1000, size=ANSWER).tolist())], pixels)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    sums = lora.FactorSums(learner.weights, course.alpha / RANK)
    loss = teaching.teach(now(model, learner, course), batch, sums, 1 / batch.count, rerun=True)
    gradients, norm = schedules.clip(sums, course.clip)
    learner.learn(gradients, RATE)
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - start
    file = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9
    figures = watch.figures()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "tokens": batch.ids.shape[1], "matrices": len(gradients) // 2, "loss": loss, "norm": norm,
        "seconds": round(seconds, 1), "cpu": round(cpu, 1), "file_gb": round(file, 2), **figures,
        "above_the_file_gb": round(figures["peak_gb"] - file, 2),
    }


if __name__ == "__main__":
    main()
