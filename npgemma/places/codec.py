"""The mask codec of PaliGemma: a mask of 64 x 64 as sixteen words of 128, and back (a VQ-VAE).

Letters: B masks, C channels of the grid, E length of a code's vector; grids are 64, 32, 16, 8 and 4 places a side.
Not supported: training (tools/tiny/train_codec.py), masks of another size, more or fewer codes.
"""

import numpy as np

from npgemma.base.errors import InputError
from npgemma.places.convolution import convolve, convolve_transposed

SIDE = 64  # of a mask, in places
GRID = 4  # codes a side
NUM_CODES = GRID * GRID
NUM_WORDS = 128  # <seg000> to <seg127>
HALVINGS = 4  # from 64 to 4
NUM_BLOCKS = 2


def encode(x, w):
    """Write masks in codes.

    Parameters
    ----------
    x : (B, 64, 64)
        -1 outside, 1 inside, between them where a mask was made smaller.
    w : Weights
        ``encoder`` and ``codes``; what the encoder computes is kept below ``encoder``.

    Returns
    -------
    codes : (B, 16)
        Row by row, in 0..127.

    Notes
    -----
    van den Oord et al. 2017, eq. 2; Ning et al. 2023.  Reference: big_vision pp/proj/paligemma/segmentation.py,
    encode_to_codebook_indices.
    """
    if x.ndim != 3 or x.shape[1:] != (SIDE, SIDE):
        raise InputError(f"codec: masks are {x.shape}; want (B, {SIDE}, {SIDE})")
    encoder = w.at("encoder")
    grid = x[..., None]
    for index in range(HALVINGS):
        grid = halve(grid, encoder.at(f"halved.{index}"))
    for index in range(NUM_BLOCKS):
        grid = block(grid, encoder.at(f"blocks.{index}"))
    vectors = encoder.keep("out", convolve(grid, encoder["out.weight"], encoder["out.bias"], stride=1, padding=0))
    return nearest(vectors.reshape(-1, vectors.shape[-1]), w["codes.weight"]).reshape(len(x), NUM_CODES)


def decode(codes, w):
    """Paint the masks that codes stand for.

    Parameters
    ----------
    codes : (B, 16)
        Integers in 0..127, row by row.
    w : Weights
        ``codes`` and ``decoder``.

    Returns
    -------
    x : (B, 64, 64)
        Above 0 inside.  Nominally from -1 to 1, and not held there: the last layer has no activation.

    Notes
    -----
    Reference: big_vision evaluators/proj/paligemma/transfers/segmentation.py, Decoder.
    """
    if codes.ndim != 2 or codes.shape[1] != NUM_CODES:
        raise InputError(f"codec: codes are {codes.shape}; want (B, {NUM_CODES})")
    if codes.size and not (codes.min() >= 0 and codes.max() < NUM_WORDS):
        raise InputError(f"codec: codes run from {codes.min()} to {codes.max()}; want 0 to {NUM_WORDS - 1}")
    decoder = w.at("decoder")
    words = w["codes.weight"]
    vectors = decoder.keep("vectors", words[codes].reshape(len(codes), GRID, GRID, words.shape[1]))
    opened = convolve(vectors, decoder["opened.weight"], decoder["opened.bias"], stride=1, padding=0)
    grid = decoder.keep("opened", relu(opened))
    for index in range(NUM_BLOCKS):
        grid = block(grid, decoder.at(f"blocks.{index}"))
    for index in range(HALVINGS):
        grid = double(grid, decoder.at(f"doubled.{index}"))
    out = decoder.keep("out", convolve(grid, decoder["out.weight"], decoder["out.bias"], stride=1, padding=0))
    return out[..., 0]


def halve(x, w):
    """Make a grid half as fine: (B, 2R, 2R, C) to (B, R, R, C')."""
    return w.keep("out", relu(convolve(x, w["weight"], w["bias"], stride=2, padding=1)))


def double(x, w):
    """Make a grid twice as fine: (B, R, R, C) to (B, 2R, 2R, C')."""
    return w.keep("out", relu(convolve_transposed(x, w["weight"], w["bias"], stride=2, padding=1)))


def block(x, w):
    """Let each place look at its neighbours twice, and add what comes of it: (B, R, R, C) to (B, R, R, C)."""
    near = w.keep("near", relu(convolve(x, w["near.weight"], w["near.bias"], stride=1, padding=1)))
    far = w.keep("far", relu(convolve(near, w["far.weight"], w["far.bias"], stride=1, padding=1)))
    branch = w.keep("branch", convolve(far, w["branch.weight"], w["branch.bias"], stride=1, padding=0))
    return w.keep("out", x + branch)


def relu(x):
    """Cut off what is below zero."""
    return np.maximum(x, 0)


def nearest(vectors, words):
    """Choose the word nearest to each vector; of equally near ones the first.

    Parameters
    ----------
    vectors : (T, E)
    words : (V, E)

    Returns
    -------
    chosen : (T,)

    Notes
    -----
    argmin of z.z + e.e - 2 z.e, in this order: float32 has the reference's ties.
    """
    squares = np.sum(np.square(vectors), axis=1, keepdims=True) + np.sum(np.square(words), axis=1)
    return np.argmin(squares - 2 * (vectors @ words.T), axis=1)
