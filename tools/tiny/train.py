"""Train the model in the box: ``python tools/tiny/train.py FOLDER`` makes it, from nothing, in an hour or two.

Each step draws new scenes, shows each to the vision tower once and asks seven questions about it. Beside the answers
the vision tower learns what each patch shows (which shape, colour, size, box, character): released models come with a
vision tower that was trained before, and this is its place here. The head for these lessons is thrown away at the end.

State is saved in FOLDER; the same command goes on where it stopped. The learning rate is constant after a warm-up and
falls to zero over the last part (``--cooldown``), so a run can be given more steps until then.
"""

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from batches import arrange, encode, load_tokenizer, make_batch, pixels
from model import (
    EMBEDDING,
    LOCATIONS,
    VISION,
    VOCABULARY,
    P,
    answer,
    connect,
    decoder_block,
    make_model,
    see,
    vision_block,
)
from tokenizer import train_tokenizer
from world import HELD_OUT, TASKS, ask, draw, make_scene

LESSONS = {"kind": 5, "colour": 8, "size": 2, "rank": 5, "left": 36, "right": 36, "left_place": 4, "right_place": 4}


def parameters(model, seed):
    """All that is trained, by name: the model's own weights, the head of the lessons, the waves of the locations."""
    w = dict(model.named_parameters())
    torch.manual_seed(seed + 1)
    width = sum(LESSONS.values()) + len(LESSONS) + 4
    C, D = VISION["hidden_size"], w[EMBEDDING].shape[1]
    w["lessons.patch.weight"] = torch.nn.Parameter(torch.randn(width, C) * C**-0.5)
    w["lessons.counts.weight"] = torch.nn.Parameter(torch.randn(5 * 6, C) * C**-0.5)
    w["waves.weight"] = torch.nn.Parameter(torch.randn(D, waves().shape[1]) * 0.03)
    return w


def waves():
    """(1024, 17) sines of a location: neighbours are alike, so that all locations learn from each one."""
    value = torch.arange(1024)[:, None] / 1023
    turns = 2 * math.pi * value * 2.0 ** torch.arange(-1, 7)
    fade = 0.8 ** torch.arange(8)
    return torch.cat([torch.ones(1024, 1), turns.sin() * fade, turns.cos() * fade], 1)


def embedding(w):
    """(V, D) the embedding with the waves added to the locations: what is saved."""
    return w[EMBEDDING] + F.pad(waves() @ w["waves.weight"].T, (0, 0, LOCATIONS.start, VOCABULARY - LOCATIONS.stop))


def lesson_loss(w, patches, batch):
    """How badly the patches know what they show.

    Parameters
    ----------
    patches : (B, P, C)
    """
    outputs = F.linear(patches, w["lessons.patch.weight"])
    loss, start = 0.0, 0
    word = batch["left"].amax(1).maximum(batch["right"].amax(1)) >= 0
    for name, classes in LESSONS.items():
        # Class 0 is "nothing"; where no shape is, only its kind has to be known.
        wanted = batch[name] + 1
        losses = F.cross_entropy(
            outputs[..., start : start + classes + 1].flatten(0, 1), wanted.flatten(), reduction="none"
        ).view_as(wanted)
        if name == "kind":
            loss += losses.mean()
        elif name in ("colour", "size", "rank"):
            shown = wanted > 0
            loss += (losses * shown).sum() / shown.sum() * 0.3
        else:
            weights = torch.where(wanted > 0, 1.0, 0.05) * word[:, None]
            loss += (losses * weights).sum() / weights.sum().clamp(min=1.0)
        start += classes + 1
    shown = batch["kind"] >= 0
    away = (outputs[..., start:] - batch["box"] * 8).abs().mean(-1)
    loss += (away * shown).sum() / shown.sum()
    counts = F.linear(patches.mean(1), w["lessons.counts.weight"]).view(-1, 6)
    return loss + 0.2 * F.cross_entropy(counts, batch["counts"].flatten())


def answer_loss(logits, labels, weights):
    """Weighted cross-entropy, and how many tokens are right."""
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=-100)
    right = (logits.argmax(-1) == labels).sum()
    return (losses * weights.flatten()).sum(), right


class Loss:
    """The whole loss of a batch, with the three heavy parts compiled."""

    def __init__(self, w, dtype, compiled):
        self.w, self.dtype = w, dtype
        # Blocks are compiled by themselves: the same code serves all layers, and is ready in a minute.
        wrap = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.vision_block, self.decoder_block, self.judge = wrap(vision_block), wrap(decoder_block), wrap(answer_loss)

    def __call__(self, batch):
        patches = see(self.w, batch["pixels"], self.dtype, self.vision_block)
        soft = connect(self.w, patches, self.dtype)
        table = embedding(self.w)
        total, weight, figures = 0.0, 0.0, []
        for lot in batch["lots"]:
            shown = soft[lot["picture"]]
            logits = answer(self.w, table, shown, lot["ids"], lot["prefix"], self.dtype, self.decoder_block)
            losses, right = self.judge(logits, lot["labels"], lot["weights"])
            total, weight = total + losses, weight + lot["weights"].sum()
            figures += [losses.detach() / lot["weights"].sum(), right / (lot["labels"] >= 0).sum()]
        lessons = lesson_loss(self.w, patches, batch)
        return total / weight, lessons, figures


def evaluate(w, tokenizer, scenes, first=HELD_OUT):
    """The part of answers that are right to the last token, by task, on held-out scenes.

    A greedy answer is right exactly where each next token is right when all before it are the right ones.
    """
    lots = {task: [] for task in TASKS}
    pictures, rng = [], random.Random(first)
    for place in range(scenes):
        scene = make_scene(first + place)
        pictures.append(pixels(draw(scene)))
        for task in TASKS:
            question = ask(task, scene, rng)
            if question:
                lots[task].append(encode(tokenizer, place, *question))
    with torch.no_grad():
        patches = see(w, torch.from_numpy(np.stack(pictures)), torch.float32, vision_block)
        soft, table = connect(w, patches, torch.float32), embedding(w)
        return {task: _right(w, table, soft, lot) for task, lot in lots.items()}


def _right(w, table, soft, questions):
    lot = tensors(arrange(questions, max(len(prefix) + len(suffix) for _, prefix, suffix in questions)))
    logits = answer(w, table, soft[lot["picture"]], lot["ids"], lot["prefix"], torch.float32, decoder_block)
    right = (logits.argmax(-1) == lot["labels"]) | (lot["labels"] < 0)
    return right.all(1).float().mean().item()


def rate(step, steps, cooldown):
    """Warm-up, constant, then down to zero in a straight line over the last ``cooldown`` part."""
    return min(1.0, (step + 1) / 200, (steps - step) / (steps * cooldown))


def optimisers(w, lr, decay):
    """Muon for the matrices inside blocks, AdamW for all others."""
    inner = {name for name, weight in w.items() if weight.dim() == 2 and ".layers." in name}
    muon = torch.optim.Muon(
        [w[name] for name in sorted(inner)], lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(
        [w[name] for name in sorted(set(w) - inner)], lr=lr, weight_decay=0.0, betas=(0.9, 0.98)
    )
    return muon, adam


def tensors(batch):
    """Arrays of a batch as tensors."""
    if isinstance(batch, dict):
        return {name: tensors(one) for name, one in batch.items()}
    return [tensors(one) for one in batch] if isinstance(batch, list) else torch.from_numpy(batch)


def save(folder, step, w, average, optimiser):
    """State to go on from, written beside and then renamed, so that a stop in the middle loses nothing."""
    state = {
        "step": step,
        "w": {name: weight.detach() for name, weight in w.items()},
        "average": average,
        "optimisers": [one.state_dict() for one in optimiser],
    }
    torch.save(state, folder / "state.new")
    (folder / "state.new").replace(folder / "state.pt")


def train(rank, options):
    """Run or go on until ``options.steps``, as one of ``options.processes`` processes with one thread each.

    Processes that meet once a step lose less to a busy machine than threads that meet in every operation.
    """
    torch.set_num_threads(1)
    if options.processes > 1:
        meeting = f"tcp://127.0.0.1:{options.port}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.processes)
    first, w, average, optimiser = begin(options)
    loss = Loss(w, torch.bfloat16, not options.plain)
    tokenizer = load_tokenizer(options.folder / "tokenizer.model")
    size, began = options.batch // options.processes, time.time()
    for step in range(first, options.steps):
        batch = tensors(make_batch(step, size, rank, options.processes, tokenizer))
        report = take_step(step, loss, batch, average, optimiser, options)
        if rank == 0 and step % options.every == 0:
            print(f"step {step} {time.time() - began:.0f} s {report}", flush=True)
        if rank == 0 and ((step + 1) % options.save_every == 0 or step + 1 == options.steps):
            save(options.folder, step + 1, w, average, optimiser)
            figures = evaluate(average, tokenizer, options.judged)
            print(*(f"{task} {100 * part:.1f} %" for task, part in figures.items()), sep=", ", flush=True)


def begin(options):
    """The step to go on from, all parameters, their average, the optimisers: from the saved state if there is one."""
    w = parameters(make_model(options.seed), options.seed)
    optimiser = optimisers(w, options.lr, options.decay)
    if not (options.folder / "state.pt").exists():
        return 0, w, {name: weight.detach().clone() for name, weight in w.items()}, optimiser
    state = torch.load(options.folder / "state.pt")
    with torch.no_grad():
        for name, weight in w.items():
            weight.copy_(state["w"][name])
    for one, saved in zip(optimiser, state["optimisers"], strict=True):
        one.load_state_dict(saved)
    return state["step"], w, state["average"], optimiser


def take_step(step, loss, batch, average, optimiser, options):
    """Change the parameters by one batch, and their average; gives a line of figures."""
    w = loss.w
    for one in optimiser:
        for group in one.param_groups:
            group["lr"] = options.lr * rate(step, options.steps, options.cooldown)
        one.zero_grad()
    answers, lessons, figures = loss(batch)
    (answers + options.lessons * lessons).backward()
    share([weight.grad for weight in w.values()], options.processes)
    norm = torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
    for one in optimiser:
        one.step()
    keep = min(0.998, (step + 1) / (step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.values()), [weight.detach() for weight in w.values()], 1 - keep)
    shown = " ".join(f"{figure:.3f}" for figure in figures)
    return (
        f"loss {answers.item():.4f} lessons {lessons.item():.4f} norm {norm.item():.2f} "
        f"short/middle/long loss, tokens right {shown}"
    )


def share(gradients, processes):
    """Replace gradients by their mean over the processes."""
    if processes == 1:
        return
    flat = torch._utils._flatten_dense_tensors(gradients)
    dist.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, torch._utils._unflatten_dense_tensors(flat, gradients), strict=True):
        gradient.copy_(mean)


def check(folder):
    """Print how far the lean forward is from transformers' on fresh random weights; about 1e-6 is right."""
    model = make_model(0)
    w = dict(model.named_parameters())
    with torch.no_grad():
        for weight in w.values():
            weight.add_(0.1 * torch.randn_like(weight) if weight.dim() == 1 else 0.0)
    batch = tensors(make_batch(0, 4, 0, 1, load_tokenizer(folder / "tokenizer.model")))
    pictures = ((batch["pixels"].float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)
    for lot in batch["lots"]:
        ids, text = F.pad(lot["ids"], (P, 0), value=VOCABULARY - 1), lot["ids"] != 0
        place = torch.arange(ids.shape[1])[None].expand(ids.shape)
        with torch.no_grad():
            patches = see(w, batch["pixels"], torch.float32, vision_block)
            soft = connect(w, patches, torch.float32)[lot["picture"]]
            ours = answer(w, w[EMBEDDING], soft, lot["ids"], lot["prefix"], torch.float32, decoder_block)
            theirs = model(
                input_ids=ids,
                pixel_values=pictures[lot["picture"]],
                token_type_ids=(place >= P + lot["prefix"][:, None]).long(),
                attention_mask=F.pad(text.long(), (P, 0), value=1),
                position_ids=1 + place,
            ).logits[:, P:]
        print(f"largest difference {(ours - theirs)[text].abs().max():.1e} of logits up to {theirs.abs().max():.1f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4060)
    parser.add_argument("--batch", type=int, default=32, help="pictures a step, with seven questions each")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=0.02, help="weight decay of the matrices inside blocks")
    parser.add_argument("--cooldown", type=float, default=0.32, help="the part of all steps in which the rate falls")
    parser.add_argument("--lessons", type=float, default=0.3, help="weight of the lessons of the vision tower")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=20, help="steps between two lines of figures")
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--judged", type=int, default=100, help="held-out scenes for the figures at each save")
    parser.add_argument("--processes", type=int, default=2, help="best one a core")
    parser.add_argument("--port", type=int, default=29511, help="where the processes meet")
    parser.add_argument("--plain", action="store_true", help="do not compile")
    parser.add_argument("--check", action="store_true", help="compare with transformers instead of training")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "tokenizer.model").exists():
        (options.folder / "tokenizer.model").write_bytes(train_tokenizer())
    if options.check:
        check(options.folder)
    elif options.processes == 1:
        train(0, options)
    else:
        torch.multiprocessing.spawn(train, (options,), nprocs=options.processes)


if __name__ == "__main__":
    main()
