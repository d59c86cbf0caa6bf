"""Fine-tuning: a model learns from examples, step by step, and what it has learnt outlives any interruption.

GUIDE.md beside this file explains each step.  A run is a pure function of its examples and settings: the examples of a
step follow from its number, so that a run that goes on after a kill ends with the same bits.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from npgemma import paligemma, text
from npgemma.backward.tape import Sums
from npgemma.base import half
from npgemma.base.adapted import Adapted
from npgemma.base.device import Fetched, to_host
from npgemma.base.errors import CheckpointError, InputError
from npgemma.checkpoints.adapter import fingerprint, write_adapter
from npgemma.checkpoints.saving import write_model
from npgemma.files.reader import is_there
from npgemma.files.safetensors_file import open_safetensors
from npgemma.files.safetensors_writer import write_safetensors
from npgemma.learn import lora, schedules
from npgemma.learn.data import Example, batch_of, drawn, mark_of
from npgemma.learn.losses import IGNORED, log_sum
from npgemma.learn.optimisers import Learner, Settings
from npgemma.learn.teaching import teach
from npgemma.paligemma import Model

STATE = "state.safetensors"
DAMAGED = "the state is damaged: remove it, or choose another folder (-o)"


@dataclass(frozen=True)
class Course:
    """How to learn.

    Parameters
    ----------
    steps, batch, micro : int
        Steps, examples a step, examples that are in memory at once.
    rate : float
        The largest learning rate.
    schedule : str
        Of :data:`npgemma.learn.schedules.SCHEDULES`.
    warm_up : int
        Steps.
    clip : float
        Longest gradient.
    optimiser : Settings
    lora : int
        Rank; 0 trains the weights themselves.
    alpha : float
        The adapter's scale is alpha / rank.
    on, freeze : tuple of str
        Patterns of what learns, and of what does not.
    seed : int
    every, save_every : int
        Steps between two reports, and between two saved states.
    """

    steps: int = 200
    batch: int = 16
    micro: int = 8
    rate: float = 1e-3
    schedule: str = "cosine"
    warm_up: int = 10
    clip: float = 1.0
    optimiser: Settings = Settings()
    lora: int = 0
    alpha: float = 16.0
    on: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    seed: int = 0
    every: int = 20
    save_every: int = 100


@dataclass(frozen=True)
class Report:
    """A step's figures: ``loss`` is the mean over the tokens of its answers; held-out ones where they were judged."""

    step: int
    loss: float
    rate: float
    norm: float
    seconds: float
    held_out_loss: float | None = None
    held_out_right: float | None = None


def finetune(
    model: Model, examples: Sequence[Example], judged: Sequence[Example], course: Course, out: Path,
    report: Callable[[Report], Any] = lambda _: None, stop: Callable[[], bool] = lambda: False,
    progress: Callable[[float, float], Any] = lambda done, total: None,
) -> bool:
    """Learn, or go on learning, until the course's last step; the state is saved in ``out``.

    Parameters
    ----------
    model : Model
    examples, judged : sequence of Example
        To learn from; to be scored every ``course.save_every`` steps.
    course : Course
    out : Path
        A folder; made if it is missing.
    report : callable
        ``report(Report)`` every ``course.every`` steps.
    stop : callable
        Asked after each step: True saves and leaves.
    progress : callable
        ``progress(steps done, steps)``, with parts of a step, from where this run began.

    Returns
    -------
    done : bool
        Whether the last step was reached.

    Raises
    ------
    InputError
        If the loss is no number any more: which step, which tensor first.
    """
    out.mkdir(parents=True, exist_ok=True)
    mark = mark_of(examples, f"{asdict(course) | {'every': 0, 'save_every': 0}} {fingerprint(model.weights.arrays)}")
    learner = resume(out / STATE, begin(model, course), mark, model.weights.beside)
    first = learner.step
    while learner.step < course.steps:
        began = time.perf_counter()
        step = learner.step
        chosen = drawn(examples, step, course.batch, course.seed)

        def tell(part, done=step - first):
            progress(done + part, course.steps - first)

        loss, norm, rate = take_step(model, learner, chosen, course, out, tell)
        last, leaving = learner.step == course.steps, stop()
        if last or leaving or learner.step % course.save_every == 0:
            save(out / STATE, learner, mark)
        if last or leaving or step % course.every == 0 or learner.step % course.save_every == 0:
            scores = judge(model, learner, judged, course) if last or learner.step % course.save_every == 0 else {}
            report(Report(learner.step, loss, rate, norm, time.perf_counter() - began, **scores))
        if leaving:
            break
    return learner.step == course.steps


def begin(model: Model, course: Course) -> Learner:
    """What learns, before the first step: factors beside matrices, or copies of weights in float32."""
    if course.lora:
        names = lora.adapted_names(model.config, course.on or ("text.blocks.*",))
        kept = set(schedules.chosen(names, freeze=course.freeze))
        rng = np.random.default_rng([course.seed, 0])
        factors = lora.new_factors(model.config, [name for name in names if name in kept], course.lora, rng)
        return Learner({name: model.weights.beside(factor) for name, factor in factors.items()}, course.optimiser)
    names = schedules.chosen(model.weights.arrays, course.on, course.freeze)
    arrays = model.weights.arrays
    return Learner({name: half.widen(arrays[name]).astype(np.float32) for name in names}, course.optimiser)


def now(model: Model, learner: Learner, course: Course) -> Model:
    """The model as it has learnt so far."""
    base: Mapping[str, Any] = model.weights.arrays
    if course.lora:
        base = Adapted(base, learner.weights, course.alpha / course.lora)
    else:
        base = dict(base) | learner.weights
    return replace(model, weights=replace(model.weights, arrays=base))


def take_step(
    model: Model, learner: Learner, examples: Sequence[Example], course: Course, out: Path,
    tell: Callable[[float], Any],
):
    """Learn from some examples, a few at a time; gives the mean loss, the gradients' length and the rate.

    ``tell(part)`` hears which part of the step is done.
    """
    current = now(model, learner, course)
    scale = course.alpha / max(course.lora, 1)
    sums: Any = lora.FactorSums(learner.weights, scale) if course.lora else Sums(learner.weights)
    parts = [batch_of(model, examples[n : n + course.micro]) for n in range(0, len(examples), course.micro)]
    count = sum(part.count for part in parts)
    loss = 0.0
    for number, part in enumerate(parts):
        tell(number / len(parts))
        loss += teach(current, part, sums, 1 / count, rerun=bool(course.lora))
    gradients, norm = schedules.clip(sums, course.clip)
    state = f"the state in {out} is that of an earlier step" if is_there(out / STATE) else "nothing was saved yet"
    if not np.isfinite(loss) or not np.isfinite(norm):
        first = first_fault(current, parts, sums)
        raise InputError(f"step {learner.step + 1}: the loss is {loss:g}, {first}; {state}; lower the learning rate")
    rate = course.rate * schedules.SCHEDULES[course.schedule](learner.step, course.steps, course.warm_up)
    # What learns is float32, whatever the run computes in.
    gradients = {name: d.astype(learner.weights[name].dtype, copy=False) for name, d in gradients.items()}
    with np.errstate(over="ignore", invalid="ignore"):  # looked for in the next line
        learner.learn(gradients, rate)
    lost = next((name for name, weight in learner.weights.items() if not np.all(np.isfinite(weight))), None)
    if lost is not None:
        raise InputError(f"step {learner.step}: {lost} became NaN or infinite; {state}; lower the learning rate")
    return loss, norm, rate


def first_fault(model: Model, parts, gradients: Mapping[str, Any]) -> str:
    """Name the first tensor, or the first gradient, that is not finite."""
    found: list[str] = []

    def watch(name, x):
        if x.dtype.kind == "f" and not found and not np.all(np.isfinite(x)):
            found.append(f"the first tensor with NaN or infinity is {name}")

    for part in parts:
        w = model.weights.watched_by(watch)
        soft = None if part.pixels is None else paligemma.see(w, model.config, part.pixels)
        paligemma.read(w, model.config, part.ids, soft, part.token_types, part.attention_mask, part.positions)
    found += [f"the first gradient is {name}" for name, d in gradients.items() if not np.all(np.isfinite(d))]
    return found[0] if found else "and every tensor of the run is finite"


def judge(model: Model, learner: Learner, examples: Sequence[Example], course: Course) -> dict[str, float]:
    """Score held-out examples: mean loss a token, and the part of answers that greedy choice gives to the last token.

    Notes
    -----
    A greedy answer is right exactly where each next token is right when all before it are the right ones.
    """
    if not examples:
        return {}
    current, losses, right = now(model, learner, course), [], []
    w, cfg = current.weights, current.config
    for start in range(0, len(examples), course.micro):
        batch = batch_of(model, examples[start : start + course.micro]).beside(w)
        soft = None if batch.pixels is None else paligemma.see(w, cfg, batch.pixels)
        norm, _ = paligemma.read(w, cfg, batch.ids, soft, batch.token_types, batch.attention_mask, batch.positions)
        counted = batch.labels != IGNORED
        logits, labels = text.logits(norm[counted][None], w.at("text"), cfg.text)[0], batch.labels[counted]
        losses.append(to_host(log_sum(logits) - logits[np.arange(len(labels), like=labels), labels]))
        wrong = np.zeros_like(counted)
        wrong[counted] = np.argmax(logits, axis=-1) != labels
        right.append(to_host(~np.any(wrong, axis=1)))
    loss, part = (float(np.mean(np.concatenate(each))) for each in (losses, right))
    return {"held_out_loss": loss, "held_out_right": part}


def save(path: Path, learner: Learner, mark: str) -> None:
    """Write the state, in the place of an older one, which stays until the new one is whole."""
    arrays = {f"weight/{name}": to_host(array) for name, array in learner.weights.items()}
    arrays |= {f"memory/{name}": to_host(array) for name, array in learner.memory.items()}
    write_safetensors(path, arrays, {"step": str(learner.step), "run": mark}, force=True)


def resume(path: Path, fresh: Learner, mark: str, beside: Callable[[Any], Any]) -> Learner:
    """Give the learner of a saved state, put where ``beside`` puts arrays, or a fresh one where there is none.

    Raises
    ------
    InputError
        If the state is of another run.
    """
    if not is_there(path):
        return fresh
    file = open_safetensors(path)
    if file.metadata.get("run") != mark:
        raise InputError(f"{path}: is the state of a run with other data or settings; choose another folder (-o)")
    if set(fresh.weights) != {name.removeprefix("weight/") for name in file.tensors if name.startswith("weight/")}:
        raise CheckpointError(f"{path}: does not hold what this run trains; remove it, or choose another folder (-o)")
    parts: dict[str, dict[str, Any]] = {"weight": {}, "memory": {}}
    for name in file.tensors:
        kind, _, rest = name.partition("/")
        array = np.array(file.array(name))  # a copy: the file is replaced while it would be mapped
        check_state(path, name, array, fresh)
        parts[kind][rest] = beside(array)
    step = file.metadata.get("step", "")
    if not (step.isascii() and step.isdecimal() and len(step) < 10):
        raise CheckpointError(f"{path}: its step is {step!r:.40}; {DAMAGED}")
    return Learner(parts["weight"], fresh.settings, int(step), parts["memory"])


def check_state(path: Path, name: str, array: np.ndarray, fresh: Learner) -> None:
    """Hold one array of a state against the weights that learn."""
    kind, _, rest = name.partition("/")
    weight, _, what = (rest, "", "") if kind == "weight" else rest.rpartition("/")
    if (kind, what) not in (("weight", ""), ("memory", "mean"), ("memory", "square")) or weight not in fresh.weights:
        raise CheckpointError(f"{path}: {name!r:.80} is nothing that a run leaves; {DAMAGED}")
    wanted = fresh.weights[weight].shape
    if array.shape != wanted or array.dtype != np.float32:
        raise CheckpointError(f"{path}: {name} is {array.shape} {array.dtype}; want {wanted} float32; {DAMAGED}")
    if not np.all(np.isfinite(array)) or what == "square" and np.any(array < 0):
        raise CheckpointError(f"{path}: {name} holds NaN, infinity, or a square below zero; {DAMAGED}")


def write_result(
    model: Model, course: Course, out: Path, base: Path, name: str,
    progress: Callable[[int, int], Any] | None = None,
) -> str:
    """Write what was learnt, from the saved state: an adapter, or a whole folder; gives what it is."""
    file = open_safetensors(out / STATE)
    learnt = {key.removeprefix("weight/"): file.array(key) for key in file.tensors if key.startswith("weight/")}
    if course.lora:
        mark = fingerprint(model.weights.arrays)
        write_adapter(out, model.config, learnt, course.lora, course.alpha, name, mark)
        return f"an adapter: npgemma generate --model {base} --adapter {out}"
    write_model(out, base, model.config, dict(Fetched(model.weights.arrays)) | learnt, progress)
    return f"a model: npgemma generate --model {out}"
