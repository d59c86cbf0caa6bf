"""Read random token strings as boxes and masks: ``python tools/fuzz_places.py --strings 1000000``.

Each becomes boxes, masks or a named reason; anything else stops with the seed of its string.
"""

import argparse
import collections
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from token_strings import token_string  # noqa: E402

from npgemma.places.segments import WAYS, whole_edges  # noqa: E402
from npgemma.words.locations import Box, read_boxes, write_boxes  # noqa: E402


def outcomes(text, size):
    """Read one string in both ways; gives what became of its parts: boxes, masks, or the first word of a reason."""
    for way, divisor in WAYS.items():
        boxes, unread = read_boxes(text, size, divisor)
        assert len(boxes) + len(unread) == (len(text.split(";")) if text.strip() else 0)
        assert all(one.reason for one in unread)
        assert read_boxes(write_boxes(boxes, size, divisor), size, divisor) == (boxes, [])
        for box in boxes:
            yield kind_of(box, way)
        yield from ("unread: " + "".join(sign for sign in one.reason if not sign.isdigit())[:40] for one in unread)


def kind_of(box: Box, way):
    """A box, a mask, or codes that have no pixel to be painted in."""
    left, top, right, bottom = whole_edges(box.corners, way)
    if not box.segments:
        return "box"
    assert len(box.segments) == 16 and max(box.segments) < 128
    return "mask" if right > left and bottom > top else "codes without a pixel"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began, counts = time.time(), collections.Counter()
    for seed in range(options.seed, options.seed + options.strings):
        try:
            counts.update(outcomes(token_string(seed), (1 + seed % 97, 1 + seed % 89)))
        except Exception as problem:
            raise SystemExit(f"seed {seed}: {token_string(seed)!r}: {problem!r}") from problem
    for kind, count in counts.most_common():
        print(f"{count:10,}  {kind}")
    print(f"{options.strings:,} strings, no traceback ({time.time() - began:.0f} s)")


if __name__ == "__main__":
    main()
