"""Judge a mask codec on held-out shapes: ``python tools/tiny/evaluate_codec.py --codec npgemma/tiny``.

Each mask is encoded by npgemma.encode_mask and painted again into the same pixels; no training ever sees its seed.
Filled shapes are turned up to 15 degrees, stretched, wobbly, a quarter of them over the picture's edge; strokes are
judged apart, as masks of their line alone.
"""

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from shapes import Habits, lone_mask  # noqa: E402
from world import HELD_OUT, KINDS  # noqa: E402

from npgemma import encode_mask, load_codec  # noqa: E402
from npgemma.places.detection import mask_iou  # noqa: E402
from npgemma.places.segments import paint_mask  # noqa: E402
from npgemma.words.locations import read_boxes, write_boxes  # noqa: E402

HABITS = Habits(outlined=0.0, cut=0.25)


def there_and_back(codec, mask, box, written):
    """The IoU of a mask with what its codes paint: in its own box, or in the box as ``written`` in locations."""
    size = (mask.shape[1], mask.shape[0])
    encoded = encode_mask(codec, mask, box)
    if written:
        [encoded], _ = read_boxes(write_boxes([encoded], size), size)
    painted = paint_mask(codec, encoded, size)
    return 0.0 if painted is None else mask_iou(painted, mask)


def judge(codec, habits, count, seed, written):
    """The IoU of so many held-out masks, and the kind of each."""
    rng, found = random.Random(HELD_OUT + seed), []
    for number in range(count):
        kind, _, mask, box = lone_mask(rng, habits, KINDS[number % len(KINDS)])
        found.append((kind, there_and_back(codec, mask, box, written)))
    return found


def report(name, found):
    """One line of figures."""
    scores = np.array([score for _, score in found])
    each = ", ".join(f"{kind} {np.mean([score for one, score in found if one == kind]):.3f}" for kind in KINDS)
    print(f"{name:9} mean IoU {scores.mean():.4f}  5th percentile {np.percentile(scores, 5):.3f}  {each}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", metavar="FILE|FOLDER", help="the model in the box if left out")
    parser.add_argument("--masks", type=int, default=500, help="of each lot")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--written", action="store_true", help="with boxes rounded to locations, and cut to pixels")
    options = parser.parse_args()
    codec = load_codec(options.codec)
    report("filled", judge(codec, HABITS, options.masks, options.seed, options.written))
    report("outlines", judge(codec, replace(HABITS, outlined=1.0), options.masks, options.seed, options.written))


if __name__ == "__main__":
    main()
