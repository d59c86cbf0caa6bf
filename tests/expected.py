"""What the tests know of a page's numbers by themselves: measures of arrays, and the opened blocks' tensors."""

import math

import numpy as np

# The blocks that are opened, of the tower and of the decoder.
MIDDLE = {
    "caption": (2, 2), "boxes": (2, 2), "compared": (2, 2), "same": (2, 2), "gemma 1": (1, 1), "gemma 2": (1, 1),
    "words": (None, 2),
}


def rms(x):
    return math.sqrt(np.mean(np.asarray(x, np.float64) ** 2))


def spread(probs):
    """Two to the power of the mean entropy of the rows."""
    rows = np.asarray(probs, np.float64).reshape(-1, probs.shape[-1])
    logs = np.log2(rows, out=np.zeros_like(rows), where=rows > 0)
    return 2.0 ** float(np.mean(-np.sum(rows * logs, axis=-1)))


def softmax(row):
    powers = np.exp(np.asarray(row, np.float64) - np.max(row))
    return powers / powers.sum()


def listed(items):
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def v(f, short):
    return f.whole[f"vision.blocks.{MIDDLE[f.case][0]}.{short}"]


def t(f, short):
    return f.whole[f"text.blocks.{MIDDLE[f.case][1]}.{short}"]


def words(f):
    return f.whole["text.spliced"][0][~f.image]
