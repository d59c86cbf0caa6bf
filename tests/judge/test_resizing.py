"""Faults of resizing: each is named from the picture, and so is what OpenCV, PyTorch and Pillow really make of it."""

import functools

import numpy as np
import pytest
import random_models
from PIL import Image

import golden
from npgemma.files.image import load_pixels
from npgemma.judge import diagnose, faults_resizing
from npgemma.judge.rerun import Rerun, Seen
from npgemma.judge.single import judge

# A model whose pictures are 32 pixels wide; nothing else of it matters.
CFG = random_models.replace(
    random_models.PALIGEMMA_1, vision=random_models.replace(random_models.VISION, image_size=32, patch_size=16)
)


def picture(height=61, width=83):
    """A picture with soft and sharp places, higher than wide as little as square."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3.0 + c)) + np.cos(y * (0.3 + 0.2 * c)) + (x > y) for c in range(3)]
    return (np.stack(waves, axis=-1) * 42.0 + 85.0).clip(0, 255).astype(np.uint8)


@functools.cache
def rerun():
    """The judge of pixels alone, with the picture at hand."""
    source = picture()
    pixels, _ = load_pixels([source], 32)
    ids = np.full((1, 4), CFG.image_token_id)
    ones = np.ones_like(ids)
    given = {"ids": ids, "token_types": ones * 0, "attention_mask": ones, "positions": ones, "pixels": pixels}
    return Rerun(random_models.random_model(CFG, "float32"), "float32", given | {"sources": [source]}, {})


def causes_of(theirs):
    """What the judge says of pixels (1, R, R, 3); nothing where they pass."""
    again = rerun()
    theirs = theirs.astype(np.float32)
    found = judge(again, "pixels", theirs)
    causes = [] if found.verdict.passed else diagnose.causes(again, "pixels", theirs, found.real)
    return [cause.name for cause in causes]


def test_the_right_pixels_pass():
    assert causes_of(rerun().given["pixels"]) == []
    assert judge(rerun(), "pixels", rerun().given["pixels"]).verdict.passed


@pytest.mark.parametrize("fault", [fault for fault in faults_resizing.FAULTS if fault.name != "resize-bicubic"],
                         ids=lambda fault: fault.name)  # fmt: skip
def test_each_fault_of_resizing_is_named(fault):
    made = Seen(rerun(), rerun().w, fault).made("pixels")
    causes = causes_of(made.value)
    assert fault.name in causes and len(causes) <= 2, causes


def outside():
    """What other programs made of the picture, by name: (32, 32, 3) levels."""
    return golden.read("port/resizes")


NAMED = {
    "opencv linear": "resize-bilinear-without-antialias",
    "opencv cubic": "resize-bicubic-without-antialias",
    "opencv area": "resize-area",
    "opencv lanczos4": "resize-lanczos-without-antialias",
    "opencv nearest": "resize-nearest-before",
    "torch bilinear": "resize-bilinear-without-antialias",
    "torch bilinear antialias": "resize-bilinear-in-floats",
    "torch bilinear align_corners": "resize-bilinear-with-corners",
    "torch bicubic": "resize-bicubic-without-antialias",
    "torch bicubic antialias": "resize-in-floats",
}


@pytest.mark.parametrize("program", NAMED)
def test_what_other_programs_make_is_named(program):
    assert NAMED[program] in causes_of(outside()[program][None] / 127.5 - 1.0)


def test_the_same_resize_of_another_program_is_called_that():
    theirs = outside()["torch bicubic antialias bytes"][None] / 127.5 - 1.0
    assert causes_of(theirs) == ["pixels-within-a-level"]


def test_without_the_picture_nothing_is_guessed():
    again = Rerun(random_models.random_model(CFG, "float32"), "float32",
                  {name: array for name, array in rerun().given.items() if name != "sources"}, {})  # fmt: skip
    pixels, _ = load_pixels([np.asarray(Image.fromarray(picture()).resize((32, 32), Image.Resampling.BILINEAR))], 32)
    found = judge(again, "pixels", pixels)
    assert not found.verdict.passed
    assert diagnose.causes(again, "pixels", pixels, found.real) == []
