"""Who may look at whom: prefix-LM attention, the sliding window, padding; and where soft tokens go.  Booleans.

Letters: B batch, T query positions of this call, S key positions, the T queries being the last of the S.
Not supported: packed sequences, chunked attention.
"""

import numpy as np

# Below every score, in float32 and so in all precisions.  Finite, so that a row with nothing to look at becomes
# uniform, as in PyTorch, and not NaN.
BIG_NEG = -3.4028234663852886e38


def prefix_lm(token_types, attention_mask, num_queries):
    """Let a prefix see all of itself, and a suffix see back.

    Parameters
    ----------
    token_types : (B, S)
        0 for the prefix (pictures and prompt), 1 for the suffix (the answer).
    attention_mask : (B, S)
        1 for real tokens, 0 for padding, wherever it lies.
    num_queries : int
        T: the mask's rows are the last T positions.

    Returns
    -------
    mask : (B, T, S)

    Notes
    -----
    A prefix of 3 and a suffix of 2, then the same with the first position padded::

        1 1 1 0 0        0 1 1 0 0
        1 1 1 0 0        0 1 1 0 0
        1 1 1 0 0        0 1 1 0 0
        1 1 1 1 0        0 1 1 1 0
        1 1 1 1 1        0 1 1 1 1

    mask = (key <= query or both in the prefix) and key is real.  Beyer et al. 2024, fig. 2.
    Reference: transformers masking_utils.py, create_causal_mask with block_sequence_ids.
    """
    slots = np.arange(token_types.shape[1], like=token_types)
    causal = slots[None, :] <= slots[-num_queries:, None]
    return (causal | both_in_prefix(token_types, num_queries)) & (attention_mask[:, None, :] != 0)


def sliding_prefix_lm(token_types, attention_mask, num_queries, window):
    """Bound how far back a suffix token sees, to ``window`` tokens, itself included; the prefix sees all of itself.

    Parameters and result as :func:`prefix_lm`.  A prefix of 3, a suffix of 3, window 2::

        1 1 1 0 0 0
        1 1 1 0 0 0
        1 1 1 0 0 0
        0 0 1 1 0 0
        0 0 0 1 1 0
        0 0 0 0 1 1

    mask = (key <= query and query - key < window, or both in the prefix) and key is real.  The distance counts real
    tokens, so that padding between a prompt and its answer takes no room (Hugging Face counts slots; the two agree
    wherever no padding lies between real tokens).
    Reference: transformers masking_utils.py, create_sliding_window_causal_mask.
    """
    real = attention_mask != 0
    ranks = np.cumsum(real, axis=1)
    near = ranks[:, -num_queries:, None] - ranks[:, None, :] < window
    full = prefix_lm(token_types, attention_mask, num_queries)
    return full & (near | both_in_prefix(token_types, num_queries))


def both_in_prefix(token_types, num_queries):
    """Tell for each query and key whether both are of the prefix: token_types (B, S) -> (B, T, S)."""
    prefix = token_types == 0
    return prefix[:, -num_queries:, None] & prefix[:, None, :]


def hide(scores, mask):
    """Put the lowest number where a query may not look: scores (B, K, G, T, S), mask (B, T, S) -> (B, K, G, T, S)."""
    return np.where(mask[:, None, None], scores, BIG_NEG)


def image_places(ids, token_types, image_token_id):
    """Tell where soft tokens go: ids (B, T), token_types (B, T) -> (B, T).  A generated image token is an ordinary id.

    A call without any prefix is Hugging Face 5's plain causal pass, whose pictures stand in the causal part.
    """
    in_prefix = (token_types == 0) | np.all(token_types == 1)
    return (ids == image_token_id) & in_prefix
