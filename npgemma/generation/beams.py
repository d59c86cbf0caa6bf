"""Beam search: several unfinished answers side by side, the best of all finished ones at the end.

Letters: K beams, V vocabulary.  Diverse and constrained beam groups, and drawn beams, are not supported.
Reference: transformers generation/utils.py, GenerationMixin._beam_search with ``early_stopping=False``.
"""

from dataclasses import dataclass, field

import numpy as np

from npgemma import paligemma
from npgemma.base.cache import reorder_behind, take_state
from npgemma.base.device import fetch
from npgemma.generation.answers import Growing
from npgemma.generation.finite import check_finite, finite_rows
from npgemma.generation.processors import log_softmax, process
from npgemma.generation.requests import Prefilled
from npgemma.generation.settings import Settings
from npgemma.generation.stopping import AnswerText


@dataclass(frozen=True)
class Beam:
    """One answer so far: its ids, their log-probabilities by the model, and the sum by which beams are compared."""

    ids: list[int]
    logprobs: list[float]
    total: float
    row: int = 0


@dataclass
class Finished:
    """The best finished answers of a prompt, and whether a running one could still enter.

    Parameters
    ----------
    room : int
        How many are kept.
    length_penalty : float
    """

    room: int
    length_penalty: float
    best: list[tuple[float, Beam]] = field(default_factory=list)
    open: bool = True

    def score(self, beam: Beam) -> float:
        """Log-likelihood over length to the power of the penalty: above 0, long answers are favoured."""
        return beam.total / len(beam.ids) ** self.length_penalty

    def enter(self, beams: list[Beam]) -> None:
        """Take new ones in, best first, earlier before later among equals."""
        if self.open:
            entering = [(self.score(beam), beam) for beam in beams if np.isfinite(beam.total)]
            self.best = sorted([*self.best, *entering], key=lambda pair: -pair[0])[: self.room]

    def close_if_settled(self, leader: Beam) -> None:
        """Close for good when the best running beam, taken at its present length, is behind the worst finished one.

        That is a rule of thumb: with a positive penalty a longer answer might still overtake.  It is transformers'
        default rule all the same.
        """
        if len(self.best) == self.room and self.score(leader) <= self.best[-1][0]:
            self.open = False


def search(
    w, cfg, start: Prefilled, prompt_ids: list[int], settings: Settings, tokenizer=None
) -> list[tuple[float, Beam]]:
    """Search the best answers to one prompt.

    Parameters
    ----------
    w : Weights
    cfg : Config
    start : Prefilled
        Of one row.
    prompt_ids : list of int
    settings : Settings
    tokenizer : Tokenizer, optional
        Needed for stop strings only.

    Returns
    -------
    best : list of (score, Beam)
        At most ``num_beams``, the best first.
    """
    finished = Finished(settings.num_beams, settings.length_penalty)
    running = [Beam([], [], 0.0)]
    logits, state, position = start.logits, start.state, start.positions[:1]
    prompt = state.token_types.shape[1]
    while True:
        candidates = continue_all(running, logits, prompt_ids, settings)
        ended = [has_ended(beam, settings, tokenizer) for beam in candidates]
        # The second half only stands by, so that enough beams go on when many of the best end at once.
        finished.enter([beam for beam, end in zip(candidates[: settings.num_beams], ended, strict=False) if end])
        running = [beam for beam, end in zip(candidates, ended, strict=True) if not end][: settings.num_beams]
        if not running:
            return finished.best
        finished.close_if_settled(running[0])
        if not finished.open:
            return finished.best
        rows, ids = w.beside([[beam.row, beam.ids[-1]] for beam in running]).T
        positions = np.repeat(position, len(running))[:, None]
        alike = len(state.token_types) == len(running)  # all but at first, and where beams have ended
        state = reorder_behind(state, rows, prompt) if alike else take_state(state, rows)
        step_logits, state = paligemma.read_on(w, cfg, ids[:, None], positions, state)
        logits, position = step_logits[:, 0], position + 1


def continue_all(running: list[Beam], logits, prompt_ids: list[int], settings: Settings) -> list[Beam]:
    """Give the best continuations of all beams by one token, best first.

    Parameters
    ----------
    running : list of K Beam
    logits : (K, V)
    prompt_ids : list of int
    settings : Settings

    Returns
    -------
    candidates : list of Beam
        Twice as many as there shall be beams, or more where there are several stop ids.
    """
    logprobs = log_softmax(logits)
    shaped = process(logprobs, settings, [prompt_ids] * len(running), [beam.ids for beam in running])
    before = np.array([[beam.total] for beam in running], dtype=shaped.dtype, like=shaped)
    totals = (shaped + before).reshape(-1)
    wanted = min(max(2, 1 + len(settings.stop_ids or ())) * settings.num_beams, totals.size)
    some, highest = greatest(totals, wanted)
    # The only wait of a step, where the model is on a card.
    places, sums, likely, finite = fetch(some, highest, logprobs.reshape(-1)[some], finite_rows(logits))
    check_finite(finite, [0] * len(running), [beam.ids for beam in running])
    best = [index for index in range(wanted) if sums[index] > -np.inf]
    rows, tokens = np.divmod(places.astype(np.int64), logits.shape[1])
    return [
        Beam(
            [*running[rows[index]].ids, int(tokens[index])],
            [*running[rows[index]].logprobs, float(likely[index])],
            float(sums[index]),
            int(rows[index]),
        )
        for index in best
    ]


def greatest(x, count: int):
    """Give the places of the ``count`` greatest numbers of x (N), the first among equals, and the numbers there.

    A few looks over all of them are no slower than a partition, and CuPy's ``argpartition`` waits for the card.
    """
    rest, places, numbers = x.copy(), [], []
    for _ in range(count):
        places.append(np.argmax(rest, axis=0, keepdims=True))
        numbers.append(rest[places[-1]])
        rest[places[-1]] = -np.inf
    return np.concatenate(places), np.concatenate(numbers)


def has_ended(beam: Beam, settings: Settings, tokenizer) -> bool:
    """Tell whether a candidate ends here: a stop id, a stop string, or the greatest length."""
    if beam.ids[-1] in (settings.stop_ids or ()) or len(beam.ids) >= (settings.max_new_tokens or 0):
        return True
    if not settings.stop:
        return False
    written = AnswerText(tokenizer, settings.stop)
    for token in beam.ids:
        written.push(token)
    return written.stopped


def write(beam: Beam, answer: Growing) -> Growing:
    """Write a beam's tokens into an answer."""
    for token, logprob in zip(beam.ids, beam.logprobs, strict=True):
        answer.take(token, logprob)
    return answer
