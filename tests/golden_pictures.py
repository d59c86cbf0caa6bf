"""Pictures that the exporter and the tests both paint, so that goldens need to store hashes only.

Integers alone are used, and only raw bits of PCG64, which NumPy promises never to change. All but the stored files are
PIL images or lossless files, so that every machine sees the same pixels.
"""

import hashlib
import io

import numpy as np
from PIL import Image

SIZES = (224, 448, 896)
ODD = ((37, 53), (300, 211))  # width, height
RGB_SIZES = (
    (1, 1), (1, 2), (2, 1), (2, 2), (3, 5), (7, 7), (13, 31), (100, 75), (223, 225), (224, 224), (225, 223),
    (333, 17), (17, 333), (448, 448), (449, 447), (640, 480), (1, 1000), (1000, 1), (3, 1500), (1500, 3), (2, 901),
    (1201, 5), (895, 897), (896, 896), (1000, 701), (59, 1024), (2048, 64),
)
MODES = ("L", "LA", "P", "PA", "RGBA", "CMYK", "1", "I", "YCbCr")
LOSSLESS = (
    ("png", ("L", "LA", "P", "RGB", "RGBA", "1", "P+table", "P+index", "L+index", "RGB+index")),
    ("bmp", ("L", "P", "RGB", "1")),
    ("gif", ("P", "P+index", "animated")),
    ("webp", ("RGB", "RGBA")),
)


def paint(width, height, channels, seed):
    """A picture of ramps, blocks and noise; noise makes filters overshoot, which uint8 clips.

    Returns
    -------
    pixels : (height, width, channels)
        uint8.
    """
    y, x, c = np.ogrid[:height, :width, :channels]
    ramp = (x * (c + 1) * 255 // max(width, 1) + y * (3 - c % 3) * 255 // max(height, 1)) % 256
    blocks = ((x // 5 + y // 3 + c) % 2) * 255
    noise = np.random.PCG64(seed).random_raw(height * width * channels).reshape(height, width, channels) >> 56
    choice = (x // 11 + y // 7 + seed) % 3
    return np.choose(choice, (ramp, blocks, noise.astype(np.int64))).astype(np.uint8)


def pil_image(kind, width, height, seed):
    """A picture of a mode; ``+index`` and ``+table`` make some of it transparent."""
    mode, _, transparency = kind.partition("+")
    if mode == "I":
        return Image.fromarray(paint(width, height, 1, seed)[..., 0].astype(np.int32))
    if mode == "1":
        return Image.fromarray(paint(width, height, 1, seed)[..., 0] > 127)
    channels = {"L": 1, "LA": 2, "P": 1, "PA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3}[mode]
    pixels = paint(width, height, channels, seed)
    image = Image.frombytes(mode, (width, height), pixels.tobytes())
    if mode in ("P", "PA"):
        image.putpalette(paint(256, 1, 3, seed + 1).tobytes())
    if transparency == "table":
        image.info["transparency"] = bytes(paint(256, 1, 1, seed + 2).tobytes())
    elif transparency == "index":
        image.info["transparency"] = tuple(int(v) for v in pixels[0, 0]) if mode == "RGB" else int(pixels[0, 0, 0])
    return image


def encode(container, kind, width, height, seed):
    """The bytes of a lossless file."""
    stream = io.BytesIO()
    if kind == "animated":
        first, second = (pil_image("P", width, height, seed + n) for n in (0, 1))
        first.save(stream, "gif", save_all=True, append_images=[second])
        return stream.getvalue()
    image = pil_image(kind, width, height, seed)
    options = {"lossless": True, "exact": True} if container == "webp" else {}
    if "transparency" in image.info:
        options["transparency"] = image.info["transparency"]
    image.save(stream, container, **options)
    return stream.getvalue()


def catalogue():
    """Name each picture: ``{name: (function, arguments)}``; the function gives a PIL image or the bytes of a file."""
    found = {}
    for seed, (width, height) in enumerate(RGB_SIZES):
        found[f"rgb-{width}x{height}"] = pil_image, ("RGB", width, height, seed)
    for seed, mode in enumerate(MODES):
        for width, height in ODD:
            found[f"mode-{mode}-{width}x{height}"] = pil_image, (mode, width, height, 100 + seed)
    for container, kinds in LOSSLESS:
        for seed, kind in enumerate(kinds):
            width, height = ODD[seed % 2]
            found[f"{container}-{kind}-{width}x{height}"] = encode, (container, kind, width, height, 200 + seed)
    return found


def source_hash(image):
    """Hash of what a decoder gave: two machines can be compared only where this agrees."""
    palette = image.getpalette("RGB") if image.mode in ("P", "PA") else None
    return hashlib.sha256(f"{image.mode} {image.size} {palette}".encode() + image.tobytes()).hexdigest()
