"""Faults of a step: positions of a further token, what a cache remembers and where, which of it a step sees.

In a prompt nothing is remembered, and none of them changes anything.
"""

import numpy as np

from npgemma import masks, rotary
from npgemma.judge.faults import with_equations, with_expressions
from npgemma.judge.faults_attention import MIXED, SCORES

SCORES_OF = "inner(group_heads(q_rot, K) @ group_heads({}, K).mT) * query_scale"
MIXED_OF = "merge_heads(probs @ group_heads({}, K))"


def of_positions(name, sentence, by):
    """A fault of where a further token stands: ``by(types, real)`` places too far on, both (B, S)."""

    def moved(positions, types, real, T):
        return positions if T == types.shape[1] else positions + by(types, real)

    angles = "angles(moved(positions, earlier(token_types), earlier(attention_mask), T), H, rope_theta, dtype)"
    changes = {f"text.{each}": f"inner({each}({angles}))" for each in ("cos", "sin")}
    return with_expressions(name, sentence, changes, moved=moved)


def of_cache(name, sentence, moved):
    """A fault of where keys and values lie that a step reads: ``moved(kept, T)``, all of them (B, S, K, H)."""
    keys, values = (f"moved(earlier({each}), S, T)" for each in ("k_rot", "v"))
    changes = {SCORES: SCORES_OF.format(keys), MIXED: MIXED_OF.format(values)}

    def in_steps(kept, S, T):
        return moved(kept, T) if S > T else kept

    return with_expressions(name, sentence, changes, moved=in_steps)


def of_keys(name, sentence, expression, **equations):
    """A fault of what is remembered of keys."""
    return with_expressions(name, sentence, {SCORES: SCORES_OF.format(expression)}, **equations)


def before_and_now(before, now, T):
    """The first of one array, the last T of another."""
    return np.concatenate([before[:, :-T], now[:, -T:]], axis=1)


def one_slot_early(kept, T):
    """The newest lies where the one before it belongs, and its own slot is empty."""
    return np.concatenate([kept[:, : -T - 1], kept[:, -T:], np.zeros_like(kept[:, :1])], axis=1)


def counted(which):
    """How many of each row, as a column."""
    return np.count_nonzero(which, axis=1, keepdims=True)


def only_in_steps(changed):
    """Equations of both masks that see another thing in a step alone."""

    def full(types, real, num):
        mask = masks.prefix_lm(types, real, num)
        return changed(mask, types, num) if num < types.shape[1] else mask

    def sliding(types, real, num, window):
        mask = masks.sliding_prefix_lm(types, real, num, window)
        return changed(mask, types, num) if num < types.shape[1] else mask

    return {"prefix_lm": full, "sliding_prefix_lm": sliding}


BOTH = "mask.full mask.sliding"

FAULTS = [
    of_positions("step-one-early", "a further token stands one position too early: the first one repeats the prompt's"
                 " last (transformers 4.41)", lambda types, real: -1),
    of_positions("step-one-late", "a further token stands one position too late", lambda types, real: 1),
    of_positions("step-position-stays", "every further token stands where the first one does",
                 lambda types, real: 1 - counted(types)),
    of_positions("step-position-starts-again", "positions of further tokens begin anew, behind no prompt",
                 lambda types, real: -counted((types == 0) & (real != 0))),
    of_positions("step-position-counts-padding", "positions of further tokens count padding too",
                 lambda types, real: counted(real == 0)),
    of_cache("cache-one-slot-early", "a step writes its key and value over the last ones, one slot too early",
             one_slot_early),
    of_cache("cache-one-slot-late", "a step's key and value lie one slot too late: it reads an empty one",
             lambda kept, T: np.concatenate([kept[:, :-T], np.zeros_like(kept[:, -T:])], axis=1)),
    of_cache("cache-rolled", "the cache is turned by one slot: the newest stands before the oldest",
             lambda kept, T: np.roll(kept, 1, axis=1)),
    of_cache("cache-overwritten-from-the-front", "a step writes its key and value into the first slot",
             lambda kept, T: np.concatenate([kept[:, -T:], kept[:, T:-T], np.zeros_like(kept[:, -T:])], axis=1)),
    of_keys("cache-rotated-again", "remembered keys are rotated once more; they were rotated when they were written",
            "again(earlier(k_rot), earlier(cos), earlier(sin), inner, T)",
            again=lambda k, cos, sin, inner, T: before_and_now(rotary.rotate(k, cos, sin, inner), k, T)),
    of_keys("cache-rotated-by-the-step", "remembered keys are rotated once more, by the angle of the new token",
            "again(earlier(k_rot), cos, sin, inner, T)",
            again=lambda k, cos, sin, inner, T: before_and_now(
                rotary.rotate(k, np.repeat(cos[:, -1:], k.shape[1], 1), np.repeat(sin[:, -1:], k.shape[1], 1), inner),
                k, T)),
    of_keys("cache-before-the-rotation", "keys are remembered before their rotation",
            "mixture(earlier(k), earlier(k_rot), T)", mixture=before_and_now),
    of_keys("cache-rotated-by-the-new-angle", "keys are remembered before their rotation, and rotated by the new angle",
            "again(earlier(k), earlier(k_rot), cos, sin, inner, T)",
            again=lambda k, k_rot, cos, sin, inner, T: k_rot if T == k.shape[1] else rotary.rotate(
                k, np.repeat(cos[:, -1:], k.shape[1], 1), np.repeat(sin[:, -1:], k.shape[1], 1), inner)),
    with_equations("window-left-out-of-steps", "a step of a block with a sliding window sees everything",
                   "mask.sliding",
                   sliding_prefix_lm=lambda types, real, num, window: masks.prefix_lm(types, real, num)
                   if num < types.shape[1] else masks.sliding_prefix_lm(types, real, num, window)),
    with_equations("step-sees-the-prompt-alone", "a step sees the prompt and itself, not the tokens between", BOTH,
                   **only_in_steps(lambda mask, types, num: mask & ((types == 0)[:, None] | np.eye(
                       types.shape[1], dtype=bool)[-num:]))),
    with_equations("step-does-not-see-the-newest", "a step does not see itself, nor what its key should be", BOTH,
                   **only_in_steps(lambda mask, types, num: mask & ~np.eye(types.shape[1], dtype=bool)[-num:])),
    with_equations("step-does-not-see-the-first", "a step does not see the first slot", BOTH,
                   **only_in_steps(lambda mask, types, num: mask & (np.arange(types.shape[1]) > 0))),
    with_equations("step-sees-padding", "a step sees what padding left in the cache", BOTH,
                   **only_in_steps(lambda mask, types, num: mask | (types == 0)[:, None])),
]  # fmt: skip
