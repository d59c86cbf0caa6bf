"""Pictures, and how they are read."""

import io
import json
from functools import cache

import numpy as np
from fuzzed.target import Target
from PIL import Image

from npgemma.base.errors import NpgemmaError
from npgemma.files.image import load_pixels
from npgemma.files.image_settings import ImageSettings, read_settings


def run_preprocessor(folder, data):
    (folder / "preprocessor_config.json").write_bytes(data)
    settings = read_settings(folder)
    # A size that is not the model's is refused before a picture is read.
    pixels, _ = load_pixels([np.zeros((2, 3, 3), np.uint8)], min(settings.size or 8, 64), settings)
    assert pixels.dtype == np.float32 and pixels.ndim == 4


def preprocessors():
    whole = {
        "size": {"height": 8, "width": 8}, "resample": 3, "rescale_factor": 0.00392156862745098, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_normalize": True, "do_rescale": True,
    }
    return [json.dumps(whole).encode(), json.dumps({"size": 8}).encode()]


def run_picture(folder, data):
    (folder / "picture").write_bytes(data)
    refused = []
    for settings in (ImageSettings(exif=True), ImageSettings(frame=1, sixteen_bit="scale")):
        try:
            pixels, notes = load_pixels(folder / "picture", 14, settings)
        except NpgemmaError as error:
            refused.append(error)
            continue
        assert pixels.shape == (1, 14, 14, 3) and pixels.min() >= -1 and pixels.max() <= 1
        assert all(len(note) < 500 for note in notes)
    if len(refused) == 2:
        raise refused[0]


@cache
def pictures():
    numbers = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3) * 7
    rgb, exif = Image.fromarray(numbers), Image.Exif()
    exif[0x0112] = 6
    kinds = [
        (rgb, "png", {"exif": exif}), (rgb, "jpeg", {"exif": exif}), (rgb, "webp", {"exif": exif}), (rgb, "bmp", {}),
        (rgb.convert("P"), "gif", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb.convert("RGBA"), "png", {"save_all": True, "append_images": [rgb.rotate(180).convert("RGBA")]}),
        (rgb.convert("L"), "jpeg", {"progressive": True}), (rgb.convert("CMYK"), "jpeg", {}),
        (rgb.convert("P"), "png", {"transparency": 3}), (Image.fromarray(numbers[..., 0].astype(np.uint16)), "png", {}),
        (rgb.convert("1"), "bmp", {}), (rgb, "webp", {"save_all": True, "append_images": [rgb], "lossless": True}),
    ]
    made = []
    for image, container, options in kinds:
        stream = io.BytesIO()
        image.save(stream, container, **options)
        made.append(stream.getvalue())
    return made


TARGETS = {
    "preprocessors": Target(preprocessors, run_preprocessor, "json"),
    "pictures": Target(pictures, run_picture, "picture"),
}
