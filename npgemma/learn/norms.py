"""Batch norm, beside the two norms that PaliGemma has: the same idea along another axis.

======================  =====================================  ==================  =======================
norm                    mean and variance of                   in PaliGemma        a row's result depends on
======================  =====================================  ==================  =======================
``ops.layer_norm``      a vector's own numbers                 the vision tower    itself
``ops.rms_norm``        the same, without the mean             the decoder         itself
:func:`batch_norm`      one channel's numbers in all rows      nowhere             the other rows of its batch
======================  =====================================  ==================  =======================

No layer of PaliGemma normalises over a batch: an answer must not depend on what else is asked at the same time, batches
of long sequences are small, and a token that is generated alone has no batch.  It is here because convolutional towers
before it had it, and because the difference explains why LayerNorm replaced it.
"""

import numpy as np


def batch_norm(x, weight, bias, eps):
    """Shift and scale each channel to mean 0 and variance 1 over all rows, as in training.

    Parameters
    ----------
    x : (..., C)
        At least two rows.
    weight, bias : (C)
    eps : float

    Returns
    -------
    y : (..., C)
    mean, variance : (C)
        Of this batch, the variance biased; :func:`running` collects them.

    Notes
    -----
    y = (x - mean) / sqrt(var + eps) * weight + bias.  Ioffe & Szegedy 2015, alg. 1.
    Reference: torch.nn.BatchNorm1d.
    """
    rows = x.reshape(-1, x.shape[-1])
    mean = np.mean(rows, axis=0)
    variance = np.mean(np.square(rows - mean), axis=0)
    return batch_norm_after(x, weight, bias, mean, variance, eps), mean, variance


def batch_norm_after(x, weight, bias, mean, variance, eps):
    """Normalise by statistics that were collected before, as in use: x (..., C), all others (C)."""
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def running(mean, variance, batch_mean, batch_variance, num_rows, momentum):
    """Collect a batch's statistics, all (C), in running ones.

    Notes
    -----
    The running variance is unbiased, num_rows / (num_rows - 1), though the batch itself is divided by the biased one.
    Reference: torch.nn.BatchNorm1d.
    """
    unbiased = batch_variance * num_rows / (num_rows - 1)
    return mean + momentum * (batch_mean - mean), variance + momentum * (unbiased - variance)


def batch_norm_backward(d_y, x, weight, eps):
    """Find what each number of x, the gain and the bias had to do with y; mean and variance moved with x.

    Parameters
    ----------
    d_y, x : (..., C)
    weight : (C)
    eps : float

    Returns
    -------
    d_x : (..., C)
    d_weight, d_bias : (C)

    Notes
    -----
    LayerNorm's formula with the mean over rows: dx = (g - mean(g) - n mean(g n)) / std, g = dy weight.
    """
    rows, d_rows = (each.reshape(-1, each.shape[-1]) for each in (x, d_y))
    centred = rows - np.mean(rows, axis=0)
    rstd = 1.0 / np.sqrt(np.mean(np.square(centred), axis=0) + eps)
    normed, d_normed = centred * rstd, d_rows * weight
    d_x = rstd * (d_normed - np.mean(d_normed, axis=0) - normed * np.mean(d_normed * normed, axis=0))
    return d_x.reshape(x.shape), np.sum(d_rows * normed, axis=0), np.sum(d_rows, axis=0)
