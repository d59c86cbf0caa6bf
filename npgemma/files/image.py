"""Pictures to pixels, exactly as transformers' SiglipImageProcessorPil gives them for ``PIL.Image.open(file)``.

Five steps: open, make RGB, resize to R x R in uint8 (the aspect ratio is not kept), rescale, normalise. What a step
loses is never silent: it is refused, or said in a note. Letters: M pictures, R the side of the model's square.

Not supported: pictures of other formats than PNG, JPEG, WebP, BMP and GIF, and the torchvision resize.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageFile

from npgemma.base.errors import ImageError
from npgemma.files import sniff
from npgemma.files.image_settings import RESAMPLES, ImageSettings
from npgemma.files.reader import read_file

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
# Modes that Pillow would convert with a silent loss.
UNFIT_MODES = {
    "F": "its pixels are floats; scale them to 0..255 and convert to mode L first",
    "La": "its alpha is multiplied in already; convert to mode LA first",
    "RGBa": "its alpha is multiplied in already; convert to mode RGBA first",
}
MAX_FILE_BYTES = 1_000_000_000
EXIF_ORIENTATION = 0x0112
# What brings a picture of each orientation upright; 1 is upright.  ImageOps.exif_transpose writes the EXIF data anew
# too, and dies of broken ones.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Pillow's bound is a global of its own.
ONE_AT_A_TIME = threading.Lock()

Picture = str | Path | bytes | Image.Image | np.ndarray


def load_pixels(
    pictures: Picture | Iterable[Picture], size: int, settings: ImageSettings | None = None
) -> tuple[np.ndarray, list[str]]:
    """Read pictures into the pixels that the vision tower takes.

    Parameters
    ----------
    pictures : picture or list of pictures
        Each a path, the bytes of a file, a PIL image, or an array (H, W, 3) uint8 in the order red, green, blue.
    size : int
        R, the side of the square in pixels.
    settings : ImageSettings, optional

    Returns
    -------
    pixels : (M, R, R, 3)
        float32, in [-1, 1] with the released settings.
    notes : list of str
        What was lost or ignored on the way, a sentence each.
    """
    settings = settings or ImageSettings()
    if size < 1 or settings.size not in (None, size):
        raise ImageError(f"size is {size}, the folder's preprocessor asks for {settings.size}; want one size")
    if isinstance(pictures, str | Path | bytes | Image.Image | np.ndarray) or not isinstance(pictures, Iterable):
        pictures = [pictures]
    notes: list[str] = []
    squares = []
    for index, picture in enumerate(pictures):
        name = str(picture) if isinstance(picture, str | Path) else f"picture {index}"
        image = open_picture(picture, name, settings, notes)
        squares.append(resize(to_rgb(image, name, settings, notes), size, settings.resample))
    if not squares:
        return np.zeros((0, size, size, 3), np.float32), notes
    return normalise(np.stack(squares), settings), notes


# --- open ------------------------------------------------------------------------------------------------------------


def open_picture(picture: Picture, name: str, settings: ImageSettings, notes: list[str]) -> Image.Image:
    """Open one picture, decode the frame asked for, and say in ``notes`` what was ignored."""
    if isinstance(picture, np.ndarray):
        return _from_array(picture, name)
    if isinstance(picture, Image.Image):
        image = _loaded(picture, name)
    elif isinstance(picture, str | Path | bytes):
        data = picture if isinstance(picture, bytes) else read_file(Path(picture), MAX_FILE_BYTES, ImageError)
        image = _decode(data, name, settings, notes)
    else:
        raise ImageError(
            f"{name}: came as {type(picture).__name__}; want a path, the bytes of a file, a PIL image, "
            "or an array (H, W, 3) of uint8"
        )
    _check_size(image, name, settings)
    if image.info.get("icc_profile"):
        notes.append(f"{name}: its colour profile (ICC) is ignored, as in transformers")
    return _upright(image, name, settings, notes)


def _decode(data: bytes, name: str, settings: ImageSettings, notes: list[str]) -> Image.Image:
    """Open and decode the bytes of a file."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageError(
            f"{name}: Pillow's LOAD_TRUNCATED_IMAGES is on, so broken files would pass as grey; switch it off"
        )
    stream = io.BytesIO(data)
    # Pillow raises nearly anything on a broken file (OSError, SyntaxError, struct.error, ...), so all is caught here.
    try:
        with _noting(name, notes):
            image: Image.Image = Image.open(stream, formats=FORMATS)
    except Image.DecompressionBombError as problem:
        raise ImageError(f"{name}: is too large: {problem}; want at most {settings.max_pixels:,} pixels") from problem
    except Exception as problem:
        kind = sniff.describe(data[:1024]) or f"not an image (its first bytes are {data[:8]!r})"
        raise ImageError(f"{name}: is {kind}; want PNG, JPEG, WebP, BMP or GIF that opens{why(problem)}") from problem
    _check_size(image, name, settings)
    try:
        with _noting(name, notes), _bounded(settings.max_pixels):
            if image.format == "PNG":
                # Decoding skips the checksums of the pixel data; verify() reads them, and spoils its image.
                Image.open(io.BytesIO(data), formats=("PNG",)).verify()
            _select_frame(image, name, settings, notes)
            image.load()
    except ImageError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as problem:
        raise ImageError(
            f"{name}: has a frame that outgrows the picture: {problem}; make it smaller, or raise max_pixels "
            "(--max-pixels)"
        ) from None
    except Exception as problem:
        read = stream.tell()
        raise ImageError(
            f"{name}: is broken or truncated: decoding stopped at byte {read:,} of {len(data):,} "
            f"({100 * read // max(len(data), 1)} % read): {problem}; download or save it again"
        ) from problem
    # Byte 24 of a PNG is its bit depth. Pillow keeps the high byte of 16-bit colour, and so does the reference.
    if image.format == "PNG" and data[24:25] == b"\x10" and not image.mode.startswith("I"):
        notes.append(f"{name}: 16 bits a channel were cut to 8, as in transformers")
    return image


@contextlib.contextmanager
def _noting(name: str, notes: list[str]) -> Iterator[None]:
    """Make notes of Pillow's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _check_size has a stricter limit
        yield
    notes += [f"{name}: Pillow warns: {warning.message}" for warning in caught]


@contextlib.contextmanager
def _bounded(limit: int) -> Iterator[None]:
    """Let Pillow refuse a frame above ``limit`` pixels: a GIF's may be larger than what its header says."""
    with ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def why(problem: Exception) -> str:
    """Give Pillow's reason in brackets; none where it only names the stream that npgemma made of the file."""
    return "" if "BytesIO" in str(problem) else f" ({problem})"


def _loaded(image: Image.Image, name: str) -> Image.Image:
    """Decode a PIL image that its owner may have opened only."""
    try:
        image.load()
    except Exception as problem:  # As in _decode.
        raise ImageError(f"{name}: is broken or truncated: {problem}; download or save it again") from problem
    return image


def _check_size(image: Image.Image, name: str, settings: ImageSettings) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: is {width} x {height} pixels; want at least 1 x 1")
    if width * height > settings.max_pixels:
        raise ImageError(
            f"{name}: is {width} x {height} = {width * height:,} pixels; want at most {settings.max_pixels:,}; "
            "make it smaller, or raise max_pixels (--max-pixels)"
        )


def _select_frame(image: Image.Image, name: str, settings: ImageSettings, notes: list[str]) -> None:
    frames = getattr(image, "n_frames", 1)
    if settings.frame >= frames:
        raise ImageError(f"{name}: has {frames} frames; frame {settings.frame} does not exist, want 0..{frames - 1}")
    if frames > 1:
        notes.append(f"{name}: only frame {settings.frame} of its {frames} frames is used; choose with frame (--frame)")
    if settings.frame:
        image.seek(settings.frame)


def _upright(image: Image.Image, name: str, settings: ImageSettings, notes: list[str]) -> Image.Image:
    """Turn a photograph as its EXIF says, if the settings ask for it; say so either way."""
    try:
        with _noting(name, notes):
            orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception as problem:  # Broken EXIF raises nearly anything, and is no reason to refuse the picture.
        notes.append(f"{name}: its EXIF data cannot be read and is ignored ({problem})")
        return image
    if orientation == 1:
        return image
    if orientation not in TURNS:
        notes.append(f"{name}: EXIF orientation {orientation!r:.40} is none of 1 to 8, and ignored")
        return image
    if settings.exif:
        notes.append(f"{name}: turned upright from EXIF orientation {orientation}, unlike in transformers")
        return image.transpose(TURNS[orientation])
    notes.append(f"{name}: EXIF orientation {orientation} is ignored, as in transformers; exif=True (--exif) turns it")
    return image


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    """Take an array (H, W, 3) of uint8 as a picture; of any other, say how to convert it."""
    hint = None
    if array.ndim == 4:
        hint = "pass a list of pictures: list(array)"
    elif array.ndim == 2:
        hint = "make grey into three channels: np.stack([array] * 3, axis=-1)"
    elif array.ndim == 3 and array.shape[2] != 3 and array.shape[0] == 3:
        hint = "put channels last: array.transpose(1, 2, 0)"
    elif array.ndim == 3 and array.shape[2] == 4:
        hint = "say what lies under its transparent pixels: pass PIL.Image.fromarray(array, 'RGBA')"
    elif array.ndim != 3 or array.shape[2] != 3 or not array.size:
        hint = "want height, width, and 3 channels in the order red, green, blue"
    elif array.dtype == np.uint16:
        hint = "divide: (array // 257).astype(np.uint8)"
    elif array.dtype == np.bool_:
        hint = "multiply: array.astype(np.uint8) * 255"
    elif array.dtype.kind == "f":
        hint = "scale to 0..255 and round: np.rint(array * 255).astype(np.uint8) if it is in 0..1 and has no NaN"
    elif array.dtype != np.uint8:
        hint = "check that its values are in 0..255, then array.astype(np.uint8)"
    if hint:
        raise ImageError(f"{name}: is an array {array.shape} of {array.dtype}; want (H, W, 3) of uint8; {hint}")
    return Image.fromarray(np.ascontiguousarray(array))


# --- RGB -------------------------------------------------------------------------------------------------------------


def to_rgb(image: Image.Image, name: str, settings: ImageSettings, notes: list[str]) -> Image.Image:
    """Convert a picture of any mode to RGB; transparent pixels are laid on the background."""
    has_alpha = "A" in image.getbands() or image.info.get("transparency") is not None
    if image.mode in UNFIT_MODES:
        raise ImageError(f"{name}: {UNFIT_MODES[image.mode]} (mode {image.mode})")
    if image.mode.startswith("I"):
        image = _narrow(image, name, has_alpha, settings, notes)
    try:
        if not has_alpha:
            if image.mode == "CMYK":
                notes.append(f"{name}: CMYK was converted to RGB without its colour profile, as in transformers")
            return image.convert("RGB")
        layer = image.convert("RGBA")
        if layer.getextrema()[-1] != (255, 255):
            notes.append(f"{name}: its transparent pixels were laid on {settings.background}")
        red, green, blue = ImageColor.getrgb(settings.background)[:3]
        ground = Image.new("RGBA", layer.size, (red, green, blue, 255))
        return Image.alpha_composite(ground, layer).convert("RGB")
    except (ValueError, TypeError) as problem:
        raise ImageError(
            f"{name}: its mode {image.mode} and transparency cannot become RGB: {problem}; convert it first"
        ) from problem


def _narrow(image: Image.Image, name: str, has_alpha: bool, settings: ImageSettings, notes: list[str]) -> Image.Image:
    """Bring grey of more than 8 bits (modes I and I;16) to 8, if nothing is lost or the settings ask for it."""
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    # 16-bit grey that happens to stay below 256 is a dark picture, not an 8-bit one; mode I has no depth of its own.
    if image.mode == "I" and 0 <= low and high <= 255:
        return image
    if settings.sixteen_bit == "refuse" or low < 0 or high > 65535 or has_alpha:
        raise ImageError(
            f"{name}: is grey of more than 8 bits (mode {image.mode}, values {low}..{high}), "
            "which transformers saturates: all above 255 turns white; "
            "pass sixteen_bit='scale' (--sixteen-bit scale) to divide 16 bits by 257, or convert it to 8 bits"
        )
    notes.append(f"{name}: 16-bit grey was divided by 257, unlike in transformers, which saturates it")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))


# --- resize and normalise --------------------------------------------------------------------------------------------


def resize(image: Image.Image, size: int, resample: str) -> np.ndarray:
    """Resize an RGB picture to (R, R, 3) uint8; Pillow rounds to uint8 after each of its two passes."""
    return np.asarray(image.resize((size, size), RESAMPLES[resample]))


def normalise(squares: np.ndarray, settings: ImageSettings) -> np.ndarray:
    """Rescale and normalise.

    Parameters
    ----------
    squares : (M, R, R, 3)
        uint8.

    Returns
    -------
    pixels : (M, R, R, 3)
        float32.
    """
    # The product is taken in float64 and rounded once: multiplying by float32(1 / 255) misses the reference's bits.
    levels = (np.arange(256).astype(np.float64) * settings.rescale_factor).astype(np.float32)
    scaled = levels[squares]
    pixels: np.ndarray = (scaled - np.array(settings.mean, np.float32)) / np.array(settings.std, np.float32)
    return pixels
