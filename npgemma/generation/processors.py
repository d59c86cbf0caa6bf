"""Equations between the logits and the choice of a token, in the order in which transformers applies them.

Letters: B rows, V vocabulary.  ``scores`` are logits, or log-probabilities in beam search, with -inf for what may not
be chosen.  Reference: transformers generation/logits_process.py and GenerationMixin._get_logits_processor.
"""

import numpy as np

from npgemma.base.device import to_host
from npgemma.base.errors import InputError, InputTypeError
from npgemma.generation.settings import Settings


def process(scores, settings: Settings, prompts, answers):
    """Apply what the settings ask for, the drawing limits last.

    Parameters
    ----------
    scores : (B, V)
    settings : Settings
        Made for the model, so that ``stop_ids`` are known.
    prompts : list of B lists of int
        Without padding, which repeats nothing.
    answers : list of B lists of int
        Ids chosen so far, as many in each row.

    Returns
    -------
    processed : (B, V)
    """
    if settings.repetition_penalty != 1.0:
        seen = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        scores = penalise(scores, seen, settings.repetition_penalty)
    if len(answers[0]) < settings.min_new_tokens:
        scores = forbid(scores, settings.stop_ids or ())
    if settings.allowed is not None:
        choose = settings.allowed
        chosen = [choose(answer) if callable(choose) else choose for answer in answers]
        scores = restrict(scores, chosen)
    if settings.suppress_ids:
        scores = forbid(scores, settings.suppress_ids)
    return limit(scores, settings) if settings.samples else scores


def allowed_ids(ids, V):
    """Take what an ``allowed`` gave as an index, if it is one: a negative id would choose from the end, in silence.

    Returns
    -------
    index : (ids)
    """
    try:
        index = to_host(ids if hasattr(ids, "dtype") else list(ids))
    except (TypeError, ValueError):
        raise InputTypeError(f"gave {ids!r:.80}; want a list of ids", argument="allowed") from None
    if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
        raise InputError(f"gave {ids!r:.80}; want ids, whole numbers, at least one", argument="allowed")
    low, high = int(np.min(index)), int(np.max(index))
    if low < 0 or high >= V:
        raise InputError(f"gave ids in [{low}, {high}]; want ids in 0..{V - 1}", argument="allowed")
    return index.astype(np.int64)


def limit(scores, settings: Settings):
    """Shape the distribution that a token is drawn from: temperature, then top-k, top-p, min-p."""
    if settings.heat != 1.0:
        scores = scores / settings.heat
    if settings.top_k is not None:
        scores = top_k(scores, settings.top_k)
    if settings.top_p is not None and settings.top_p < 1.0:
        scores = top_p(scores, settings.top_p)
    if settings.min_p is not None:
        scores = min_p(scores, settings.min_p)
    return scores


def penalise(scores, seen, penalty):
    """Make tokens that were seen before less likely.

    Parameters
    ----------
    scores : (B, V)
    seen : list of B lists of int
        Ids beyond V (image tokens) are passed over.
    penalty : float
        Positive scores are divided by it, negative ones multiplied.

    Notes
    -----
    Keskar et al. 2019, sec. 4.1.  Reference: RepetitionPenaltyLogitsProcessor.
    """
    B, V = scores.shape
    penalised = scores.copy()
    for row in range(B):
        ids = np.array([token for token in set(seen[row]) if token < V], dtype=np.int64, like=scores)
        picked = scores[row, ids]
        penalised[row, ids] = np.where(picked < 0, picked * penalty, picked / penalty)
    return penalised


def forbid(scores, ids):
    """Take ``ids`` out of the choice."""
    left = scores.copy()
    left[:, np.array([token for token in ids if token < scores.shape[-1]], dtype=np.int64, like=scores)] = -np.inf
    return left


def restrict(scores, allowed):
    """Leave only ``allowed[row]`` to choose from.

    Notes
    -----
    Where all of them were out of the choice already, they are all equally likely: the restriction holds in any case.
    Reference: PrefixConstrainedLogitsProcessor.
    """
    restricted = np.full_like(scores, -np.inf)
    for row, ids in enumerate(allowed):
        index = np.array(allowed_ids(ids, scores.shape[-1]), like=scores)
        picked = scores[row, index]
        restricted[row, index] = np.where(np.any(picked > -np.inf), picked, 0.0)
    return restricted


def top_k(scores, k):
    """Keep the ``k`` highest scores of a row, and those equal to the lowest of them."""
    lowest_kept = np.partition(scores, -k, axis=-1)[:, -k, None]
    return np.where(scores < lowest_kept, -np.inf, scores)


def top_p(scores, p):
    """Keep the fewest highest scores whose probabilities reach ``p``.

    Notes
    -----
    Holtzman et al. 2020, sec. 3.1.  Reference: TopPLogitsWarper, which drops, from the least likely up, all whose
    probabilities together are at most 1 - p; the likeliest always stays.
    """
    order = np.argsort(scores, axis=-1, kind="stable")
    ascending = softmax(np.take_along_axis(scores, order, axis=-1))
    # PyTorch adds up in double and rounds each sum; 257,216 additions in float32 would drift.
    reached = np.cumsum(ascending, axis=-1, dtype=np.float64).astype(scores.dtype)
    dropped = reached <= 1.0 - p
    dropped[:, -1] = False
    processed = scores.copy()
    np.put_along_axis(processed, order, np.where(dropped, -np.inf, np.take_along_axis(scores, order, axis=-1)), axis=-1)
    return processed


def min_p(scores, p):
    """Keep tokens at least ``p`` times as likely as the likeliest.

    Notes
    -----
    Nguyen et al. 2024.  Reference: MinPLogitsWarper.
    """
    probs = softmax(scores)
    return np.where(probs < p * np.max(probs, axis=-1, keepdims=True), -np.inf, scores)


def softmax(scores):
    """Probabilities of scores that may be -inf, but not all of a row."""
    powers = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return powers / np.sum(powers, axis=-1, keepdims=True)


def log_softmax(scores):
    """Log-probabilities of scores."""
    shifted = scores - np.max(scores, axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
