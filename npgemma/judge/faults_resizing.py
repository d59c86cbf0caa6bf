"""Faults of how a picture becomes a square of pixels; they can be tried where the picture itself is at hand."""

import numpy as np
from PIL import Image

from npgemma.judge import resizing
from npgemma.judge.faults import with_expressions
from npgemma.judge.near import Near

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
KEYS = resizing.with_kernel(resizing.cubic(-0.5), 2, antialias=True)


def fault(name, sentence, way, slack=0.0, change=lambda levels: levels):
    """Another way to resize; ``slack`` levels of 255 are granted to its rounding."""

    def pixels(sources, R):
        levels = change(np.stack([way(picture, R) for picture in sources]))
        if not slack:
            return Near(levels / 127.5 - 1.0, 1e-4 / 127.5)
        bounded = np.clip(levels, 0.0, 255.0)  # as bytes are, and floats may be or not
        return Near(bounded / 127.5 - 1.0, (slack + np.abs(levels - bounded)) / 127.5)

    sentence = f"{sentence}; PaliGemma squashes with Pillow's bicubic filter"
    return with_expressions(name, sentence, {"pixels": "resized(sources(), R)"}, resized=pixels)


def of_filter(name, sentence, way, **more):
    """A fault of the filter, at any aspect ratio."""
    return fault(f"resize-{name}", f"pictures are resized {sentence}", way, **more)


FLOATS = {"slack": resizing.ROUNDED}
LINEAR = resizing.with_kernel(resizing.triangle, 1)

FAULTS = [
    of_filter("bilinear", "with Pillow's bilinear filter", resizing.with_pillow(BILINEAR)),
    of_filter("bicubic", "with Pillow's bicubic filter, which this model's folder does not ask for",
              resizing.with_pillow(BICUBIC)),
    of_filter("lanczos", "with Pillow's Lanczos filter", resizing.with_pillow(Image.Resampling.LANCZOS)),
    of_filter("hamming", "with Pillow's Hamming filter", resizing.with_pillow(Image.Resampling.HAMMING)),
    of_filter("box", "with Pillow's box filter", resizing.with_pillow(Image.Resampling.BOX)),
    of_filter("nearest", "to the nearest pixel, as Pillow does", resizing.with_pillow(Image.Resampling.NEAREST)),
    of_filter("nearest-before", "to the nearest pixel, cut off as OpenCV and PyTorch do", resizing.nearest_before),
    of_filter("reduced", "in two steps (Pillow's reducing_gap, or a JPEG's draft)", resizing.reduced),
    of_filter("bilinear-without-antialias",
              "bilinearly without antialias (OpenCV's INTER_LINEAR, TensorFlow's default)", LINEAR, **FLOATS),
    of_filter("bicubic-without-antialias", "bicubically without antialias, a = -0.75 (OpenCV's INTER_CUBIC, PyTorch)",
              resizing.with_kernel(resizing.cubic(-0.75), 2), **FLOATS),
    of_filter("keys-without-antialias", "bicubically without antialias, a = -0.5 (TensorFlow)",
              resizing.with_kernel(resizing.cubic(-0.5), 2), **FLOATS),
    of_filter("lanczos-without-antialias", "by Lanczos without antialias (OpenCV's INTER_LANCZOS4)",
              resizing.with_kernel(resizing.lanczos(4), 4), **FLOATS),
    of_filter("area", "by area (OpenCV's INTER_AREA)", resizing.by_area, **FLOATS),
    of_filter("bilinear-with-corners", "bilinearly with corners on corners (align_corners)", resizing.with_corners,
              **FLOATS),
    of_filter("bilinear-in-floats", "bilinearly with antialias in floats",
              resizing.with_kernel(resizing.triangle, 1, True), **FLOATS),
    of_filter("in-floats", "bicubically in floats, unrounded and unbounded: scaled to [-1, 1] before the resize", KEYS),
    fault("crop", "the middle square of a picture is cut out and the rest lost",
          resizing.cropped(resizing.with_pillow(BICUBIC))),
    fault("crop-bilinear", "the middle square of a picture is cut out, bilinear, and the rest lost",
          resizing.cropped(resizing.with_pillow(BILINEAR))),
    fault("crop-bilinear-without-antialias", "the middle square is cut out, bilinear without antialias (keras-hub)",
          resizing.cropped(LINEAR), **FLOATS),
    fault("resize-and-crop", "the shorter side is resized and the middle cut out: the ends of a picture are lost",
          resizing.resized_and_cropped(BICUBIC)),
    fault("resize-and-crop-bilinear", "the shorter side is resized, bilinear, and the middle cut out (resize_to_fill)",
          resizing.resized_and_cropped(BILINEAR)),
    *(
        fault(f"letterbox-{word}", f"the aspect ratio is kept and the rest filled with {word}",
              resizing.padded(BICUBIC, level))
        for word, level in (("black", 0), ("grey", 127.5), ("white", 255))
    ),
    fault("resize-to-bgr-bilinear",
          "channels are blue, green, red, and the filter is bilinear without antialias (OpenCV)", LINEAR,
          change=lambda levels: levels[..., ::-1], **FLOATS),
]  # fmt: skip
