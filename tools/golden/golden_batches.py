"""The batches of the goldens: everything that a call of the model can be, as ids, kinds of token, masks, positions."""

import golden_inputs
import numpy as np

BOS, NEWLINE, PAD = 2, 4, 0
FIRST_WORD = 5
PICTURES = 3


def pictures(side):
    """Three pictures (3, R, R, 3) in [-1, 1], values of 8-bit pictures."""
    levels = np.floor(golden_inputs.uniform(77, (PICTURES, side, side, 3)) * 256.0)
    return (levels / 127.5 - 1.0).astype(np.float32)


def row(config, seed, num_pictures, num_words, num_suffix=0):
    """Ids and token types of one row: image tokens, bos, words, newline, and a suffix that ends with eos."""
    image_tokens = config.text_config.num_image_tokens * num_pictures
    words = draw_words(config, seed, num_words)
    prefix = [config.image_token_index] * image_tokens + [BOS, *words, NEWLINE]
    suffix = [*draw_words(config, seed + 1, num_suffix - 1), 1] if num_suffix else []
    return prefix + suffix, [0] * len(prefix) + [1] * len(suffix)


def draw_words(config, seed, count):
    """Ids that are neither special nor the image token."""
    top = min(config.text_config.vocab_size, config.image_token_index)
    numbers = golden_inputs.uniform(seed, (max(count, 0),))
    return [int(FIRST_WORD + np.floor(number * (top - FIRST_WORD))) for number in numbers]


def batch(rows, side, picked, pixels, generating=False):
    """Rows padded on ``side`` to one length.

    Parameters
    ----------
    rows : list of (ids, token types)
    side : "left" or "right"
    picked : list of int
        Which of ``pixels`` the rows show, in order of rows.
    pixels : (3, R, R, 3)
    generating : bool
        Positions as transformers' ``generate`` counts them, real tokens only; else 1, 2, 3, … as its ``forward``.
    """
    length = max(len(ids) for ids, _ in rows)
    ids = np.full((len(rows), length), PAD, dtype=np.int64)
    token_types = np.zeros_like(ids)
    attention_mask = np.zeros_like(ids)
    for number, (row_ids, row_types) in enumerate(rows):
        place = slice(length - len(row_ids), None) if side == "left" else slice(0, len(row_ids))
        ids[number, place] = row_ids
        token_types[number, place] = row_types
        attention_mask[number, place] = 1
    positions = np.broadcast_to(np.arange(1, length + 1), ids.shape).copy()
    if generating:
        positions = np.maximum(np.cumsum(attention_mask, axis=1), 1)
    return {
        "ids": ids,
        "token_types": token_types,
        "attention_mask": attention_mask,
        "positions": positions,
        "picked": np.array(picked, dtype=np.int64),
        "pixels": pixels[picked] if picked else None,
    }


def whole_batch(config):
    """The batch that is traced whole: a picture a row, prompts of different length, a suffix, padding on the right."""
    rows = [row(config, 11, 1, 3, num_suffix=4), row(config, 13, 1, 1, num_suffix=3)]
    return batch(rows, "right", [0, 1], pictures(config.vision_config.image_size))


def other_batches(config):
    """The other kinds of batch, by name."""
    pixels = pictures(config.vision_config.image_size)
    two = [row(config, 21, 1, 4), row(config, 23, 1, 1)]
    causal = row(config, 71, 1, 7)
    return {
        "left_padding": batch(two, "left", [0, 1], pixels),
        "right_padding": batch(two, "right", [0, 1], pixels),
        "generation_positions": batch(two, "left", [1, 0], pixels, generating=True),
        "several_pictures": batch([row(config, 31, 2, 2)], "left", [2, 0], pixels),
        "uneven_pictures": batch(
            [row(config, 41, 1, 2), row(config, 43, 0, 3), row(config, 45, 2, 1)], "right", [1, 0, 2], pixels
        ),
        "text_only": batch([row(config, 51, 0, 6), row(config, 53, 0, 9)], "left", [], pixels),
        "empty_prompt": batch([row(config, 61, 1, 0)], "left", [2], pixels),
        "suffix": batch(
            [row(config, 63, 1, 2, num_suffix=7), row(config, 65, 1, 4, num_suffix=2)], "left", [0, 2], pixels
        ),
        "causal": batch([(causal[0], [1] * len(causal[0]))], "left", [1], pixels),
    }


def cached_batch(config):
    """A prefill and the ids (B, steps) that follow it one by one, with positions that count real tokens.

    Where the vocabulary holds the image token the last step is one: generated later it is an ordinary id.
    """
    pixels = pictures(config.vision_config.image_size)
    prefill = batch([row(config, 81, 1, 3), row(config, 83, 1, 1)], "left", [1, 2], pixels, generating=True)
    steps = np.array([draw_words(config, 85, 4), draw_words(config, 87, 4)])
    if config.image_token_index < config.text_config.vocab_size:
        steps[0, -1] = config.image_token_index
    return prefill, steps
