"""What the goldens of learning ask: which batch, and which token should come next at which position.  NumPy alone."""

import golden_batches
import numpy as np

IGNORED = -100
# Weights are named as in golden/; each fingerprint has a seed of its own.
SEED = 40_000


def lessons(config):
    """Every kind of batch by name, each with its labels (B, T)."""
    batches = {"whole": golden_batches.whole_batch(config)} | golden_batches.other_batches(config)
    if config.image_token_index < config.text_config.vocab_size:
        batches["image_id_in_suffix"] = with_image_id_in_suffix(config)
    return {name: batch | {"labels": labels(batch, config)} for name, batch in batches.items()}


def with_image_id_in_suffix(config):
    """A suffix that says the image token as a word: no picture belongs there."""
    batch = golden_batches.batch(
        [golden_batches.row(config, 91, 1, 2, num_suffix=5)], "right", [1],
        golden_batches.pictures(config.vision_config.image_size),
    )
    batch["ids"][0, -3] = config.image_token_index
    return batch


def labels(batch, config):
    """The next token wherever it is asked for: in the suffix, or where there is none at every word of the prompt."""
    ids, types, real = batch["ids"], batch["token_types"], batch["attention_mask"] != 0
    both = real[:, :-1] & real[:, 1:]
    has_suffix = types.any() and not (types[real] == 1).all()
    asked = both & ((types[:, 1:] == 1) if has_suffix else (ids[:, 1:] != config.image_token_index))
    wanted = np.full_like(ids, IGNORED)
    wanted[:, :-1][asked] = ids[:, 1:][asked]
    return wanted
