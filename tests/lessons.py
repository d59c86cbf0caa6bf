"""A few examples about the pictures in the box, for tests of learning."""

import dataclasses
import json
import shutil

from npgemma import load
from npgemma.base.tensors import schema
from npgemma.checkpoints.loading import TINY

ROWS = [
    {"image": "1-word.png", "prefix": "what colors?", "suffix": "red, blue"},
    {"image": "2-overlap.png", "prefix": "caption en", "suffix": "a large red circle"},
    {"image": "3-number.png", "prefix": "ocr", "suffix": "12"},
    {"image": "4-noise.png", "prefix": "what colors?", "suffix": "green"},
    {"image": "1-word.png", "prefix": "detect circle", "suffix": "<loc0100><loc0200><loc0300><loc0400> circle"},
]


def short_model():
    """The model in the box without most of its blocks, whose steps take a third of the time."""
    model = load()
    text = dataclasses.replace(model.config.text, depth=2, layer_windows=model.config.text.layer_windows[:2])
    cfg = dataclasses.replace(model.config, text=text, vision=dataclasses.replace(model.config.vision, depth=1))
    arrays = {name: model.weights.arrays[name] for name in schema(cfg)}
    return dataclasses.replace(model, config=cfg, weights=dataclasses.replace(model.weights, arrays=arrays))


def write_lessons(folder, rows=ROWS):
    """Write ``data.jsonl`` and the pictures that it names; gives its path."""
    for picture in sorted((TINY / "pictures").iterdir()):
        shutil.copy(picture, folder / picture.name)
    path = folder / "data.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path
