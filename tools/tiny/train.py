"""Train the model in the box: ``python tools/tiny/train.py FOLDER`` makes it from nothing, in some four hours;
the model in the box learnt on, ``--steps 9000``, which took two more.

Each step draws new pictures, shows each to the vision tower once and asks three questions about it.  Beside the answers
the vision tower learns what each patch shows (patches.py).  npgemma does all of it: no other package computes here.
The codes of masks come from the codec in the box (train_codec.py).

State is saved in FOLDER; the same command goes on where it stopped, to the same bits.  The learning rate is constant
after a warm-up and falls to zero over the last part of all steps (``--cooldown``), of which the stages are parts too.
"""

import argparse
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# One BLAS thread for each of ours: threads that meet once a step lose less than threads that meet in every product.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# One draws while the other computes, and waits for Python's lock after each short product: at most 0.5 ms, not 5, which
# keeps the cores busy for 1.76 of 2, not 1.69.
sys.setswitchinterval(0.0005)
sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

import numpy as np  # noqa: E402
from batches import MASKS, OFTEN, arrange, encode, load_tokenizer, make_batch, pixels  # noqa: E402
from drawn_questions import COLOURED, TASKS, ask_about  # noqa: E402
from drawn_world import from_world, make_drawing  # noqa: E402
from fresh import architecture, fresh_weights, model_of, to_waves  # noqa: E402
from patches import fresh_heads, lesson  # noqa: E402
from world import HELD_OUT, make_scene  # noqa: E402

from npgemma import encode_mask, load_codec, paligemma, text  # noqa: E402
from npgemma.backward.tape import Sums  # noqa: E402
from npgemma.base.heap import keep_memory  # noqa: E402
from npgemma.base.inputs import slot_positions  # noqa: E402
from npgemma.files.safetensors_file import open_safetensors  # noqa: E402
from npgemma.files.safetensors_writer import write_safetensors  # noqa: E402
from npgemma.learn import schedules, teaching  # noqa: E402
from npgemma.learn.losses import IGNORED  # noqa: E402
from npgemma.learn.optimisers import Learner, Settings  # noqa: E402

STATE = "state.safetensors"
LOCATIONS, NEAR = range(639, 1663), 26  # ids of <loc0000> to <loc1023>; how far one may lie from the right one


def asked(lot, cfg):
    """A lot of questions as the model reads it, the picture's places before the text."""
    P, (Q, T) = cfg.vision.num_patches, lot["ids"].shape
    ids = np.concatenate([np.full((Q, P), cfg.image_token_id), lot["ids"]], axis=1)
    real = np.concatenate([np.ones((Q, P), np.int64), (lot["ids"] != cfg.pad_id).astype(np.int64)], axis=1)
    token_types = (np.arange(P + T) >= P + lot["prefix"][:, None]).astype(np.int64) * real
    labels = np.concatenate([np.full((Q, P), IGNORED), lot["labels"]], axis=1)
    return teaching.Batch(ids, token_types, real, slot_positions(ids, cfg), labels)


def scaled(pictures):
    """Bytes to [-1, 1], as the released processors do: (B, R, R, 3)."""
    return (pictures.astype(np.float32) * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)


def teach(weights, cfg, batch, strength):
    """Gradients of one micro-batch: its answers, and ``strength`` times its lessons.

    Returns
    -------
    sums : Sums
    answers, lessons : float
    """
    model, sums = model_of(cfg, weights), Sums(weights)
    seen = {}
    tape = teaching.new_tape(model, sums, observe=lambda name, d: d + seen[name] if name in seen else None)
    soft = teaching.see(tape, model, scaled(batch["pixels"]))
    lessons, d_patches, heads = lesson(weights, tape["vision.norm"], batch)
    seen["vision.norm"] = strength * d_patches  # joins what comes back from the answers
    d_soft, answers = np.zeros_like(soft), 0.0
    total = sum(lot["weights"].sum() for lot in batch["lots"])
    for lot in batch["lots"]:
        places = np.pad(lot["weights"] / total, ((0, 0), (cfg.vision.num_patches, 0)))
        loss, d_shown = teaching.answer(
            teaching.new_tape(model, sums), model, asked(lot, cfg), soft[lot["picture"]], places
        )
        np.add.at(d_soft, lot["picture"], d_shown)
        answers += loss
    teaching.see_back(tape, model, d_soft)
    to_waves(sums)
    sums |= {name: strength * d for name, d in heads.items()}
    return sums, answers, lessons


def take_step(learner, average, cfg, words, options, pool):
    """Change the weights by one step, and their average, which it gives with a line of figures.

    ``words`` are the tokenizer and the mask codec.
    """
    step, parts = learner.step, options.parts

    def part(number):
        size, asked = options.batch // parts, (OFTEN | options.often, options.coloured)
        batch = make_batch(step, options.steps, size, number, parts, *words, *asked)
        return teach(learner.weights, cfg, batch, options.lessons)

    taught = list(pool.map(part, range(parts)))
    gradients = {name: sum(sums[name] for sums, _, _ in taught) / parts for name in learner.weights}
    clipped, norm = schedules.clip(gradients, 1.0)
    left = (options.steps - step) / (options.steps * options.cooldown)
    learner.learn(clipped, options.lr * min(schedules.warm_up(step, 200), left), pool.map)
    average = schedules.average(average, learner.weights, min(0.998, (step + 1) / (step + 10)))
    answers, lessons = (np.mean([each[place] for each in taught]) for place in (1, 2))
    return average, f"loss {answers:.4f} lessons {lessons:.4f} norm {norm:.2f}"


def evaluate(weights, cfg, words, count, first=HELD_OUT):
    """The part of answers that are right, on held-out scenes of world.py and on as many drawings.

    Returns
    -------
    dict
        By world and task.  A greedy answer is right where each next token is right when all before it are the right
        ones; here a location may be a fortieth of the picture away, and codes of masks are counted by themselves.
    """
    tokenizer, codec = words
    found, w = {}, model_of(cfg, weights).weights
    for name, make in (("known", lambda seed: from_world(make_scene(seed))), ("drawn", make_drawing)):
        lots, pictures, rng = {task: [] for task in TASKS}, [], random.Random(first)
        for place in range(count):
            drawing = make(first + place)
            pictures.append(pixels(drawing.image))
            for task in TASKS:
                if question := ask_about(task, drawing, rng, lambda mask, box: encode_mask(codec, mask, box).segments):
                    lots[task].append(encode(tokenizer, place, *question))
        soft = paligemma.see(w, cfg, scaled(np.stack(pictures)))
        for task, lot in [(task, lot) for task, lot in lots.items() if lot]:
            found[f"{name} {task}"], codes = right(w, cfg, soft, lot)
            if task == "segment":
                found[f"{name} codes"] = codes
    return found


def right(w, cfg, soft, questions):
    """The part of some questions that is answered right, and of right codes."""
    lot = arrange(questions)
    batch = asked(lot, cfg)
    norm, _ = paligemma.read(
        w, cfg, batch.ids, soft[lot["picture"]], batch.token_types, batch.attention_mask, batch.positions
    )
    logits = text.logits(norm[:, cfg.vision.num_patches :], w.at("text"), cfg.text)
    best, labels = np.argmax(logits, axis=-1), lot["labels"]
    masks = np.isin(labels, MASKS)
    near = np.isin(labels, LOCATIONS) & np.isin(best, LOCATIONS) & (np.abs(best - labels) <= NEAR)
    fits = (best == labels) | (labels == IGNORED) | near | masks
    return float(np.mean(np.all(fits, axis=1))), float(np.mean(best[masks] == labels[masks])) if masks.any() else 0.0


def begin(cfg, options):
    """The learner to go on with, and the average of its weights: from the saved state if there is one."""
    weights = fresh_weights(cfg, options.seed) | fresh_heads(cfg.vision.width, options.seed)
    settings = Settings(muon=True, decay=options.decay)
    path = options.folder / STATE
    if not path.exists():
        return Learner(weights, settings), dict(weights)
    file, parts = open_safetensors(path), {"weight": {}, "memory": {}, "average": {}}
    for name in file.tensors:
        kind, _, rest = name.partition("/")
        parts[kind][rest] = np.array(file.array(name))
    return Learner(parts["weight"], settings, int(file.metadata["step"]), parts["memory"]), parts["average"]


def save(folder, learner, average):
    """State to go on from, in the place of the last, which stays until the new one is whole."""
    parts = {"weight": learner.weights, "memory": learner.memory, "average": average}
    arrays = {f"{kind}/{name}": array for kind, held in parts.items() for name, array in held.items()}
    write_safetensors(folder / STATE, arrays, {"step": str(learner.step)}, force=True)


def train(options):
    """Run or go on until ``options.steps``."""
    keep_memory()
    cfg = architecture()
    words = load_tokenizer(options.folder / "tokenizer.model"), load_codec(options.codec)
    learner, average = begin(cfg, options)
    began = time.time()
    with ThreadPoolExecutor(options.threads) as pool:
        while learner.step < options.steps:
            step = learner.step
            average, figures = take_step(learner, average, cfg, words, options, pool)
            if step % options.every == 0:
                print(f"step {step} {time.time() - began:.0f} s {figures}", flush=True)
            if learner.step % options.save_every == 0 or learner.step == options.steps:
                save(options.folder, learner, average)
                scores = evaluate(average, cfg, words, options.judged)
                print(*(f"{task} {100 * part:.1f} %" for task, part in scores.items()), sep=", ", flush=True)


def task_weight(words):
    """``TASK=WEIGHT`` of ``--often``."""
    task, _, weight = words.partition("=")
    if task not in OFTEN:
        raise argparse.ArgumentTypeError(f"{task!r} is no task; want one of {', '.join(OFTEN)}")
    return task, float(weight)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codec", metavar="FILE|FOLDER", help="of masks; the one in the box if left out")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=48, help="pictures a step, with three questions each")
    parser.add_argument("--parts", type=int, default=4, help="micro-batches of a step")
    parser.add_argument("--threads", type=int, default=2, help="best one a core")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=0.02, help="of matrices inside blocks")
    parser.add_argument("--cooldown", type=float, default=0.32, help="the part of all steps in which the rate falls")
    parser.add_argument("--often", type=task_weight, nargs="+", default=[], metavar="TASK=WEIGHT", help="of questions")
    parser.add_argument("--coloured", type=float, default=COLOURED, help="how often detect names a colour")
    parser.add_argument("--lessons", type=float, default=0.3, help="weight of the lessons of the vision tower")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=20, help="steps between two lines of figures")
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--judged", type=int, default=100, help="held-out scenes for the figures at each save")
    options = parser.parse_args()
    options.often = dict(options.often)
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "tokenizer.model").exists():
        from tokenizer import train_tokenizer  # needs protobuf beside the rest

        (options.folder / "tokenizer.model").write_bytes(train_tokenizer())
    train(options)


if __name__ == "__main__":
    main()
