"""Ask transformers' SiglipImageProcessorPil for pixels, and store their hashes in golden/images.

With the packages of tools/requirements.txt: ``python tools/golden/export_images.py``.
The pictures are painted by tests/golden_pictures.py; only lossy files (JPEG, WebP) are stored.
"""

import hashlib
import io
import json
import platform
import sys
from pathlib import Path

import numpy as np
import PIL
import transformers
from PIL import Image
from transformers import SiglipImageProcessorPil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
import golden_pictures  # noqa: E402

FOLDER = ROOT / "golden" / "images"
PLAIN = {"resample": 3, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
# Other settings, each for a few pictures at 224.
VARIANTS = {
    "bilinear": {**PLAIN, "resample": 2},
    "nearest": {**PLAIN, "resample": 0},
    "imagenet": {**PLAIN, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
}
VARIANT_PICTURES = ("rgb-13x31", "rgb-640x480", "mode-RGBA-300x211", "mode-P-37x53")


def write_lossy():
    """Write the files whose pixels depend on the decoder; gives their names."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    small = golden_pictures.pil_image("RGB", 45, 31, 300)
    turned = Image.Exif()
    turned[0x0112] = 6
    small.save(FOLDER / "rgb.jpg", quality=85)
    small.save(FOLDER / "progressive.jpg", quality=60, progressive=True, subsampling=2)
    small.save(FOLDER / "turned.jpg", quality=85, exif=turned)
    small.save(FOLDER / "lossy.webp", quality=70)
    golden_pictures.pil_image("RGBA", 45, 31, 301).save(FOLDER / "lossy-alpha.webp", quality=70)
    golden_pictures.pil_image("L", 45, 31, 302).save(FOLDER / "grey.jpg", quality=85)
    golden_pictures.pil_image("CMYK", 45, 31, 303).save(FOLDER / "cmyk.jpg", quality=85)
    return sorted(path.name for path in FOLDER.iterdir() if path.suffix != ".json")


def open_case(made):
    """Open as a user of transformers would: ``PIL.Image.open(file)``, or a PIL image as it is."""
    return Image.open(io.BytesIO(made)) if isinstance(made, bytes) else made


def reference(made, size, settings):
    """What transformers gives for one picture: hashes and samples of bytes and of floats, channels last."""
    processor = SiglipImageProcessorPil(size={"height": size, "width": size}, **settings)
    raw = processor(open_case(made), do_rescale=False, do_normalize=False)["pixel_values"][0]
    pixels = processor(open_case(made))["pixel_values"][0]
    raw, pixels = (np.ascontiguousarray(np.moveaxis(array, 0, -1)) for array in (raw, pixels))
    assert raw.dtype == np.uint8 and pixels.dtype == np.float32
    places = [(0, 0, 0), (size // 2, size // 3, 1), (size - 1, size - 1, 2)]
    return {
        "resized": hashlib.sha256(raw.tobytes()).hexdigest(),
        "pixels": hashlib.sha256(pixels.tobytes()).hexdigest(),
        "samples": [[*place, int(raw[place]), float(pixels[place])] for place in places],
    }


def main():
    lossy = write_lossy()
    made = {name: function(*arguments) for name, (function, arguments) in golden_pictures.catalogue().items()}
    made |= {name: (FOLDER / name).read_bytes() for name in lossy}
    cases = {}
    for name, picture in made.items():
        source = golden_pictures.source_hash(open_case(picture))
        sizes = {str(size): reference(picture, size, PLAIN) for size in golden_pictures.SIZES}
        cases[name] = {"source": source, "lossy": name in lossy, "sizes": sizes}
    variants = {
        variant: {name: reference(made[name], 224, settings) for name in VARIANT_PICTURES}
        for variant, settings in VARIANTS.items()
    }
    manifest = {
        "format": "npgemma.golden.images",
        "version": [1, 0],
        "command": "python tools/golden/export_images.py",
        "reference": "transformers SiglipImageProcessorPil, given PIL.Image.open(file) or the PIL image",
        "made_by": {
            "python": platform.python_version(),
            "transformers": transformers.__version__,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
        "seeds": "tests/golden_pictures.py, raw bits of PCG64",
        "files": {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in lossy},
        "settings": {"plain": PLAIN, **VARIANTS},
        "cases": cases,
        "variants": variants,
    }
    text = json.dumps(manifest, indent=1)
    (FOLDER / "MANIFEST.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(cases)} pictures at {golden_pictures.SIZES}; {len(text):,} bytes of hashes")


if __name__ == "__main__":
    main()
