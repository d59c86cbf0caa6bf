"""PaliGemma: pictures become soft tokens, stand among the embedded ids, and a decoder reads on (Beyer et al. 2024).

Letters: B batch, I pictures of the whole batch, R image side, P patches a picture, T text positions of this call,
S all positions so far, C vision width, D text width, V vocabulary rows.  A prefix is read in one piece: it sees all of
itself, so that a part of it read alone would be another computation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from npgemma import masks, ops, text, vision
from npgemma.base import inputs
from npgemma.base.cache import State
from npgemma.base.weights import Weights
from npgemma.config import Config


@dataclass(frozen=True, repr=False)
class Model:
    """What :func:`npgemma.load` gives: a configuration, the weights, and what turns pictures and words into numbers.

    ``tokenizer`` and ``image_settings`` are None for a folder without them: ids in, ids out needs neither.
    """

    config: Config
    weights: Weights
    tokenizer: Any = None
    image_settings: Any = None
    name: str = ""

    def __repr__(self):
        """A screen: both towers' sizes, the weights as a tree, the tokenizer, how pictures are read."""
        towers = {"vision": self.config.vision, "text": self.config.text}
        sizes = [f"{name} {cfg.depth} blocks of {cfg.width}, {cfg.num_heads} heads" for name, cfg in towers.items()]
        parts = self.weights, self.tokenizer, self.image_settings
        return "\n".join([f"Model {self.name!r}: {'; '.join(sizes)}", *(repr(each) for each in parts if each)])


def forward(
    model: Model, ids: Any, pixels: Any = None, token_types: Any = None, attention_mask: Any = None,
    positions: Any = None, last_only: bool = False, observe: Callable[[str, Any], Any] | None = None,
) -> Any:
    """Score every token as the next one, at every position, in one pass.

    Parameters
    ----------
    model : Model
    ids : (B, T)
        Integers, with ``config.image_token_id`` wherever a soft token goes.
    pixels : (B, M, R, R, 3) or (I, 3, R, R), optional
        M pictures for each row, or Hugging Face's flat form, where rows may have different numbers of pictures.
        In [-1, 1].
    token_types : (B, T), optional
        0 for the bidirectional prefix, 1 for the causal suffix.  All prefix if left out (transformers 5.23.0 takes all
        suffix then, 5.0.0 all prefix).
    attention_mask : (B, T), optional
        1 for real tokens, 0 for padding on either side.  All real if left out.
    positions : (B, T), optional
        Integers; 1, 2, 3, … if left out.
    last_only : bool
        Score each row's last real position only.
    observe : callable, optional
        ``observe(name, array)`` sees each tensor, in order, and may return one that goes on in its place.

    Returns
    -------
    logits : (B, T, V), or (B, 1, V) with ``last_only``
        float32, or float64 for a model of that precision.

    Raises
    ------
    InputError
        If a shape, a dtype or a range is wrong, or image tokens and pictures do not match.

    Notes
    -----
    Reference: transformers modeling_paligemma.py, PaliGemmaForConditionalGeneration.
    """
    cfg = model.config
    w = model.weights if observe is None else model.weights.watched_by(observe)
    ids = inputs.as_integers("ids", ids)
    token_types = np.zeros_like(ids) if token_types is None else inputs.as_integers("token_types", token_types)
    real = np.ones_like(ids) if attention_mask is None else inputs.as_integers("attention_mask", attention_mask)
    positions = inputs.slot_positions(ids, cfg) if positions is None else inputs.as_integers("positions", positions)
    pictures = inputs.flat_pictures(pixels, ids, cfg)
    soft = None if pictures is None else see(w, cfg, pictures)
    norm, state = read(w, cfg, ids, soft, token_types, real, positions)
    return head(norm, state, w, cfg, last_only)


def see(w, cfg, pictures):
    """Turn pictures in [-1, 1] into soft tokens, by tower and connector: pictures (I, R, R, 3) -> (I, P, D).

    They do not depend on the prompt: a picture is seen once.
    """
    inputs.check_pictures(pictures, cfg)
    pixels = w.keep("pixels", w.beside(pictures, w.precision.dtype))
    patches = vision.encode(pixels, w.at("vision"), cfg.vision)
    return connect(patches, w.at("connector"))


def connect(patches, w):
    """Bring patch vectors to the decoder's width: patches (I, P, C) -> (I, P, D).

    Reference: transformers modeling_paligemma.py, PaliGemmaMultiModalProjector.
    """
    return w.keep("out", ops.linear(patches, w["out.weight"], w["out.bias"]))


def prefill(w, cfg, ids, soft, token_types, attention_mask, positions, last_only=False):
    """Read a whole prompt as :func:`read`, and score what comes next: logits (B, T, V), or (B, 1, V); state."""
    norm, state = read(w, cfg, ids, soft, token_types, attention_mask, positions)
    return head(norm, state, w, cfg, last_only), state


def head(norm, state, w, cfg, last_only):
    """Score all positions, or each row's last real one: norm (B, T, D) -> logits (B, T, V) or (B, 1, V)."""
    scored = ops.last_real(norm, state.attention_mask) if last_only else norm
    return text.logits(scored, w.at("text"), cfg.text)


def read(w, cfg, ids, soft, token_types, attention_mask, positions):
    """Read a whole prompt, and a suffix behind it where there is one, and remember its keys and values.

    Parameters
    ----------
    w : Weights
    cfg : Config
    ids, token_types, attention_mask, positions : (B, T)
    soft : (I, P, D) or None
        From :func:`see`.

    Returns
    -------
    norm : (B, T, D)
        What :func:`text.logits` scores; the head costs more than a block, so score only rows that are wanted.
    state : State
        For :func:`step`.

    Raises
    ------
    InputError
        If an input does not fit the others or the model.
    """
    inputs.check_prompt(ids, token_types, attention_mask, positions, cfg)
    ids, token_types, attention_mask, positions = given(w, ids, token_types, attention_mask, positions)
    places = masks.image_places(ids, token_types, cfg.image_token_id)
    inputs.check_image_tokens(places, soft, cfg)
    embedded = text.embed(ids, w.at("text"), cfg.text)
    spliced = splice(embedded, soft, places, w.at("text"))
    full, sliding = both_masks(w, cfg, token_types, attention_mask, ids.shape[1])
    norm, present = text.decode(spliced, w.at("text"), cfg.text, positions, full, sliding, past=None)
    return norm, State(present, token_types, attention_mask)


def step(w, cfg, ids, positions, state, attention_mask=None):
    """Read one more token of the answer, or several, given all that was read before.

    Parameters
    ----------
    w : Weights
    cfg : Config
    ids, positions : (B, T)
        Of the suffix: each sees back only.  Image tokens are ordinary ids here.
    state : State
        Stays as it was: another continuation may start from it again.
    attention_mask : (B, T), optional
        1 for real tokens, 0 for padding; all real if left out.

    Returns
    -------
    logits : (B, T, V)
    state : State

    Raises
    ------
    InputError
        If ids or positions do not fit the state, or the trained context is full.
    """
    real = np.ones_like(ids) if attention_mask is None else attention_mask
    inputs.check_step(ids, positions, real, state, cfg)
    return read_on(w, cfg, ids, positions, state, real)


def read_on(w, cfg, ids, positions, state, real=None):
    """Read on as :func:`step`, unchecked: who chose the ids knows that they fit, and a look would wait for a card."""
    real = np.ones_like(ids) if real is None else real
    ids, suffix, real, positions = given(w, ids, np.ones_like(ids), real, positions)
    embedded = text.embed(ids, w.at("text"), cfg.text)
    token_types = np.concatenate([state.token_types, suffix], axis=1)
    all_real = np.concatenate([state.attention_mask, real], axis=1)
    full, sliding = both_masks(w, cfg, token_types, all_real, ids.shape[1])
    norm, present = text.decode(embedded, w.at("text"), cfg.text, positions, full, sliding, past=state.blocks)
    return text.logits(norm, w.at("text"), cfg.text), State(present, token_types, all_real)


def given(w, ids, token_types, attention_mask, positions):
    """Put what a call is given, four arrays (B, T), where the weights lie, and name it."""
    return (
        w.show("ids", w.beside(ids)),
        w.show("token_types", w.beside(token_types)),
        w.show("attention_mask", w.beside(attention_mask)),
        w.show("positions", w.beside(positions)),
    )


def splice(embedded, soft, places, w):
    """Put soft (I, P, D), where there are pictures, into embedded (B, T, D) at places (B, T)."""
    return w.keep("spliced", embedded if soft is None else ops.splice(embedded, soft, places))


def both_masks(w, cfg, token_types, attention_mask, num_queries):
    """Say who may look at whom: token_types (B, S), attention_mask (B, S) -> two masks, (B, T, S).

    The second, of blocks with a window, is None where no block has one.
    """
    full = w.show("mask.full", masks.prefix_lm(token_types, attention_mask, num_queries))
    window = cfg.text.sliding_window
    if window is None:
        return full, None
    sliding = masks.sliding_prefix_lm(token_types, attention_mask, num_queries, window)
    return full, w.show("mask.sliding", sliding)
