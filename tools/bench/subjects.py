"""What tools/bench/bench.py times, each in a process of its own: prints one line of JSON.

The prompt is image tokens, bos and a few words; ids and pixels are the same numbers for every subject.
"""

import contextlib
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np

# The ceilings first: a virtual machine is slow to hand out memory that it has not used lately, whoever asks first.
SUBJECTS = ["ceilings", "npgemma-float32", "npgemma-bfloat16", "transformers-float32", "transformers-bfloat16"]


class MemoryWatch:
    """Notes the largest resident memory, anonymous and mapped from files apart, every 20 ms."""

    def __init__(self):
        self.anonymous = self.mapped = self.peak = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            self.note()
            time.sleep(0.02)

    def note(self):
        with open("/proc/self/status") as status:
            sizes = {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Rss")}
        anonymous, mapped = int(sizes["RssAnon"]) / 1e6, int(sizes["RssFile"]) / 1e6
        self.anonymous, self.mapped = max(self.anonymous, anonymous), max(self.mapped, mapped)
        self.peak = max(self.peak, anonymous + mapped)

    def figures(self):
        self.note()
        named = {"anonymous_gb": self.anonymous, "mapped_gb": self.mapped, "peak_gb": self.peak}
        return {name: round(value * 1.024, 2) for name, value in named.items()}


def timed(work):
    """Seconds that a call takes, and what it gives."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def prompt(num_patches, image_size, image_token, batch, num_text):
    """ids (B, T) and pixels (B, R, R, 3)."""
    rng = np.random.default_rng(5)
    words = rng.integers(5, 1000, size=(batch, num_text - 1))
    images = np.full((batch, num_patches), image_token)
    ids = np.concatenate([images, np.full((batch, 1), 2), words], axis=1)
    return ids, rng.uniform(-1, 1, size=(batch, image_size, image_size, 3)).astype(np.float32)


def npgemma(settings, dtype):
    import npgemma
    from npgemma.base import inputs
    from npgemma.paligemma import prefill, see, step

    watch = MemoryWatch()
    load, model = timed(lambda: npgemma.load(settings["model"], dtype=dtype))
    w, cfg = model.weights, model.config
    vision = cfg.vision
    ids, pixels = prompt(vision.num_patches, vision.image_size, cfg.image_token_id, settings["batch"], settings["text"])
    ones, positions = np.ones_like(ids), inputs.slot_positions(ids, cfg)

    def first_token():
        soft = see(w, cfg, pixels)
        return prefill(w, cfg, ids, soft, ones * 0, ones, positions, last_only=True)

    # The bare products take turns with the model, which so meets the same minutes of a machine with other guests.
    with_products = dtype == "float32" and not settings["quick"]
    if with_products:
        bare_first, bare_step = bare_products(w.arrays, cfg, settings["batch"], ids.shape[1])
    runs, first_products, step_products = [], [], []
    for _ in range(settings["repeats"] + (not settings["quick"])):
        runs.append(timed(first_token))
        if with_products:
            first_products.append(timed(bare_first)[0])
    logits, state = runs[-1][1]
    next_ids, next_positions = np.argmax(logits[:, -1], axis=-1)[:, None], positions[:, -1:] + 1
    both = [logits, step(w, cfg, next_ids, next_positions, state)[0]]
    steps = []
    for number in range(settings["steps"] + 1):
        chosen = np.argmax(logits[:, -1], axis=-1)[:, None]
        place = positions[:, -1:] + 1 + number
        seconds, (logits, state) = timed(lambda: step(w, cfg, chosen, place, state))
        steps.append(seconds)
        if with_products:
            step_products.append(timed(bare_step)[0])
    figures = watch.figures() | medians(load, runs, steps, settings) | {
        "step_gb": step_bytes(w.arrays) / 1e9,
        "first_gflop": first_flops(w.arrays, cfg, settings["batch"], ids.shape[1]) / 1e9,
    }
    if settings["quick"]:
        return figures
    if with_products:
        figures |= {"first_products": statistics.median(first_products[1:])}
        figures |= {"step_products": statistics.median(step_products[1:])}
    with plainly():
        logits, state = first_token()
        plain = [logits, step(w, cfg, next_ids, next_positions, state)[0]]
    return figures | {"from_plain": max(relative(fast, slow) for fast, slow in zip(both, plain, strict=True))}


def medians(load, runs, steps, settings):
    """Seconds to be ready, of a first token and of a further one; the first step warms."""
    first = statistics.median(seconds for seconds, _ in runs[-settings["repeats"]:])
    return {"load": load, "first": first, "first_ever": runs[0][0], "step": statistics.median(steps[1:])}


def plainly():
    """The layers without what makes them fast: matrices widened whole, scores of all queries at once."""
    from npgemma import attention, ops
    from npgemma.base import half

    def linear(x, weight, bias=None):
        product = x @ half.widen(weight).T
        return product if bias is None else product + bias

    attention_whole = mock.patch.object(attention, "SCORES_AT_ONCE", 1 << 60)
    stack = contextlib.ExitStack()
    for patch in (mock.patch.object(ops, "linear", linear), mock.patch.object(ops, "FEW_ROWS", 0), attention_whole):
        stack.enter_context(patch)
    return stack


def relative(x, wanted):
    """Relative L2 distance."""
    return float(np.linalg.norm(x - wanted) / np.linalg.norm(wanted))


def step_bytes(arrays):
    """Bytes of the decoder's matrices, the head among them: what a step reads at least."""
    return sum(array.nbytes for name, array in arrays.items() if name.startswith("text.") and array.ndim == 2)


def first_flops(arrays, cfg, batch, length):
    """Multiplications and additions of the products of a first token, attention's among them."""
    patches = batch * cfg.vision.num_patches
    rows = {"vision": patches, "connector": patches, "text": batch * length}
    table = arrays["text.embedded.weight"]
    matrices = {name: array for name, array in arrays.items() if array.ndim == 2 and "positions" not in name}
    flops = sum(2 * rows[name.split(".")[0]] * array.size for name, array in matrices.items() if array is not table)
    for tower, queries in ((cfg.text, length), (cfg.vision, cfg.vision.num_patches)):
        flops += 4 * batch * tower.depth * tower.num_heads * tower.head_dim * queries**2
    return flops + 2 * batch * table.size


def bare_products(arrays, cfg, batch, length):
    """The bare products of a first token and of a step, with the same matrices and shapes: the floor of BLAS."""
    rng = np.random.default_rng(0)
    widths = sorted({array.shape[1] for array in arrays.values() if array.ndim == 2})
    table = arrays["text.embedded.weight"]
    matrices = {name: array for name, array in arrays.items() if array.ndim == 2 and "positions" not in name}

    def sweep(text_rows, with_vision):
        xs = {D: rng.standard_normal((max(text_rows, 1), D), dtype=np.float32) for D in widths}
        vs = {D: rng.standard_normal((batch * cfg.vision.num_patches, D), dtype=np.float32) for D in widths}

        def run():
            for name, matrix in matrices.items():
                is_text = name.startswith("text.")
                if matrix is not table and (is_text or with_vision):
                    matrix @ (xs if is_text else vs)[matrix.shape[1]].T
            table @ xs[table.shape[1]][:batch].T
            attention(cfg.text, text_rows // batch, length, cfg.text.depth)
            if with_vision:
                attention(cfg.vision, cfg.vision.num_patches, cfg.vision.num_patches, cfg.vision.depth)

        return run

    def attention(tower, T, S, depth):
        N, H = tower.num_heads, tower.head_dim
        q = np.zeros((batch, N, T, H), np.float32)
        k = np.zeros((batch, N, H, S), np.float32)
        for _ in range(depth):
            (q @ k) @ k.transpose(0, 1, 3, 2)

    return sweep(batch * length, True), sweep(batch, False)


def transformers(settings, dtype):
    import torch
    from transformers import PaliGemmaForConditionalGeneration
    from transformers import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    watch = MemoryWatch()
    kind = getattr(torch, dtype)
    load, model = timed(lambda: PaliGemmaForConditionalGeneration.from_pretrained(settings["model"], dtype=kind).eval())
    config = model.config
    vision, image_token = config.vision_config, config.image_token_index
    num_patches = (vision.image_size // vision.patch_size) ** 2
    ids, pixels = prompt(num_patches, vision.image_size, image_token, settings["batch"], settings["text"])
    inputs = {
        "input_ids": torch.from_numpy(ids), "token_type_ids": torch.zeros(ids.shape, dtype=torch.int64),
        "pixel_values": torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(kind),
        "attention_mask": torch.ones(ids.shape, dtype=torch.int64), "use_cache": True, "logits_to_keep": 1,
    }
    with torch.inference_mode():
        runs = [timed(lambda: model(**inputs)) for _ in range(settings["repeats"] + (not settings["quick"]))]
        result, steps = runs[-1][1], []
        mask = inputs["attention_mask"]
        for _ in range(settings["steps"] + 1):
            chosen = result.logits[:, -1].argmax(-1)[:, None]
            mask = torch.cat([mask, torch.ones_like(chosen)], dim=1)
            more = {"input_ids": chosen, "attention_mask": mask, "past_key_values": result.past_key_values}
            seconds, result = timed(lambda: model(**more, use_cache=True))
            steps.append(seconds)
    return watch.figures() | medians(load, runs, steps, settings) | {
        "attention": config._attn_implementation, "threads": torch.get_num_threads(),
    }


def ceilings(settings):
    """What this machine can do at best: sgemm at the model's shapes, reading memory, handing out memory."""
    from npgemma.checkpoints.memory import available_memory

    rng = np.random.default_rng(0)
    figures = {}
    for T, D, F in ((256, 1152, 4304), (261, 2048, 16384), (261, 16384, 2048)):
        x, w = rng.standard_normal((T, D), dtype=np.float32), rng.standard_normal((F, D), dtype=np.float32)
        seconds = min(timed(lambda: w @ x.T)[0] for _ in range(7))
        figures[f"sgemm {T}x{D} by {D}x{F}, GFLOP/s"] = round(2 * T * D * F / seconds / 1e9)
    matrix, vector = np.ones((1 << 18, 2048), np.float32), np.ones(2048, np.float32)
    seconds = min(timed(lambda: matrix @ vector)[0] for _ in range(7))
    figures["memory read, GB/s"] = round(matrix.nbytes / seconds / 1e9, 1)
    size = 2 * sum(path.stat().st_size for path in Path(settings["model"]).glob("*.safetensors"))
    if 1e9 < size < 0.8 * (available_memory() or 0):
        seconds = [touch(size) for _ in range(2)]
        figures[f"{size / 1e9:.1f} GB of memory handed out, s, twice"] = [round(value, 1) for value in seconds]
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    figures["BLAS"] = f"{blas['name']} {blas['version']}, {kernel()}"
    return figures


def touch(size):
    """Seconds to get so many bytes of fresh memory from the system, by two threads."""
    fresh = np.empty(size, np.uint8)
    halves = [threading.Thread(target=part.fill, args=(1,)) for part in (fresh[::8192], fresh[4096::8192])]
    start = time.perf_counter()
    for thread in halves:
        thread.start()
    for thread in halves:
        thread.join()
    return time.perf_counter() - start


def kernel():
    """The set of kernels that BLAS chose, where threadpoolctl is there to ask it."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "kernels unknown (threadpoolctl is not installed)"
    return ", ".join(f"{info.get('architecture')} kernels, {info['num_threads']} threads" for info in threadpool_info())


def main():
    settings = json.loads(sys.argv[1])
    name, _, dtype = settings["subject"].partition("-")
    result = ceilings(settings) if name == "ceilings" else globals()[name](settings, dtype)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
