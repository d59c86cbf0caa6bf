"""Matrix products in float32, each in another order of summation, and five that sum wrongly.

All take x (M, K) and weight (N, K), float32, and give (M, N), float32.  A porter whose unit sums as one of these can
have goldens with its very bits.
"""

import numpy as np

from npgemma.base.precision import round_bf16

PIECES = 8


def blas(x, weight):
    """In the order of the library's own kernels."""
    return x @ weight.T


def serial(x, weight):
    """One product after the other, as a loop."""
    total = np.zeros((x.shape[0], weight.shape[0]), dtype=np.float32)
    for column, row in zip(x.T, weight.T, strict=True):
        total += np.outer(column, row)
    return total


def backwards(x, weight):
    """The same loop from the last product to the first."""
    return serial(x[:, ::-1], weight[:, ::-1])


def pairwise(x, weight):
    """The two halves by themselves, then their sum; each half likewise."""
    K = x.shape[1]
    if K <= 8:
        return serial(x, weight)
    return pairwise(x[:, : K // 2], weight[:, : K // 2]) + pairwise(x[:, K // 2 :], weight[:, K // 2 :])


def split_k(x, weight):
    """Eight pieces of K summed apart, then their float32 sums."""
    return np.sum(pieces(x, weight), axis=0, dtype=np.float32)


def pieces(x, weight):
    """The sums (8, M, N) of eight pieces of K."""
    cuts = zip(np.array_split(x, PIECES, axis=1), np.array_split(weight, PIECES, axis=1), strict=True)
    return np.stack([serial(*cut) for cut in cuts])


CORRECT = {"blas": blas, "serial": serial, "backwards": backwards, "pairwise": pairwise, "split-k": split_k}


def first_dropped(x, weight):
    """Begins at k = 1."""
    return serial(x[:, 1:], weight[:, 1:])


def last_dropped(x, weight):
    """Ends one product early."""
    return serial(x[:, :-1], weight[:, :-1])


def summed_in_bf16(x, weight):
    """Rounds the sum to bfloat16 after every product."""
    total = np.zeros((x.shape[0], weight.shape[0]), dtype=np.float32)
    for column, row in zip(x.T, weight.T, strict=True):
        total = round_bf16(total + np.outer(column, row))
    return total


def split_k_in_bf16(x, weight):
    """Rounds the eight pieces' sums to bfloat16 before they are added."""
    return np.sum(round_bf16(pieces(x, weight)), axis=0, dtype=np.float32)


def rounded_early(x, weight):
    """Rounds the sum to bfloat16 where float32 was to leave the product."""
    return round_bf16(serial(x, weight))


FAULTY = {
    "first dropped": first_dropped,
    "last dropped": last_dropped,
    "summed in bfloat16": summed_in_bf16,
    "split-k in bfloat16": split_k_in_bf16,
    "rounded early": rounded_early,
}
