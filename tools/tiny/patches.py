"""What the vision tower is taught by itself: what each patch shows.  The head for it is thrown away at the end.

Released models come with a vision tower that was trained before; this is its place here.
Letters: B pictures, P patches, C width of the tower.
"""

import numpy as np

from npgemma.learn.losses import cross_entropy_plain

LESSONS = {"kind": 5, "colour": 8, "size": 2, "rank": 5, "left": 36, "right": 36, "left_place": 4, "right_place": 4}
PATCH, COUNTS = "lessons.patch.weight", "lessons.counts.weight"
KINDS, MOST = 5, 6  # kinds of shape, and how many numbers of each there can be
PIXELS = 64  # of a patch


def fresh_heads(width, seed):
    """The heads, float32."""
    rng = np.random.default_rng([seed, 1])
    outputs = sum(LESSONS.values()) + len(LESSONS) + 4 + PIXELS
    shapes = {PATCH: (outputs, width), COUNTS: (KINDS * MOST, width)}
    return {name: (rng.standard_normal(shape) * width**-0.5).astype(np.float32) for name, shape in shapes.items()}


def weights_of(name, batch):
    """What each patch counts in one lesson, (B, P); where no shape is, only its kind has to be known."""
    shown = (batch[name] >= 0).astype(np.float32)
    if name == "kind":
        return np.full(shown.shape, 1.0 / shown.size, np.float32)
    if name in ("colour", "size", "rank"):
        return shown * (0.3 / max(shown.sum(), 1.0))
    word = np.maximum(batch["left"].max(axis=1), batch["right"].max(axis=1)) >= 0
    weights = np.where(shown > 0, 1.0, 0.05) * word[:, None]
    return weights / max(weights.sum(), 1.0)


def lesson(weights, patches, batch):
    """How badly the patches know what they show.

    Parameters
    ----------
    weights : dict
        The heads.
    patches : (B, P, C)
        ``vision.norm``.
    batch : dict
        Of ``batches.make_batch``.

    Returns
    -------
    loss : float
    d_patches : (B, P, C)
    gradients : dict
        Of the heads.
    """
    outputs = patches @ weights[PATCH].T
    d_outputs, loss, start = np.zeros_like(outputs), 0.0, 0
    for name, classes in LESSONS.items():
        part = slice(start, start + classes + 1)  # class 0 is "nothing"
        one, d_outputs[..., part] = cross_entropy_plain(outputs[..., part], batch[name] + 1, weights_of(name, batch))
        loss, start = loss + one, start + classes + 1
    shown = (batch["kind"] >= 0) / max(np.sum(batch["kind"] >= 0), 1)
    away = outputs[..., start : start + 4] - batch["box"] * 8
    loss += float(np.sum(np.mean(np.abs(away), axis=-1) * shown))
    d_outputs[..., start : start + 4] = np.sign(away) * shown[..., None] / 4
    inside, d_outputs[..., start + 4 :] = which_are_inside(outputs[..., start + 4 :], batch["inside"])
    middle = np.mean(patches, axis=1)
    counts = (middle @ weights[COUNTS].T).reshape(len(middle), KINDS, MOST)
    weight = np.full(batch["counts"].shape, 0.2 / batch["counts"].size)
    counted, d_counts = cross_entropy_plain(counts, batch["counts"], weight)
    d_counts = d_counts.reshape(len(middle), -1)
    d_patches = d_outputs @ weights[PATCH] + (d_counts @ weights[COUNTS])[:, None] / patches.shape[1]
    flat = d_outputs.reshape(-1, d_outputs.shape[-1])
    return loss + inside + counted, d_patches, {
        PATCH: flat.T @ patches.reshape(len(flat), -1), COUNTS: d_counts.T @ middle,
    }


def which_are_inside(outputs, inside):
    """How badly the pixels of each patch are told to lie in a shape or not, (B, P, 64), and its gradient."""
    surprise = np.logaddexp(0.0, np.where(inside, -outputs, outputs))
    return float(np.mean(surprise)), (1.0 / (1.0 + np.exp(-outputs)) - inside) / surprise.size
