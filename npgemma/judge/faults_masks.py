"""Faults of who may look at whom: the prefix, the suffix, padding, the window, and how a mask is applied."""

import functools

import numpy as np

from npgemma import masks
from npgemma.judge.faults import with_equations, with_expressions
from npgemma.judge.faults_attention import CAPPED, PROBS

MASK = "(mask.sliding if window else mask.full)"
FULL, SLIDING = "mask.full", "mask.sliding"


def causal(token_types, attention_mask, num_queries):
    """Each position sees back only."""
    return masks.prefix_lm(token_types * 0 + 1, attention_mask, num_queries)


def moved(token_types, by):
    """The token types with the suffix beginning so much later."""
    rolled = np.roll(token_types, by, axis=1)
    edge = slice(0, by) if by > 0 else slice(by, None)
    rolled[:, edge] = 0 if by > 0 else 1
    return rolled


def slots_in_window(token_types, attention_mask, num_queries, window, both_sides=False):
    """A window over the prefix too: backwards, or on both sides."""
    slots = np.arange(token_types.shape[1])
    distance = slots[-num_queries:, None] - slots[None, :]
    near = np.abs(distance) < window if both_sides else distance < window
    return masks.prefix_lm(token_types, attention_mask, num_queries) & near


def strictly_before(token_types, num_queries):
    """False where a suffix token meets itself."""
    S = token_types.shape[1]
    itself = np.eye(S, dtype=bool)[-num_queries:]
    return ~(itself & (token_types != 0)[:, -num_queries:, None])


def of_pictures(changed):
    """Expressions and equations of both masks where pictures are told from text: ``changed(mask, pictures, T)``."""

    def full(ids, types, real, num, image_token):
        return changed(masks.prefix_lm(types, real, num), ids == image_token, num)

    def sliding(ids, types, real, num, image_token, window):
        return changed(masks.sliding_prefix_lm(types, real, num, window), ids == image_token, num)

    given = "earlier(ids), earlier(token_types), earlier(attention_mask), T, image_token_id"
    changes = {FULL: f"full_told({given})", SLIDING: f"sliding_told({given}, sliding_window)"}
    return changes, {"full_told": full, "sliding_told": sliding}


def text_sees_back(mask, pictures, num):
    """Only pictures see all of the prefix."""
    slots = np.arange(mask.shape[-1])
    return mask & (pictures[:, -num:, None] | (slots <= slots[-num:, None]))


def pictures_see_pictures(mask, pictures, num):
    """Pictures see no text."""
    return mask & (pictures[:, None] | ~pictures[:, -num:, None])


FAULTS = [
    with_equations(
        "mask-causal",
        "the prefix sees back only; pictures and prompt see all of themselves",
        f"{FULL} {SLIDING}",
        prefix_lm=causal,
        sliding_prefix_lm=lambda types, real, num, window: (masks.sliding_prefix_lm(types * 0 + 1, real, num, window)),
    ),
    with_equations(
        "mask-all",
        "everybody sees everything, suffix and padding too",
        f"{FULL} {SLIDING}",
        prefix_lm=lambda types, real, num: causal(types, real, num) | True,
        sliding_prefix_lm=lambda types, real, num, window: causal(types, real, num) | True,
    ),
    with_equations(
        "mask-suffix-seen",
        "the prefix sees the suffix: the answer leaks",
        f"{FULL} {SLIDING}",
        prefix_lm=lambda types, real, num: masks.prefix_lm(types * 0, real, num),
        sliding_prefix_lm=lambda types, real, num, window: masks.sliding_prefix_lm(types * 0, real, num, window),
    ),
    with_equations(
        "mask-padding-seen",
        "padding is looked at",
        f"{FULL} {SLIDING}",
        prefix_lm=lambda types, real, num: masks.prefix_lm(types, real * 0 + 1, num),
        sliding_prefix_lm=lambda types, real, num, window: (masks.sliding_prefix_lm(types, real * 0 + 1, num, window)),
    ),
    *(
        with_equations(
            f"mask-suffix-one-{word}",
            f"the suffix begins one token too {word}",
            f"{FULL} {SLIDING}",
            prefix_lm=lambda types, real, num, by=by: masks.prefix_lm(moved(types, by), real, num),
            sliding_prefix_lm=lambda types, real, num, window, by=by: (
                masks.sliding_prefix_lm(moved(types, by), real, num, window)
            ),
        )
        for word, by in (("late", 1), ("early", -1))
    ),
    with_equations(
        "mask-inverted",
        "the mask is inverted: true where a query may not look",
        f"{FULL} {SLIDING}",
        prefix_lm=lambda *given: ~masks.prefix_lm(*given),
        sliding_prefix_lm=lambda *given: ~masks.sliding_prefix_lm(*given),
    ),
    with_equations(
        "mask-without-itself",
        "a suffix token does not see itself",
        f"{FULL} {SLIDING}",
        prefix_lm=lambda types, real, num: masks.prefix_lm(types, real, num) & strictly_before(types, num),
        sliding_prefix_lm=lambda types, real, num, window: (
            masks.sliding_prefix_lm(types, real, num, window) & strictly_before(types, num)
        ),
    ),
    *(
        with_equations(
            f"window-one-too-{word}",
            f"the sliding window is one token too {word}; it counts the token itself",
            SLIDING,
            sliding_prefix_lm=lambda types, real, num, window, by=by: (
                masks.sliding_prefix_lm(types, real, num, window + by)
            ),
        )
        for word, by in (("wide", 1), ("narrow", -1))
    ),
    with_equations(
        "window-left-out",
        "blocks with a sliding window see everything",
        SLIDING,
        sliding_prefix_lm=lambda types, real, num, window: masks.prefix_lm(types, real, num),
    ),
    with_equations(
        "window-over-the-prefix", "the sliding window bounds the prefix too", SLIDING, sliding_prefix_lm=slots_in_window
    ),
    with_equations(
        "window-on-both-sides",
        "the sliding window bounds the prefix on both sides",
        SLIDING,
        sliding_prefix_lm=functools.partial(slots_in_window, both_sides=True),
    ),
    *(
        with_expressions(name, sentence, changes, **equations)
        for name, sentence, (changes, equations) in (
            ("mask-text-causal", "the prompt's text sees back only; pictures see all", of_pictures(text_sees_back)),
            ("mask-pictures-alone", "pictures see pictures only; all of the prefix sees all of it",
             of_pictures(pictures_see_pictures)),
        )
    ),
    with_expressions(
        "window-on-the-other-blocks",
        "the sliding window is on the odd blocks; it belongs on the even ones",
        {PROBS: f"softmax(hide({CAPPED}, mask.full if window else mask.sliding))"},
    ),
    with_expressions(
        "window-left-out-of-probs",
        "blocks with a sliding window use the full mask",
        {PROBS: f"softmax(hide({CAPPED}, mask.full))"},
    ),
    with_expressions("mask-left-out", "scores are not masked", {PROBS: f"softmax({CAPPED} * 1.0)"}),
    with_expressions(
        "soft-cap-after-the-mask",
        "scores are masked before their soft-cap, so that nothing is hidden",
        {PROBS: f"softmax(soft_cap(hide(scores, {MASK}), attn_softcap, inner))"},
    ),
    with_expressions(
        "mask-of-zeros-and-ones",
        "the 0/1 mask is added to the scores, where 0 and minus infinity belong",
        {PROBS: f"softmax({CAPPED} + ones({MASK}))"},
        ones=lambda mask: mask[:, None, None].astype(np.float64),
    ),
    with_expressions(
        "mask-multiplied",
        "scores are multiplied by the mask; a score of 0 is not hidden",
        {PROBS: f"softmax({CAPPED} * ones({MASK}))"},
        ones=lambda mask: mask[:, None, None].astype(np.float64),
    ),
    with_expressions(
        "mask-transposed",
        "the mask is transposed: keys are asked what queries may see",
        {PROBS: f"softmax(hide({CAPPED}, {MASK}.mT))"},
    ),
]
