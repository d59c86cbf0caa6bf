"""How the vision tower was taught before PaliGemma: pictures and texts that belong together, found among others.

SigLIP's loss asks of each pair alone whether it belongs together; CLIP's asks each picture to choose among all texts.
PaliGemma itself is trained with cross-entropy only (:mod:`npgemma.learn.losses`).
Letters: N pictures, and as many texts; E width of the common space.
"""

import numpy as np

# Texts that SigLIP's loss looks at at once; pairs need no sum over a row, so that any number gives the same.
CHUNK = 1024

# CLIP's scale is held below this, so that training stays stable (Radford et al. 2021, sec. 2.5).
LARGEST_SCALE = 100.0


def normalise(x):
    """Bring each vector to length 1: x (N, E)."""
    return x / np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True))


def normalise_backward(d_y, x):
    """Give what changes the direction of x (N, E): d_y without its part along x, over the length."""
    length = np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True))
    y = x / length
    return (d_y - y * np.sum(d_y * y, axis=-1, keepdims=True)) / length


def log_sigmoid(z):
    """log(1 / (1 + exp(-z))), finite however far out: z (...)."""
    return np.minimum(z, 0.0) - np.log1p(np.exp(-np.abs(z)))


def sigmoid(z):
    """1 / (1 + exp(-z)) without overflow: z (...)."""
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, small) / (1.0 + small)


def sigmoid_loss(images, texts, log_scale, bias, chunk=CHUNK):
    """Ask of each picture and text whether they belong together.

    Parameters
    ----------
    images, texts : (N, E)
        Of length 1 each (:func:`normalise`); row n of one belongs to row n of the other.
    log_scale, bias : float
        log 10 and -10 at first.
    chunk : int

    Returns
    -------
    loss : float
    d_images, d_texts : (N, E)
    d_log_scale, d_bias : float

    Notes
    -----
    loss = -1/N sum over all pairs of log sigmoid(y (exp(log_scale) <image, text> + bias)), y = 1 on the diagonal, else
    -1: a mean over pictures of sums over texts.  Zhai et al. 2023, eq. 1 and alg. 1.
    Reference: big_vision trainers/proj/image_text/siglip.py.
    """
    N, scale = len(images), float(np.exp(log_scale))
    loss = d_log_scale = d_bias = 0.0
    d_images, d_texts = np.zeros_like(images), np.empty_like(texts)
    for start in range(0, N, chunk):
        part = slice(start, start + chunk)
        alike = images @ texts[part].T
        signs = np.where(np.arange(N)[:, None] == np.arange(N)[part], 1.0, -1.0).astype(images.dtype)
        z = signs * (scale * alike + bias)
        d_logits = -signs * sigmoid(-z) / N
        loss -= float(np.sum(log_sigmoid(z))) / N
        d_images += scale * (d_logits @ texts[part])
        d_texts[part] = scale * (d_logits.T @ images)
        d_log_scale += scale * float(np.sum(d_logits * alike))
        d_bias += float(np.sum(d_logits))
    return loss, d_images, d_texts, d_log_scale, d_bias


def softmax_loss(images, texts, log_scale):
    """Let each picture choose its text among all, and each text its picture.

    Parameters
    ----------
    images, texts : (N, E)
        Of length 1 each; row n of one belongs to row n of the other.
    log_scale : float
        log(1 / 0.07) at first; exp(log_scale) is held below :data:`LARGEST_SCALE`, where its gradient is 0.

    Returns
    -------
    loss : float
    d_images, d_texts : (N, E)
    d_log_scale : float

    Notes
    -----
    Mean of the cross-entropies over the rows and over the columns of scale <image, text>.  Radford et al. 2021, fig. 3.
    """
    N = len(images)
    free = float(np.exp(log_scale))
    scale = min(free, LARGEST_SCALE)
    alike = images @ texts.T
    by_image, d_by_image = choose(scale * alike)
    by_text, d_by_text = choose(scale * alike.T)
    d_logits = (d_by_image + d_by_text.T) / (2 * N)
    d_scale = float(np.sum(d_logits * alike)) if free <= LARGEST_SCALE else 0.0
    loss = float(np.sum(by_image) + np.sum(by_text)) / (2 * N)
    return loss, scale * (d_logits @ texts), scale * (d_logits.T @ images), scale * d_scale


def choose(logits):
    """Give each row's surprise at its own column, (N), and its gradient, (N, N)."""
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    log_sum = np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return (log_sum[:, 0] - np.diagonal(shifted)), np.exp(shifted - log_sum) - np.eye(len(logits), dtype=logits.dtype)
