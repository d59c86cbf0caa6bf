"""What tools/gpu_check.py times on a card, npgemma and PyTorch alike, each in a process of its own: a line of JSON.

Times are of work that is done, not of work that is told: each ends with a number on the host.  Memory is what the
driver counts beyond what was taken before, read every 5 ms, so that it means the same for both.
"""

import json
import statistics
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from machine import timed  # noqa: E402
from subjects import prompt  # noqa: E402


class Watch:
    """The largest number of bytes in use, of those that ``used`` tells."""

    def __init__(self, used):
        self.used, self.before = used, used()
        self.peak, self.running = self.before, True
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while self.running:
            self.peak = max(self.peak, self.used())
            time.sleep(0.005)

    def gigabytes(self):
        self.running = False
        self.thread.join()
        return round((max(self.peak, self.used()) - self.before) / 1e9, 3)


def medians(load, first, steps, settings):
    """The figures of a subject; the first of each kind warms, and is left out where there are others."""
    return {
        "ready": load, "first": statistics.median(first[1:] or first), "step": statistics.median(steps[1:] or steps),
        "tokens": settings["text"], "dtype": settings["dtype"],
    }


def npgemma(settings):
    """Times and memory of npgemma; the transfers and waits of its generation."""
    import npgemma
    from npgemma.base.cache import State
    from npgemma.base.device import fetch, open_card
    from npgemma.base.weights import Weights
    from npgemma.generation.requests import Ready, prefill
    from npgemma.paligemma import read_on

    card = open_card(settings["device"])
    watch = Watch(lambda: card.device.mem_info[1] - card.device.mem_info[0])
    load, model = timed(lambda: npgemma.load(settings["model"], dtype=settings["dtype"], device=settings["device"]))
    w, cfg = model.weights, model.config
    vision = cfg.vision
    ids, pixels = prompt(vision.num_patches, vision.image_size, cfg.image_token_id, 1, settings["text"])
    ready, first, steps = Ready(ids[0].tolist(), pixels), [], []

    def read():
        start = prefill(model, [ready])
        chosen = np.argmax(start.logits, axis=-1)
        fetch(chosen)
        return start, chosen

    for _ in range(settings["repeats"] + 1):
        seconds, (start, chosen) = timed(read)
        first.append(seconds)
    state: State = start.state
    positions = start.positions
    for _ in range(settings["steps"] + 1):
        def further(chosen=chosen, positions=positions, state=state):
            logits, after = read_on(w, cfg, chosen[:, None], positions[:, None], state)
            found = np.argmax(logits[:, 0], axis=-1)
            fetch(found)
            return found, after

        seconds, (chosen, state) = timed(further)
        steps.append(seconds)
        positions = positions + 1
    figures = medians(load, first, steps, settings) | {"peak_gb": watch.gigabytes()}
    figures["weights_gb"] = round(sum(array.nbytes for array in w.arrays.values()) / 1e9, 3)
    return figures | crossings(npgemma, Weights, model, ready, settings) | unwaited(
        lambda: read_on(w, cfg, chosen[:, None], positions[:, None], state)
    )


def crossings(npgemma, Weights, model, ready, settings):
    """Arrays that a token of a greedy answer sends to the card and brings back, counted where npgemma does it."""
    from npgemma.generation import loop

    counted = {"up": 0, "down": 0, "down_bytes": 0}
    beside, fetch = Weights.beside, loop.fetch

    def put(self, values, dtype=None):
        counted["up"] += isinstance(values, (np.ndarray, list))
        return beside(self, values, dtype)

    def bring(*arrays):
        found = fetch(*arrays)
        counted["down"] += 1
        counted["down_bytes"] += sum(each.nbytes for each in found)
        return found

    totals = []
    for length in (2, 6):
        counted |= dict.fromkeys(counted, 0)
        with mock.patch.object(Weights, "beside", put), mock.patch.object(loop, "fetch", bring):
            npgemma.generate(
                model, ids=ready.ids, pixels=ready.pixels, max_new_tokens=length, stop_ids=[model.config.pad_id]
            )
        totals.append(dict(counted))
    return {"a_token": {name: (totals[1][name] - totals[0][name]) / 4 for name in counted}}


def unwaited(work):
    """Whether CuPy finds a place where a step waits before its choice is brought back."""
    try:
        import cupyx
    except ImportError:  # of the pretended device
        return {"step_without_wait": None}
    if not hasattr(cupyx, "allow_synchronize"):
        return {"step_without_wait": None}
    try:
        with cupyx.allow_synchronize(False):
            work()
    except RuntimeError as problem:
        return {"step_without_wait": str(problem)}
    return {"step_without_wait": True}


def transformers(settings):
    """Times and memory of transformers with eager attention, on the same card in the same precision."""
    import torch
    from transformers import PaliGemmaForConditionalGeneration
    from transformers import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    place, kind = torch.device(settings["torch_device"]), getattr(torch, settings["dtype"])
    on_card = place.type == "cuda"
    if on_card:
        torch.cuda.init()
    watch = Watch(lambda: int(np.subtract(*torch.cuda.mem_get_info(place)[::-1])) if on_card else 0)

    def load_it():
        model = PaliGemmaForConditionalGeneration.from_pretrained(
            settings["model"], dtype=kind, attn_implementation="eager"
        )
        return model.to(place).eval()

    load, model = timed(load_it)
    config = model.config
    vision, image_token = config.vision_config, config.image_token_index
    num_patches = (vision.image_size // vision.patch_size) ** 2
    ids, pixels = prompt(num_patches, vision.image_size, image_token, 1, settings["text"])

    def inputs():
        return {
            "input_ids": torch.from_numpy(ids).to(place),
            "token_type_ids": torch.zeros(ids.shape, dtype=torch.int64, device=place),
            "pixel_values": torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(place, kind),
            "attention_mask": torch.ones(ids.shape, dtype=torch.int64, device=place),
            "use_cache": True, "logits_to_keep": 1,
        }

    def chosen_by(**given):
        result = model(**given)
        chosen = result.logits[:, -1].argmax(-1)[:, None]
        int(chosen)
        return chosen, result.past_key_values

    first, steps = [], []
    with torch.inference_mode():
        for _ in range(settings["repeats"] + 1):
            seconds, (chosen, past) = timed(lambda: chosen_by(**inputs()))
            first.append(seconds)
        mask = torch.ones(ids.shape, dtype=torch.int64, device=place)
        for _ in range(settings["steps"] + 1):
            mask = torch.cat([mask, torch.ones_like(chosen)], dim=1)
            more = {"input_ids": chosen, "attention_mask": mask, "past_key_values": past, "use_cache": True}
            seconds, (chosen, past) = timed(lambda more=more: chosen_by(**more))
            steps.append(seconds)
    versions = {"torch": torch.__version__, "attention": config._attn_implementation}
    return medians(load, first, steps, settings) | {"peak_gb": watch.gigabytes()} | versions


def main():
    settings = json.loads(sys.argv[1])
    print(json.dumps(globals()[settings["subject"]](settings)))


if __name__ == "__main__":
    main()
