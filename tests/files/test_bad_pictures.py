"""Rows 45 to 62 of the table of bad inputs: what is refused, with which words, and what is said of a lossy step."""

import io
import re
import resource
import struct
import warnings
import zlib

import golden_pictures
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from npgemma.base.errors import ImageError, NpgemmaError
from npgemma.files.image import load_pixels, open_picture
from npgemma.files.image_settings import ImageSettings


def encoded(image, container="png", **options):
    stream = io.BytesIO()
    image.save(stream, container, **options)
    return stream.getvalue()


def painted(mode="RGB", width=40, height=30):
    return golden_pictures.pil_image(mode, width, height, 400)


def notes_of(picture, **settings):
    return load_pixels([picture], 14, ImageSettings(**settings))[1]


def corners(picture, **settings):
    """The picture's own pixels: nearest neighbour at its own size, back in 0..255."""
    pixels, _ = load_pixels([picture], 2, ImageSettings(resample="nearest", **settings))
    return np.rint((pixels[0] + 1) * 127.5).astype(int).tolist()


def png_of_size(width, height):
    """A PNG whose header claims a size, with next to no data behind it."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "picture 0: is an empty file"),
        (b"<!DOCTYPE html><html>", "picture 0: is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git-LFS pointer, .*git lfs pull"),
        (bytes(range(7, 107)), "picture 0: is not an image"),
    ],
)
def test_row_45_what_is_no_image_is_named(data, message):
    with pytest.raises(ImageError, match=message):
        load_pixels([data], 14)


def test_row_46_a_pil_image_that_breaks_while_it_loads_is_refused():
    data = encoded(painted())
    with pytest.raises(ImageError, match="picture 0: is broken or truncated"):
        load_pixels([Image.open(io.BytesIO(data[: len(data) // 2]))], 14)


@pytest.mark.parametrize("container", ["png", "jpeg", "webp", "gif", "bmp"])
def test_row_46_a_truncated_file_is_refused_with_how_much_was_read(container):
    data = encoded(painted("P" if container == "gif" else "RGB"), container)
    with pytest.raises(
        ImageError, match="picture 0: is (broken or truncated: decoding stopped at byte .* % read|not an)"
    ):
        load_pixels([data[: len(data) // 2]], 14)


def test_row_46_a_png_with_a_bad_checksum_is_refused():
    data = bytearray(encoded(painted()))
    end = data.rindex(b"IEND") - 4  # IDAT's checksum stands before IEND's length
    data[end - 1] ^= 1
    with pytest.raises(ImageError, match="broken or truncated"):
        load_pixels([bytes(data)], 14)


def test_row_46_pillows_switch_for_truncated_files_must_be_off(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match="LOAD_TRUNCATED_IMAGES is on"):
        load_pixels([encoded(painted())], 14)


def test_row_47_a_bomb_is_refused_before_it_is_decoded():
    with pytest.raises(ImageError, match="picture 0: is too large"):
        load_pixels([png_of_size(100_000, 100_000)], 14)


def test_row_48_a_huge_picture_is_refused_above_our_own_limit():
    with pytest.raises(
        ImageError, match=r"is 10000 x 10000 = 100,000,000 pixels; want at most 50,000,000.*--max-pixels"
    ):
        load_pixels([png_of_size(10_000, 10_000)], 14)
    with pytest.raises(ImageError, match="want at most 100"):
        load_pixels([painted()], 14, ImageSettings(max_pixels=100))
    assert load_pixels([painted()], 14, ImageSettings(max_pixels=1200))[1] == []


def test_row_49_sixteen_bit_grey_is_refused_or_divided_by_257():
    grey = np.array([[0, 257], [25700, 65535]], np.uint16)
    for picture in (encoded(Image.fromarray(grey)), Image.fromarray(grey), Image.fromarray(grey.astype(np.int32))):
        with pytest.raises(
            ImageError, match="which transformers saturates.*--sixteen-bit scale.*divide 16 bits by 257"
        ):
            load_pixels([picture], 14)
        assert corners(picture, sixteen_bit="scale") == [[[0] * 3, [1] * 3], [[100] * 3, [255] * 3]]
        assert "divided by 257" in notes_of(picture, sixteen_bit="scale")[0]


def test_row_49_mode_i_beyond_sixteen_bits_is_refused_even_when_scaling():
    for value in (-1, 65536):
        with pytest.raises(ImageError, match="grey of more than 8 bits"):
            load_pixels([Image.fromarray(np.full((2, 2), value, np.int32))], 14, ImageSettings(sixteen_bit="scale"))


def test_row_49_transparent_sixteen_bit_grey_is_refused_even_when_scaling():
    picture = Image.fromarray(np.full((2, 2), 300, np.uint16))
    picture.info["transparency"] = 300
    with pytest.raises(ImageError, match="grey of more than 8 bits"):
        load_pixels([picture], 14, ImageSettings(sixteen_bit="scale"))


def test_row_49_colour_of_sixteen_bits_says_that_it_was_cut():
    body = zlib.compress(b"\0\x12\x34\x56\x78\x9a\xbc")
    whole = png_of_size(1, 1)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    data = whole[:8] + b"".join(
        struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts
    )
    assert notes_of(data) == ["picture 0: 16 bits a channel were cut to 8, as in transformers"]


def test_row_51_transparent_pixels_are_laid_on_white_or_on_a_background():
    hidden = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
    assert corners(hidden) == [[[255, 255, 255]] * 2] * 2
    assert notes_of(hidden) == ["picture 0: its transparent pixels were laid on white"]
    assert corners(hidden, background="#102030") == [[[16, 32, 48]] * 2] * 2
    assert "laid on #102030" in notes_of(hidden, background="#102030")[0]
    assert notes_of(Image.new("RGBA", (2, 2), (200, 0, 0, 255))) == []  # opaque: nothing is lost


def test_row_52_palettes_and_grey_with_transparency_follow_the_same_rule():
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    data = encoded(palette, transparency=1)
    assert corners(data) == [[[255] * 3] * 2] * 2 and "laid on white" in notes_of(data)[0]
    grey = Image.new("LA", (2, 2), (0, 0))
    assert corners(grey) == [[[255] * 3] * 2] * 2 and "laid on white" in notes_of(grey)[0]


def test_row_53_cmyk_is_converted_and_said_so():
    data = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "jpeg")
    assert corners(data) == [[[255] * 3] * 2] * 2  # no ink is white: Adobe's inversion was undone
    assert notes_of(data) == ["picture 0: CMYK was converted to RGB without its colour profile, as in transformers"]


def test_row_54_exif_orientation_is_ignored_with_a_note_or_followed():
    stored = Image.new("RGB", (2, 2), "white")
    stored.putpixel((0, 0), (0, 0, 0))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise by a quarter: the black corner goes to the right
    data = encoded(stored, exif=turned)
    assert corners(data)[0] == [[0] * 3, [255] * 3]
    assert "EXIF orientation 6 is ignored, as in transformers; exif=True (--exif)" in notes_of(data)[0]
    assert corners(data, exif=True)[0] == [[255] * 3, [0] * 3]
    assert "turned upright from EXIF orientation 6" in notes_of(data, exif=True)[0]


def test_row_55_a_colour_profile_is_ignored_and_said_so():
    data = encoded(painted(), icc_profile=b"a profile")
    assert notes_of(data) == ["picture 0: its colour profile (ICC) is ignored, as in transformers"]


@pytest.mark.parametrize("container", ["gif", "png", "webp"])
def test_row_56_of_an_animation_the_first_frame_is_used_and_said_so(container):
    black, white = Image.new("RGB", (2, 2), "black"), Image.new("RGB", (2, 2), "white")
    data = encoded(
        black, container, save_all=True, append_images=[white], **{"lossless": True} if container == "webp" else {}
    )
    assert corners(data)[0][0] == [0, 0, 0] and corners(data, frame=1)[0][0] == [255, 255, 255]
    assert "only frame 0 of its 2 frames is used; choose with frame (--frame)" in notes_of(data)[0]
    assert "only frame 1 of its 2 frames" in notes_of(data, frame=1)[0]
    with pytest.raises(ImageError, match=r"has 2 frames; frame 2 does not exist, want 0\.\.1"):
        load_pixels([data], 14, ImageSettings(frame=2))


@pytest.mark.parametrize("mode", ["1", "P", "L"])
def test_row_57_one_bit_palette_and_grey_pass_without_a_note(mode):
    assert notes_of(painted(mode)) == []
    assert notes_of(encoded(painted(mode))) == []


@pytest.mark.parametrize(
    "data, message",
    [
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing; want PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "is PostScript"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"SIMPLE  =                    T" + b" " * 100, "is a FITS file"),
        (b"8BPS\0\1" + bytes(40), "is a Photoshop file"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "is a HEIC/AVIF/MP4 container"),
        (b"II*\0" + bytes(40), "is a TIFF"),
    ],
)
def test_row_59_other_formats_are_never_opened(data, message):
    with pytest.raises(ImageError, match=message):
        load_pixels([data], 14)


HWC = golden_pictures.paint(6, 5, 3, 401)


@pytest.mark.parametrize(
    "array, hint",
    [
        (HWC / 255, r"of float64; want \(H, W, 3\) of uint8; .*np.rint\(array \* 255\)"),
        (HWC.astype(np.float32), "scale to 0..255 and round"),
        (np.full((5, 6, 3), np.nan), "has no NaN"),
        (HWC.astype(np.uint16), r"array // 257"),
        (HWC > 127, r"array.astype\(np.uint8\) \* 255"),
        (HWC.astype(np.int64), "check that its values are in 0..255"),
        (HWC.transpose(2, 0, 1), r"channels last: array.transpose\(1, 2, 0\)"),
        (HWC[None], r"pass a list of pictures: list\(array\)"),
        (HWC[..., 0], "np.stack"),
        (np.dstack([HWC, HWC[..., :1]]), "PIL.Image.fromarray"),
        (HWC[:0], "want height, width, and 3 channels in the order red, green, blue"),
        (HWC[..., :2], "3 channels"),
        (np.array(3, np.uint8), "3 channels"),
    ],
)
def test_row_60_an_array_of_another_kind_says_how_to_convert_it(array, hint):
    with pytest.raises(ImageError, match=hint):
        load_pixels([array], 14)


def test_row_60_views_with_any_strides_are_read_rightly():
    for view in (HWC[::-1], HWC[:, ::-2], np.asfortranarray(HWC), HWC[..., ::-1]):
        assert np.array_equal(load_pixels([view], 14)[0], load_pixels([view.copy(order="C")], 14)[0])


def test_row_62_the_resize_clips_to_bytes_and_keeps_no_overshoot():
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    pixels, _ = load_pixels([edge], 64)
    assert pixels.min() == -1.0 and pixels.max() == 1.0  # a bicubic in floats would reach beyond both


def test_other_types_missing_files_and_folders_are_refused_by_name(tmp_path):
    for picture, message in (
        (None, "picture 0: came as NoneType; want a path"),
        (3.5, "came as float"),
        (tmp_path, "is a folder; want a regular file"),
        (tmp_path / "no.png", "no such file"),
    ):
        with pytest.raises(ImageError, match=message):
            load_pixels([picture], 14)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ImageError, match="is 0 x 5 pixels; want at least 1 x 1"):
        load_pixels([Image.new("RGB", (0, 5))], 14)


def test_floats_and_premultiplied_pixels_are_refused():
    for mode, message in (
        ("F", "its pixels are floats"),
        ("RGBa", "convert to mode RGBA first"),
        ("La", "mode LA first"),
    ):
        with pytest.raises(ImageError, match=message):
            load_pixels([Image.new(mode, (2, 2))], 14)
    odd = Image.new("RGB", (2, 2))
    odd.info["transparency"] = "no colour"
    with pytest.raises(ImageError, match="its mode RGB and transparency cannot become RGB: .*; convert it first"):
        load_pixels([odd], 14)


def test_damaged_files_end_in_our_own_error_or_in_pixels():
    rng = np.random.default_rng(0)
    files = [encoded(painted(), c) for c in ("png", "jpeg", "webp", "bmp")] + [encoded(painted("P"), "gif")]
    for _ in range(300):
        data = bytearray(files[rng.integers(len(files))])
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(len(data))] = rng.integers(256)
        try:
            load_pixels([bytes(data[: rng.integers(len(data))] if rng.random() < 0.3 else data)], 14)
        except NpgemmaError as error:
            assert "picture 0" in str(error)


def gif(screen, *frames):
    """A GIF of one-pixel data, whose frames claim their sizes."""
    data = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    for width, height in frames:
        data += b"\x21\xf9\x04\x08\0\0\0\0," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0"
    return data + b";"


def test_row_48_a_frame_that_outgrows_its_picture_is_refused_before_it_is_made():
    data = gif((1, 1), (1, 1), (13_000, 13_000), (1, 1))
    assert "only frame 0 of its 3" in notes_of(data)[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for frame in (1, 2):
        with pytest.raises(ImageError, match="has a frame that outgrows the picture: .*169000000 pixels.*--max-pixels"):
            load_pixels([data], 14, ImageSettings(frame=frame))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000  # kB; it took 800 MB
    assert Image.MAX_IMAGE_PIXELS > 50_000_000  # Pillow's own bound is as it was


@pytest.mark.parametrize("orientation", range(2, 9))
def test_row_54_every_orientation_is_turned_as_pillow_turns_it(orientation):
    stored, turned = golden_pictures.pil_image("RGB", 5, 3, 401), Image.Exif()
    turned[0x0112] = orientation
    data = encoded(stored, exif=turned)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    ours = open_picture(data, "it", ImageSettings(exif=True), [])
    assert ours.size == wanted.size and ours.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("exif", [True, False])
@pytest.mark.parametrize(
    "block, message",
    (
        (b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0", "orientation 9 is none of 1 to 8"),
        (b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0x\0\0\0\0\0\0\0", "is none of 1 to 8"),
        (b"Exif\0\0II*\0\xff\xff\0\0", "Pillow warns|cannot be read|^$"),
        (b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0\0\0", "Pillow warns|cannot be read|^$"),
        (b"Exif\0\0", "Pillow warns|cannot be read|^$"),
    ),
)
def test_row_54_broken_exif_is_no_reason_to_die(block, message, exif):
    data = encoded(painted(), "jpeg", exif=block)
    notes = notes_of(data, exif=exif)
    assert re.search(message, " ".join(notes)), notes


def test_what_pillow_warns_of_is_a_note(monkeypatch):
    real = Image.Image.getexif

    def warn(image):
        warnings.warn("Corrupt EXIF data", UserWarning, stacklevel=2)
        return real(image)

    monkeypatch.setattr(Image.Image, "getexif", warn)
    assert notes_of(encoded(painted())) == ["picture 0: Pillow warns: Corrupt EXIF data"]
