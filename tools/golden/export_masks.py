"""Ask pycocotools, JAX and big_vision's lines for masks, and store what they say in golden/masks.

With the packages of tools/requirements.txt: ``python tools/golden/export_masks.py``.  pycocotools gives run-lengths and
rasterises polygons; JAX resizes crops with antialias; the decoder is that of export_codec.py.  Pillow paints, as
big_vision's evaluator and its demonstration do: the steps are theirs, the lines are not.
"""

import json
import platform
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL
import pycocotools.mask as coco
import torch
from PIL import Image

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]
import codec_inputs  # noqa: E402
import export_codec  # noqa: E402
from golden_inputs import uniform  # noqa: E402

from npgemma.places.polygons import outlines  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "masks"
SEED = 161_000
WIDTHS = "awkward"
# Locations ymin, xmin, ymax, xmax and a picture's width and height.
BOXES = (
    ((100, 37, 901, 611), (97, 71)),
    ((0, 0, 1023, 1023), (50, 203)),
    ((511, 300, 530, 900), (640, 480)),
    ((5, 511, 1000, 512), (33, 44)),
    ((200, 100, 900, 800), (2, 2)),
)
# Height and width of a mask, and a box in it.
CROPS = (
    (64, 64, (0, 0, 64, 64)),
    (97, 131, (10.5, 3.5, 100.2, 90.9)),
    (20, 13, (1, 2, 12, 19)),
    (300, 200, (5, 6, 7, 290)),
)


def runs_of(mask):
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


def mask_cases():
    """Random masks from almost empty to almost full, their run-lengths, and their polygons filled by pycocotools."""
    cases = []
    for number in range(120):
        height, width = (int(one * 14) + 1 for one in uniform(SEED + number, (2,)))
        threshold = (number % 12) / 11
        mask = uniform(SEED + 1000 + number, (height, width)) < threshold
        case = {"seed": SEED + 1000 + number, "size": [height, width], "threshold": threshold, "counts": runs_of(mask)}
        polygons = outlines(mask)
        if polygons:
            floats = [list(map(float, one)) for one in polygons]
            filled = coco.decode(coco.merge(coco.frPyObjects(floats, height, width)))
            case |= {"polygons": polygons, "filled": runs_of(filled)}
        cases.append(case)
    large = {"seed": SEED + 5000, "size": [701, 523], "threshold": 0.001}
    return [*cases, large | {"counts": runs_of(uniform(large["seed"], (701, 523)) < 0.001)}]


def painted_cases():
    """Masks in pictures, as the evaluator and the demonstration paint them; None where a box has no pixel."""
    _, _, widths = codec_inputs.WIDTHS[WIDTHS]
    codes = codec_inputs.make_codes(len(BOXES))
    weights = codec_inputs.make_weights(WIDTHS)
    small = export_codec.decode(weights, widths, codes, "float32")["decoder.out"][..., 0]
    cases = []
    for places, (width, height), one, row in zip(*zip(*BOXES, strict=True), small, codes, strict=True):
        case = {"locations": places, "size": [width, height], "codes": row.tolist()}
        y1, x1, y2, x2 = (int(value / 1023 * side) for value, side in zip(places, (height, width) * 2, strict=True))
        case["big_vision"] = None
        if x2 > x1 and y2 > y1:
            mask = np.zeros((height, width), bool)
            mask[y1:y2, x1:x2] = np.asarray(Image.fromarray(one).resize([x2 - x1, y2 - y1], Image.BILINEAR)) > 0
            case["big_vision"] = runs_of(mask)
        y1, x1, y2, x2 = (round(value / 1024 * side) for value, side in zip(places, (height, width) * 2, strict=True))
        case["demo"] = None
        if x2 > x1 and y2 > y1:
            soft = np.zeros((height, width))
            grey = Image.fromarray((np.clip(one * 0.5 + 0.5, 0, 1) * 255).astype("uint8"))
            soft[y1:y2, x1:x2] = np.array(grey.resize([x2 - x1, y2 - y1])) / 255.0
            case["demo"] = runs_of(soft > 0.5)
        cases.append(case)
    return cases


def encoded_cases():
    """Codes of crops that JAX resized."""
    widths, code, _ = codec_inputs.WIDTHS[WIDTHS]
    weights, cases = codec_inputs.make_weights(WIDTHS), []
    for number, (height, width, (left, top, right, bottom)) in enumerate(CROPS):
        seed = SEED + 6000 + number
        # Blots of 4 x 4 pixels: noise of single ones would look alike everywhere.
        mask = np.kron(uniform(seed, (height // 4 + 1, width // 4 + 1)) < 0.5, np.ones((4, 4)))[:height, :width]
        crop = mask[round(top) : round(bottom), round(left) : round(right)]
        resized = jax.image.resize(jnp.asarray(crop, jnp.float32), (64, 64), "bilinear", antialias=True)
        seen = export_codec.encode(weights, widths, code, 2 * (np.asarray(resized)[None] - 0.5), torch.float64)
        cases.append({"seed": seed, "size": [height, width], "corners": [left, top, right, bottom],
                      "codes": seen["codes"][0].tolist(), "gaps": seen["gaps"][0].tolist()})
    return cases


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    made_by = {"python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__,
               "jax": jax.__version__, "torch": torch.__version__, "pycocotools": "2.0.11"}
    whole = {
        "format": "npgemma.golden.masks", "version": [1, 0], "command": "python tools/golden/export_masks.py",
        "made_by": made_by, "widths": WIDTHS,
        "masks": mask_cases(), "painted": painted_cases(), "encoded": encoded_cases(),
    }
    path = FOLDER / "cases.json"
    path.write_text(json.dumps(whole) + "\n", encoding="utf-8")
    print(f"{path.stat().st_size:,} bytes; {sum('polygons' in case for case in whole['masks'])} masks with polygons")


if __name__ == "__main__":
    main()
