"""Scores of boxes and masks: average precision as COCO counts, IoU, and what a confidence is worth.

Letters: D boxes found, G boxes wanted, T thresholds of IoU.  Not supported: COCO's ranges of area, more than 100 boxes
a picture and label, average recall.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100  # boxes of a picture and label that count, the surest ones


@dataclass(frozen=True)
class Target:
    """A box that is found or wanted.

    Parameters
    ----------
    label : str
    corners : (4)
        Left, top, right, bottom.
    confidence : float
        Of a box that was found.
    crowd : bool
        Of a box that is wanted: it stands for many objects, and finding it counts neither way.
    """

    label: str
    corners: tuple[float, ...]
    confidence: float = 1.0
    crowd: bool = False


def average_precision(found: Sequence[Sequence[Target]], wanted: Sequence[Sequence[Target]]) -> np.ndarray:
    """Give the mean over labels of the average precision.

    Parameters
    ----------
    found, wanted : sequence of list of Target
        One list a picture, in order: boxes of equal confidence count in order of pictures.

    Returns
    -------
    precisions : (T,)
        At each IoU of 0.5, 0.55, … 0.95; nan where no box is wanted.

    Notes
    -----
    Precision is made falling and read at 101 recalls.  Reference: pycocotools cocoeval.py.
    """
    labels = sorted({target.label for picture in wanted for target in picture})
    each = [precision_of(label, found, wanted) for label in labels]
    kept = [one for one in each if one is not None]
    return np.mean(kept, axis=0) if kept else np.full(len(THRESHOLDS), np.nan)


def precision_of(label, found, wanted):
    """Give the average precision (T,) of one label, or None if only crowds are wanted."""
    confidences, matched, ignored, count = [], [], [], 0
    for ours, theirs in zip(found, wanted, strict=True):
        ours = surest([one for one in ours if one.label == label])
        theirs = [one for one in theirs if one.label == label]
        hits, on_crowd = match(ours, theirs)
        confidences += [one.confidence for one in ours]
        matched.append(hits)
        ignored.append(on_crowd)
        count += sum(not one.crowd for one in theirs)
    if not count:
        return None
    order = np.argsort(-np.array(confidences), kind="stable")
    hits, skipped = (np.concatenate(one, axis=1)[:, order] for one in (matched, ignored))
    right, wrong = np.cumsum(hits & ~skipped, axis=1), np.cumsum(~hits & ~skipped, axis=1)
    return np.array([area_under(r, w, count) for r, w in zip(right, wrong, strict=True)])


def surest(targets: Sequence[Target]) -> list[Target]:
    """Sort by confidence, and keep as many as count."""
    return sorted(targets, key=lambda one: -one.confidence)[:MOST]


def match(ours: Sequence[Target], theirs: Sequence[Target]) -> tuple[np.ndarray, np.ndarray]:
    """Give each found box, surest first, the wanted one that it covers best and that is still free.

    Returns
    -------
    hits : (T, D) of bool
    on_crowd : (T, D) of bool
        The hits that count neither way.
    """
    theirs = sorted(theirs, key=lambda one: one.crowd)
    overlaps = [[overlap(one.corners, two.corners, two.crowd) for two in theirs] for one in ours]
    hits, on_crowd = (np.zeros((len(THRESHOLDS), len(ours)), bool) for _ in range(2))
    for t, threshold in enumerate(THRESHOLDS):
        free = [True] * len(theirs)
        for d, row in enumerate(overlaps):
            best, least = -1, min(threshold, 1 - 1e-10)
            for g, target in enumerate(theirs):
                if not free[g] and not target.crowd:
                    continue
                if best >= 0 and not theirs[best].crowd and target.crowd:
                    break  # crowds come last, and only to what has found nothing else
                if row[g] >= least:
                    best, least = g, row[g]
            if best >= 0:
                hits[t, d], on_crowd[t, d], free[best] = True, theirs[best].crowd, False
    return hits, on_crowd


def area_under(right: np.ndarray, wrong: np.ndarray, count: int) -> float:
    """Give the mean precision over 101 recalls, each the best that is reached at it or later."""
    recalls = right / count
    precisions = right / np.maximum(right + wrong, np.spacing(1.0))
    falling = np.maximum.accumulate(precisions[::-1])[::-1]
    places = np.searchsorted(recalls, RECALLS, side="left")
    return float(np.mean(np.append(falling, 0.0)[np.minimum(places, len(falling))]))


def overlap(one: Sequence[float], two: Sequence[float], crowd: bool = False) -> float:
    """Give the area that two boxes share over the area that they cover; over the first one's for a crowd."""
    width, height = min(one[2], two[2]) - max(one[0], two[0]), min(one[3], two[3]) - max(one[1], two[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    first, second = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two))
    return shared / (first if crowd else first + second - shared)


def mask_iou(one: np.ndarray, two: np.ndarray) -> float:
    """Give the pixels that two masks share over those that they cover; of two empty ones 0."""
    covered = int((one | two).sum())
    return int((one & two).sum()) / covered if covered else 0.0


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> list[tuple[int, float, float]]:
    """Tell what a confidence is worth: count, mean confidence and part that is right, in bins of equal width."""
    sure, hits = np.asarray(confidences, float), np.asarray(right, float)
    places = np.minimum((sure * bins).astype(int), bins - 1)
    table = []
    for place in range(bins):
        inside = places == place
        count = int(inside.sum())
        means = (float(sure[inside].mean()), float(hits[inside].mean())) if count else (float("nan"), float("nan"))
        table.append((count, *means))
    return table
