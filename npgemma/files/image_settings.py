"""How a picture becomes pixels: the settings, and reading them from a model's folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageColor

from npgemma.base.errors import ConfigError, ImageError
from npgemma.files.folder import model_file
from npgemma.files.reader import is_there, read_json

RESAMPLES = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


MOST = 1e6  # any number of the settings; the released ones are 1/255 and 0.5, and float32 must not overflow


@dataclass(frozen=True)
class ImageSettings:
    """How a picture becomes pixels: the first five fields as in ``preprocessor_config.json``, the rest npgemma's.

    ``size`` is the side the folder asks for, None where it does not say. ``background`` lies under transparent
    pixels. ``exif`` turns a photograph upright, which the reference does not. ``sixteen_bit`` 'scale' divides 16-bit
    grey by 257.
    """

    size: int | None = None
    resample: str = "bicubic"
    rescale_factor: float = 1 / 255
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    max_pixels: int = 50_000_000
    background: str = "white"
    exif: bool = False
    frame: int = 0
    sixteen_bit: str = "refuse"

    def __post_init__(self) -> None:
        if self.resample not in RESAMPLES:
            raise ImageError(f"resample is {self.resample!r}; want one of {', '.join(RESAMPLES)}")
        if self.sixteen_bit not in ("refuse", "scale"):
            raise ImageError(f"sixteen_bit is {self.sixteen_bit!r}; want 'refuse' or 'scale'")
        if self.frame < 0 or self.max_pixels < 1:
            raise ImageError(f"frame is {self.frame}, max_pixels {self.max_pixels}; want >= 0 and >= 1")
        try:
            ImageColor.getrgb(self.background)
        except ValueError as problem:
            raise ImageError(
                f"background is {self.background!r}; want a colour such as 'white' or '#ff8800'"
            ) from problem


def read_settings(folder: str | Path) -> ImageSettings:
    """Read the settings a model folder gives, or the released ones where it gives none.

    Notes
    -----
    ``preprocessor_config.json``, or as transformers 5 saves it, ``image_processor`` in ``processor_config.json``.
    """
    path = model_file(Path(folder), "preprocessor_config.json", ConfigError)
    fields = read_json(path, ConfigError) if is_there(path) else None
    if fields is None:
        path = model_file(Path(folder), "processor_config.json", ConfigError)
        fields = (read_json(path, ConfigError) if is_there(path) else {}).get("image_processor")
    if fields is None:
        return ImageSettings()
    if not isinstance(fields, dict):
        raise ConfigError(f"{path}: image_processor is {fields!r}; want an object")
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if fields.get(key, True) is not True:
            raise ConfigError(f"{path}: {key} is {fields[key]!r}; npgemma always does this step, want true")
    return ImageSettings(
        size=_side(path, fields.get("size")),
        resample=_resample(path, fields.get("resample")),
        rescale_factor=_number(path, "rescale_factor", fields.get("rescale_factor", 1 / 255)),
        mean=_three(path, "image_mean", fields.get("image_mean", 0.5)),
        std=_three(path, "image_std", fields.get("image_std", 0.5)),
    )


def _side(path: Path, size: Any) -> int | None:
    if size is None:
        return None
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    if type(height) is not int or height != width or not 1 <= height <= 16384:
        raise ConfigError(f"{path}: size is {size!r}; want equal height and width, whole numbers in 1..16384")
    return height


def _resample(path: Path, code: Any) -> str:
    if code is None:
        return "bicubic"
    for name, resample in RESAMPLES.items():
        if type(code) is int and code == int(resample):
            return name
    known = ", ".join(f"{int(resample)} ({name})" for name, resample in RESAMPLES.items())
    raise ConfigError(f"{path}: resample is {code!r}; want one of {known}")


def _number(path: Path, key: str, value: Any) -> float:
    lowest = -MOST if key == "image_mean" else 1 / MOST
    if type(value) not in (int, float) or not lowest <= value <= MOST:
        raise ConfigError(f"{path}: {key} is {value!r:.80}; want a number from {lowest:g} to {MOST:g}")
    return float(value)


def _three(path: Path, key: str, value: Any) -> tuple[float, float, float]:
    values = value if isinstance(value, list) else [value] * 3
    if len(values) != 3:
        raise ConfigError(f"{path}: {key} has {len(values)} values; want 3, one a channel")
    red, green, blue = (_number(path, key, each) for each in values)
    return red, green, blue
