"""What tools/bench/bench.py times, each in a process of its own: prints one line of JSON.

The prompt is image tokens, bos and a few words; ids and pixels are the same numbers for every subject.
"""

import contextlib
import copy
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
from machine import ceilings, timed

# The ceilings first: a virtual machine is slow to hand out memory that it has not used lately, whoever asks first.
SUBJECTS = [
    "ceilings", "npgemma-float32", "npgemma-bfloat16", "transformers-float32", "transformers-bfloat16", "box",
    "box-one-thread",
]


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
    vision, batch = cfg.vision, settings["batch"]
    ids, pixels = prompt(vision.num_patches, vision.image_size, cfg.image_token_id, batch, settings["text"])
    ones, positions = np.ones_like(ids), inputs.slot_positions(ids, cfg)

    def first_token():
        soft = see(w, cfg, pixels)
        return prefill(w, cfg, ids, soft, ones * 0, ones, positions, last_only=True)

    # The bare products take turns with the model, which so meets the same minutes of a machine with other guests.
    bare_first = bare_products(w.arrays, cfg, batch, batch * ids.shape[1])
    runs, first_products = [], []
    for _ in range(settings["repeats"] + (not settings["quick"])):
        runs.append(timed(first_token))
        if not settings["quick"]:
            first_products.append(timed(bare_first)[0])
    figures = {"load": load, "first": statistics.median(seconds for seconds, _ in runs[-settings["repeats"]:])}
    figures |= {"first_ever": runs[0][0], "first_gflop": first_flops(w.arrays, cfg, batch, ids.shape[1]) / 1e9}
    figures |= {"step_gb": step_bytes(w.arrays) / 1e9, "row_gflop": row_flops(w.arrays) / 1e9}
    figures |= step_figures(w, cfg, runs[-1][1], positions[:, -1:], settings) | watch.figures()
    if settings["beams"]:
        figures["beam_step"] = beam_step(model, ids[:1], pixels[:1], settings)
    if settings["quick"]:
        return figures
    figures["first_products"] = statistics.median(first_products[1:])
    next_ids = np.argmax(runs[-1][1][0][:, -1], axis=-1)[:, None]

    def two_calls(result):
        logits, state = result
        return [logits, step(w, cfg, next_ids, positions[:, -1:] + 1, state)[0]]

    fast = two_calls(runs[-1][1])
    with plainly():
        plain = two_calls(first_token())
    return figures | {"from_plain": max(relative(ours, wanted) for ours, wanted in zip(fast, plain, strict=True))}


def step_figures(w, cfg, first, positions, settings):
    """Seconds of a further token, and of its bare products, for each number of rows; all numbers take turns."""
    from npgemma.base.cache import take_state
    from npgemma.paligemma import step

    states, times = {}, {}
    for rows in settings["rows"]:
        of = np.arange(rows) % settings["batch"]
        states[rows] = first[0][of], take_state(first[1], of), positions[of]
        times[rows] = [], [], bare_products(w.arrays, cfg, rows, 0)
    for _ in range(settings["steps"] + 1):
        for rows, (logits, state, positions) in states.items():
            chosen = np.argmax(logits[:, -1], axis=-1)[:, None]
            seconds, result = timed(lambda: step(w, cfg, chosen, positions + 1, state))
            states[rows] = *result, positions + 1
            times[rows][0].append(seconds)
            if not settings["quick"]:
                times[rows][1].append(timed(times[rows][2])[0])
    return as_figures({rows: ours for rows, (ours, _, _) in times.items()}, "step") | as_figures(
        {rows: bare for rows, (_, bare, _) in times.items() if bare}, "step_products"
    )


def as_figures(times, name):
    """Medians, the first, which warms, left out: the first number of rows under ``name``, all under ``name of N``."""
    medians = {f"{name} of {rows}": statistics.median(seconds[1:]) for rows, seconds in times.items()}
    return medians | {name: next(iter(medians.values()))} if medians else {}


def beam_step(model, ids, pixels, settings):
    """Seconds from a step of beams to the next, choosing and reordering included; the first, which warms, left out."""
    from npgemma import generate, paligemma

    steps, begun, read_on = settings["steps"], [], paligemma.read_on

    def watched(*given):
        begun.append(time.perf_counter())
        return read_on(*given)

    with mock.patch.object(paligemma, "read_on", watched):
        generate(
            model, ids=ids[0].tolist(), pixels=pixels, num_beams=settings["beams"], max_new_tokens=steps + 1,
            min_new_tokens=steps + 1,
        )
    return statistics.median(np.diff(begun)[1:])


def box(settings, which):
    """Seconds of the command for 100 questions to the model in the box, as it is or told one BLAS thread."""
    from npgemma.checkpoints.loading import TINY

    environment = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    if which == "one-thread":
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    pictures = sorted(map(str, TINY.rglob("*.png")))
    questions = [{"image": pictures[number % len(pictures)], "prompt": "caption en"} for number in range(100)]
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "questions.jsonl"
        asked.write_text("".join(json.dumps(question) + "\n" for question in questions))
        command = [sys.executable, "-m", "npgemma", "generate", "--batch", str(asked)]
        run = functools.partial(subprocess.run, command, env=environment, capture_output=True, check=True)
        return {"questions": statistics.median(timed(run)[0] for _ in range(settings["repeats"]))}


def plainly():
    """The layers without what makes them fast: matrices widened whole, scores of all queries at once."""
    from npgemma import attention, ops
    from npgemma.base import products

    def linear(x, weight, bias=None):
        product = products.linear_plain(x, weight)
        return product if bias is None else product + bias

    attention_whole = mock.patch.object(attention, "SCORES_AT_ONCE", 1 << 60)
    stack = contextlib.ExitStack()
    for patch in (mock.patch.object(ops, "linear", linear), attention_whole):
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


def row_flops(arrays):
    """Multiplications and additions of one row of a step."""
    return 2 * sum(array.size for name, array in arrays.items() if name.startswith("text.") and array.ndim == 2)


def bare_products(arrays, cfg, batch, text_rows):
    """The model's products alone, as it multiplies, of a first token, or, without ``text_rows``, of a step."""
    from npgemma.base.products import linear, stacked

    rng = np.random.default_rng(0)
    widths = sorted({array.shape[1] for array in arrays.values() if array.ndim == 2})
    table = arrays["text.embedded.weight"]
    matrices = {name: array for name, array in arrays.items() if array.ndim == 2 and "positions" not in name}
    patches = batch * cfg.vision.num_patches
    of_text = {D: rng.standard_normal((text_rows or batch, D), dtype=np.float32) for D in widths}
    of_vision = {D: rng.standard_normal((patches, D), dtype=np.float32) for D in widths}

    def attention(tower, T):
        N, H = tower.num_heads, tower.head_dim
        q, k = np.zeros((batch, N, T, H), np.float32), np.zeros((batch, N, T, H), np.float32)
        for _ in range(tower.depth):
            stacked(stacked(q, k.swapaxes(-1, -2)), k)

    def run():
        for name, matrix in matrices.items():
            is_text = name.startswith("text.")
            if matrix is not table and (is_text or text_rows):
                linear((of_text if is_text else of_vision)[matrix.shape[1]], matrix)
        linear(of_text[table.shape[1]][:batch], table)
        if text_rows:
            attention(cfg.text, text_rows // batch)
            attention(cfg.vision, cfg.vision.num_patches)

    return run


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
        times = {rows: [] for rows in settings["rows"]}
        states = {rows: widened(runs[-1][1], inputs["attention_mask"], rows) for rows in times}
        for _ in range(settings["steps"] + 1):
            for rows, (chosen, mask, past) in states.items():
                mask = torch.cat([mask, torch.ones_like(chosen)], dim=1)
                more = {"input_ids": chosen, "attention_mask": mask, "past_key_values": past}
                seconds, result = timed(lambda: model(**more, use_cache=True))
                times[rows].append(seconds)
                states[rows] = result.logits[:, -1].argmax(-1)[:, None], mask, result.past_key_values
    first = {"first": statistics.median(seconds for seconds, _ in runs[-settings["repeats"]:])}
    return watch.figures() | first | as_figures(times, "step") | {
        "load": load, "attention": config._attn_implementation, "threads": torch.get_num_threads(),
    }


def widened(result, mask, rows):
    """Chosen ids, mask and cache of so many rows, the first row of a result repeated."""
    past = copy.deepcopy(result.past_key_values)
    of = mask.new_tensor([row % len(mask) for row in range(rows)])
    past.batch_select_indices(of)
    return result.logits[of, -1].argmax(-1)[:, None], mask[of], past


def main():
    settings = json.loads(sys.argv[1])
    name, _, dtype = settings["subject"].partition("-")
    result = ceilings(settings) if name == "ceilings" else globals()[name](settings, dtype)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
