"""Convolutions over grids of vectors, channels last, weights as PyTorch stores them.

Letters: B grids, R rows and columns of a grid, C channels of a vector, F channels that come out.  Not supported:
dilation, groups, output padding, kernels that are not square.
"""

import numpy as np


def convolve(x, weight, bias, stride, padding):
    """Slide a small matrix over a grid: each place that comes out has seen a window of it.

    Parameters
    ----------
    x : (B, R, R, C)
    weight : (F, C, K, K)
        As PyTorch's Conv2d stores it.
    bias : (F,)
    stride : int
        Places from one window to the next.
    padding : int
        Rows and columns of zeros around the grid.

    Returns
    -------
    y : (B, S, S, F)
        S = (R + 2 padding - K) // stride + 1.

    Notes
    -----
    y[b, i, j, f] = bias[f] + sum over c, m, n of x[b, s i + m - p, s j + n - p, c] weight[f, c, m, n].
    Dumoulin & Visin 2016, sec. 2.  Windows are views: all of them meet the weight in one product.
    """
    F, C, K, _ = weight.shape
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (K, K), axis=(1, 2))[:, ::stride, ::stride]
    return windows.reshape(*windows.shape[:3], C * K * K) @ weight.reshape(F, C * K * K).T + bias


def convolve_transposed(x, weight, bias, stride, padding):
    """Undo a stride: every place of a small grid paints its window of a larger one, and what overlaps is added.

    Parameters
    ----------
    x : (B, R, R, C)
    weight : (C, F, K, K)
        As PyTorch's ConvTranspose2d stores it: input channels first.
    bias : (F,)
    stride : int
        Places of the larger grid from one window to the next.
    padding : int
        Rows and columns that are cut from the rim afterwards.

    Returns
    -------
    y : (B, S, S, F)
        S = stride (R - 1) + K - 2 padding.

    Notes
    -----
    y[b, s i + m - p, s j + n - p, f] gets x[b, i, j, c] weight[c, f, m, n] of every i, j, c, m, n; then bias.
    Dumoulin & Visin 2016, sec. 4.  One product gives all windows; K * K sums, each with a stride, lay them out.
    """
    B, R, _, C = x.shape
    _, F, K, _ = weight.shape
    windows = (x.reshape(-1, C) @ weight.reshape(C, -1)).reshape(B, R, R, F, K, K)
    side = stride * (R - 1) + K
    painted = np.zeros_like(x, shape=(B, side, side, F))
    for m in range(K):
        for n in range(K):
            rows, columns = slice(m, m + stride * R, stride), slice(n, n + stride * R, stride)
            painted[:, rows, columns] += windows[..., m, n]
    return painted[:, padding : side - padding, padding : side - padding] + bias
