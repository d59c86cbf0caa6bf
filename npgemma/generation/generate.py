"""From a picture and a prompt to an answer: one request, or several that are read side by side."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from npgemma.base.cache import take_state
from npgemma.base.errors import InputError
from npgemma.generation import beams
from npgemma.generation.answers import Answer, Growing, Token
from npgemma.generation.boxes import with_boxes
from npgemma.generation.choosing import Draws
from npgemma.generation.finite import locating
from npgemma.generation.loop import grow
from npgemma.generation.requests import Prefilled, Ready, Request, Seen, check_model, length_classes, prefill, prepare
from npgemma.generation.settings import Settings, check_callable, check_listed, for_model
from npgemma.paligemma import Model


def generate(
    model: Model,
    image: Any = None,
    prompt: str = "",
    *,
    ids: Sequence[int] | None = None,
    pixels: Any = None,
    specials: str = "refuse",
    on_token: Callable[[Token], Any] | None = None,
    observe: Callable[[str, Any], Any] | None = None,
    **settings: Any,
) -> Answer:
    """Answer one prompt.

    Parameters
    ----------
    model : Model
    image : picture or list of pictures, optional
        Each a path, the bytes of a file, a PIL image, or an array (H, W, 3) of uint8.  None: text only.
    prompt : str
        ``caption en``, ``detect cat ; dog``, ``answer en what is on the table?`` and so on.  Empty: a caption.
    ids : sequence of int, optional
        Instead of a prompt: all ids, image tokens included.  Needs no tokenizer.
    pixels : (M, R, R, 3), optional
        Instead of ``image``: floats in [-1, 1].
    specials : {'refuse', 'allow'}
        Whether the prompt may hold tokens such as ``<loc0512>``.
    on_token : callable, optional
        Told of each token of the answer when it is chosen: its id, the text that is certain with it, its
        log-probability.  Not for beams and not for several answers, which do not grow one after the other.
    observe : callable, optional
        Sees each tensor, as in :func:`npgemma.forward`.
    **settings
        Fields of :class:`npgemma.generation.settings.Settings`: ``max_new_tokens``, ``temperature``, ``top_k``,
        ``top_p``, ``min_p``, ``repetition_penalty``, ``seed``, ``num_beams``, ``length_penalty``, ``num_return``,
        ``stop``, ``stop_ids``, ``allowed``, ``min_new_tokens``, ``suppress_ids``.

    Returns
    -------
    answer : Answer
        With ``num_return`` above 1, the best; the others are in ``answer.others``.

    Raises
    ------
    InputError
        If a setting is out of range, or the prompt does not fit.
    ImageError, PromptError
        If the picture or the prompt cannot be read.
    """
    request = Request(image, prompt, ids, pixels, specials)
    return generate_batch(model, [request], on_token=on_token, observe=observe, **settings)[0]


def generate_batch(
    model: Model,
    requests: Sequence[Request | Ready],
    *,
    on_token: Callable[[Token], Any] | None = None,
    observe: Callable[[str, Any], Any] | None = None,
    seen: Seen | None = None,
    **settings: Any,
) -> list[Answer]:
    """Answer several prompts side by side, those of about one length together: each as it would be answered alone.

    Parameters
    ----------
    model : Model
    requests : sequence of Request or Ready
        Pictures and prompts of any length; requests about one picture share what the vision tower saw.
    on_token, observe : callable, optional
        As in :func:`generate`; ``on_token`` only where there is one request.
    seen : Seen, optional
        Keeps what the vision tower saw, for the next batch with the same model and maybe the same pictures; nothing
        is observed of a picture that was seen before.
    **settings
        As in :func:`generate`, the same for all requests.

    Returns
    -------
    answers : list of Answer
        One a request, in order.
    """
    check_model(model)
    check_listed("requests", requests, "Request")
    check_callable("on_token", on_token)
    chosen, notes = with_seed(make_settings(settings))
    if on_token is not None and (len(requests) != 1 or chosen.num_return > 1 or chosen.num_beams > 1):
        raise InputError(
            "tells of one growing answer; want one request, num_return 1 and num_beams 1",
            argument="on_token",
        )
    if not requests:
        return []
    if chosen.stop and model.tokenizer is None:
        raise InputError("the model has no tokenizer, so its answers have no text; pass stop_ids", argument="stop")
    ready = [each if isinstance(each, Ready) else prepare(model, each) for each in requests]
    fitted = for_model(chosen, model.config, max(len(each.ids) for each in ready))
    if fitted.num_beams > 1:
        answers = [answer_by_beams(model, each, fitted, observe, seen) for each in ready]
    else:
        answers = answer_by_classes(model, ready, fitted, notes, on_token, observe, seen)
    return [with_boxes(model, answer, each.image) for answer, each in zip(answers, ready, strict=True)]


def make_settings(settings: dict[str, Any]) -> Settings:
    """Make settings of keyword arguments, naming the ones there are if one is unknown."""
    known = Settings.__dataclass_fields__
    for name in settings:
        if name not in known:
            raise InputError(f"is no setting of generation; there are {', '.join(known)}", argument=name)
    return Settings(**settings)


def with_seed(settings: Settings) -> tuple[Settings, list[str]]:
    """Draw a seed where none is wanted, and say which."""
    if settings.seed is not None:
        return settings, []
    seed = int.from_bytes(os.urandom(4), "little")
    return replace(settings, seed=seed), [f"drawn with seed {seed}"] if settings.samples else []


def answer_by_classes(model: Model, ready: Sequence[Ready], *how: Any) -> list[Answer]:
    """Answer requests of one length class after those of another, as :func:`answer_side_by_side`; gives their order."""
    answers: dict[int, Answer] = {}
    for numbers in length_classes(ready):
        beside = answer_side_by_side(model, [ready[number] for number in numbers], *how)
        answers |= zip(numbers, beside, strict=True)
    return [answers[number] for number in range(len(ready))]


def answer_side_by_side(
    model: Model, ready: Sequence[Ready], settings: Settings, notes: Sequence[str], on_token=None, observe=None,
    seen: Seen | None = None
) -> list[Answer]:
    """Answer greedily or by draws, several draws sharing the prefill of their prompt."""
    n = settings.num_return
    growing = [Growing(each.ids, settings, model.tokenizer, on_token) for each in ready for _ in range(n)]
    seconds: dict[str, float] = {}
    if settings.max_new_tokens:
        w = model.weights if observe is None else model.weights.watched_by(observe)
        draws = [Draws(settings.seed or 0, number) for _ in ready for number in range(n)]
        with locating(model, [each for each in ready for _ in range(n)], observe):
            start = share(prefill(model, ready, observe, seen), n)
            started = time.perf_counter()
            grow(w, model.config, start, growing, draws, settings)
        steps = max(len(answer.ids) for answer in growing) - 1
        seconds = start.seconds | {"per_token": (time.perf_counter() - started) / steps if steps else 0.0}
    answers = [answer.answer([*ready[index // n].notes, *notes], seconds) for index, answer in enumerate(growing)]
    return [with_others(answers[first : first + n]) for first in range(0, len(answers), n)]


def share(start: Prefilled, n: int) -> Prefilled:
    """Repeat each row ``n`` times: several answers to a prompt begin where its prefill ended."""
    if n == 1:
        return start
    rows = np.repeat(np.arange(len(start.positions), like=start.positions), n)
    return Prefilled(start.logits[rows], take_state(start.state, rows), start.positions[rows], start.seconds)


def answer_by_beams(
    model: Model, ready: Ready, settings: Settings, observe=None, seen: Seen | None = None
) -> Answer:
    """Answer one prompt by beam search, the best first."""
    if not settings.max_new_tokens:
        return Growing(ready.ids, settings, model.tokenizer).answer(ready.notes, {})
    w = model.weights if observe is None else model.weights.watched_by(observe)
    with locating(model, [ready], observe):
        start = prefill(model, [ready], observe, seen)
        started = time.perf_counter()
        found = beams.search(w, model.config, start, ready.ids, settings, model.tokenizer)
    if not found:
        raise InputError("no beam could end; allow a stop id somewhere, or lower num_beams", argument="allowed")
    longest = max(len(beam.ids) for _, beam in found)
    seconds = start.seconds | {"per_token": (time.perf_counter() - started) / max(longest - 1, 1)}
    answers = []
    for score, beam in found[: settings.num_return]:
        growing = beams.write(beam, Growing(ready.ids, settings, model.tokenizer))
        answers.append(growing.answer(ready.notes, seconds, score))
    return with_others(answers)


def with_others(answers: Sequence[Answer]) -> Answer:
    """Give the first answer, which holds the others."""
    return replace(answers[0], others=tuple(answers[1:]))
