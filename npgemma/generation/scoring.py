"""How likely given answers are: one prefill of the prompt, all answers behind it in one step.

Letters: N answers, L length of the longest, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npgemma import ops, paligemma
from npgemma.base.cache import take_state
from npgemma.base.device import fetch, to_host
from npgemma.base.errors import InputError
from npgemma.generation.finite import check_finite, finite_rows, locating
from npgemma.generation.processors import log_softmax
from npgemma.generation.requests import Prefilled, Request, prefill, prepare
from npgemma.generation.settings import check_listed, check_whole
from npgemma.paligemma import Model

# Logits that stand in memory together, in numbers: 256 MB in float32.
LOGITS_AT_ONCE = 1 << 26


@dataclass(frozen=True)
class Score:
    """How likely one answer is.

    Parameters
    ----------
    ids : tuple of int
        The stop id included.
    logprobs : tuple of float
        Of each id, given the prompt and the ids before.
    uncapped_logprobs : tuple of float
        The same without the final soft-cap, as big_vision's loss computes them; equal where the model has none.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    uncapped_logprobs: tuple[float, ...]

    @property
    def total(self) -> float:
        """Log-likelihood of the whole answer."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """Log-likelihood a token."""
        return self.total / len(self.logprobs)


@dataclass(frozen=True)
class Scores:
    """Scores of several answers to one prompt, and the two losses of the batch that they make.

    Notes
    -----
    Hugging Face averages over all tokens of a batch; big_vision over the tokens of an answer, then over the answers,
    and without the final soft-cap.  For one answer of a model without a cap the two agree.
    """

    answers: tuple[Score, ...]
    prompt_ids: tuple[int, ...]
    notes: tuple[str, ...] = ()

    @property
    def hf_loss(self) -> float:
        """The loss that transformers gives."""
        return -sum(each.total for each in self.answers) / sum(len(each.ids) for each in self.answers)

    @property
    def big_vision_loss(self) -> float:
        """The loss that big_vision's trainer gives."""
        means = [sum(each.uncapped_logprobs) / len(each.ids) for each in self.answers]
        return -sum(means) / len(means)


def score(
    model: Model,
    image: Any = None,
    prompt: str = "",
    answers: Sequence[str | Sequence[int]] = (),
    *,
    ids: Sequence[int] | None = None,
    pixels: Any = None,
    specials: str = "refuse",
    observe: Callable[[str, Any], Any] | None = None,
) -> Scores:
    """Score given answers to one prompt.

    Parameters
    ----------
    model : Model
    image, prompt, ids, pixels, specials
        As in :func:`npgemma.generation.generate.generate`; ``specials`` holds for answers too.
    answers : sequence of str or of sequences of int
        Text, which ends with ``<eos>``, or all ids of an answer.

    Returns
    -------
    scores : Scores
        In the order of ``answers``.

    Raises
    ------
    InputError
        If there is no answer, an empty one, or one that does not fit the trained context.
    """
    request = prepare(model, Request(image, prompt, ids, pixels, specials))
    check_listed("answers", answers, "answers, such as ['yes', 'no']")
    suffixes = [suffix_ids(model, answer, specials) for answer in answers]
    if not suffixes:
        raise InputError("came empty; want at least one", argument="answers")
    # The final soft-cap is applied here: big_vision's loss is taken without it.
    uncapped = replace(model.config, text=replace(model.config.text, final_softcap=None))
    w = model.weights if observe is None else model.weights.watched_by(observe)
    scored = []
    with locating(model, [request], observe):
        start = prefill(replace(model, config=uncapped), [request], observe)
        for group in groups(suffixes, LOGITS_AT_ONCE // model.config.text.vocab_size):
            logits = suffix_logits(w, uncapped, start, group)
            for row, suffix in enumerate(group):
                scored.append(rate(logits[row, : len(suffix)], suffix, w, model.config.text))
    return Scores(tuple(scored), tuple(request.ids), tuple(request.notes))


def suffix_ids(model: Model, answer: str | Sequence[int], specials: str) -> list[int]:
    """Give the ids of one answer."""
    if not isinstance(answer, str):
        check_listed("answers", answer, "ids, or a string, for each answer")
        for token in answer:
            check_whole("answers", token, 0)
        suffix = [int(token) for token in answer]
    elif model.tokenizer is None:
        raise InputError("the model has no tokenizer, so it takes no answers as text; pass their ids")
    else:
        suffix = [*model.tokenizer.encode(answer, specials), model.tokenizer.eos]
    if not suffix:
        raise InputError("one has no ids; want at least one, such as the stop id", argument="answers")
    if not all(0 <= token < model.config.text.vocab_size for token in suffix):
        raise InputError(
            f"answers: ids came in [{min(suffix)}, {max(suffix)}]; want 0..{model.config.text.vocab_size - 1}"
        )
    return suffix


def groups(suffixes: Sequence[list[int]], room: int) -> Iterator[list[list[int]]]:
    """Cut the answers into groups of at most ``room`` positions, padding included; a longer answer goes alone."""
    group: list[list[int]] = []
    for suffix in suffixes:
        longest = max(map(len, [*group, suffix]))
        if group and longest * (len(group) + 1) > room:
            yield group
            group = []
        group.append(suffix)
    yield group


def suffix_logits(w, cfg, start: Prefilled, suffixes: Sequence[Sequence[int]]):
    """Score every token of every answer, given the prompt and the tokens before it.

    Parameters
    ----------
    w : Weights
    cfg : Config
    start : Prefilled
        Of one row, the prompt.
    suffixes : sequence of N sequences of int

    Returns
    -------
    logits : (N, L, V)
        Row n is meaningful up to the length of answer n.
    """
    N, L = len(suffixes), max(map(len, suffixes))
    first = np.repeat(start.logits[:, None], N, axis=0)
    if L == 1:
        return first
    # The last id of an answer is only predicted, never read. Padding stands behind it, where nobody looks back at it.
    lengths = np.array([[len(suffix) - 1] for suffix in suffixes])
    ids = np.array([[*suffix[:-1], *[cfg.pad_id] * (L - len(suffix))] for suffix in suffixes], dtype=np.int64)
    slots = np.arange(L - 1)[None]
    attention_mask = (slots < lengths).astype(np.int64)
    positions = to_host(start.positions)[:, None] + np.minimum(slots, np.maximum(lengths - 1, 0))
    state = take_state(start.state, w.beside([0] * N))
    logits, _ = paligemma.step(w, cfg, ids, positions, state, attention_mask)
    return np.concatenate([first, logits], axis=1)


def rate(logits, suffix: Sequence[int], w, cfg) -> Score:
    """Read the log-probabilities of one answer off its logits.

    Parameters
    ----------
    logits : (L, V)
        Without the final soft-cap.
    suffix : sequence of L int
    w : Weights
    cfg : TextConfig
        Of the model, with its cap.
    """
    places = w.beside(suffix)[:, None]
    uncapped = capped = np.take_along_axis(log_softmax(logits), places, axis=-1)
    if cfg.final_softcap is not None:
        final = w.precision.store(ops.soft_cap(logits, cfg.final_softcap, w.inner))
        capped = np.take_along_axis(log_softmax(final), places, axis=-1)
    capped, uncapped, finite = fetch(capped, uncapped, finite_rows(logits))
    check_finite(finite, [0] * len(suffix), [suffix[:end] for end in range(len(suffix))])
    return Score(tuple(suffix), tuple(map(float, capped)), tuple(map(float, uncapped)))
