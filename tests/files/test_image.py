"""Pixels against transformers' SiglipImageProcessorPil, by hash (golden/images, tools/golden/export_images.py)."""

import hashlib
import io
import json
from pathlib import Path

import golden_pictures
import numpy as np
import pytest
from PIL import Image

from npgemma.base.errors import ConfigError, ImageError
from npgemma.files.image import load_pixels, normalise, open_picture, resize, to_rgb
from npgemma.files.image_settings import ImageSettings, read_settings

FOLDER = Path(__file__).parents[2] / "golden" / "images"
MANIFEST = json.loads((FOLDER / "MANIFEST.json").read_text(encoding="utf-8"))
CASES = MANIFEST["cases"]
CATALOGUE = golden_pictures.catalogue()
AGAIN = "if the painting or the reference changed on purpose: python tools/golden/export_images.py"


def make(name):
    """The picture of a golden case: a PIL image, or the bytes of a file."""
    if name in CATALOGUE:
        function, arguments = CATALOGUE[name]
        return function(*arguments)
    return (FOLDER / name).read_bytes()


def comparable(name, made):
    """Whether this machine's decoder gave the pixels that the exporter's gave."""
    image = Image.open(io.BytesIO(made)) if isinstance(made, bytes) else made
    same = golden_pictures.source_hash(image) == CASES[name]["source"]
    assert same or CASES[name]["lossy"], f"{name}: the source pixels differ from the exporter's; {AGAIN}"
    return same


def check(name, picture, size, settings, wanted):
    """Compare the uint8 square, then the floats, with the golden; say the first sample that differs."""
    square = resize(to_rgb(open_picture(picture, name, settings, []), name, settings, []), size, settings.resample)
    pixels, _ = load_pixels([picture], size, settings)
    assert pixels.dtype == np.float32 and pixels.shape == (1, size, size, 3)
    for y, x, channel, byte, value in wanted["samples"]:
        place = f"{name} at {size}, row {y}, column {x}, channel {channel}"
        assert square[y, x, channel] == byte, f"{place}: byte {square[y, x, channel]}, want {byte}; {AGAIN}"
        assert pixels[0, y, x, channel] == np.float32(value), f"{place}: {pixels[0, y, x, channel]}, want {value}"
    assert hashlib.sha256(square.tobytes()).hexdigest() == wanted["resized"], f"{name} at {size}: resized; {AGAIN}"
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == wanted["pixels"], f"{name} at {size}: floats; {AGAIN}"


def test_the_golden_has_enough_pictures_and_its_files_are_whole():
    assert len(CASES) >= 60
    assert {size for case in CASES.values() for size in case["sizes"]} == {"224", "448", "896"}
    for name, digest in MANIFEST["files"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, f"{name}: restore golden/images"


@pytest.mark.parametrize("name", CASES)
def test_pixels_equal_those_of_transformers(name):
    picture = make(name)
    if not comparable(name, picture):
        pytest.skip(f"{name}: this machine decodes it to other pixels than the exporter's")
    for size, wanted in CASES[name]["sizes"].items():
        check(name, picture, int(size), ImageSettings(), wanted)


@pytest.mark.parametrize("variant", MANIFEST["variants"])
def test_other_settings_equal_those_of_transformers(variant, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(MANIFEST["settings"][variant]))
    settings = read_settings(tmp_path)
    for name, wanted in MANIFEST["variants"][variant].items():
        check(name, make(name), 224, settings, wanted)


def test_a_product_with_a_float32_255th_would_miss_the_reference():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    naive = (levels * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)
    ours = normalise(levels, ImageSettings())
    exact = levels.astype(np.float64) / 127.5 - 1
    assert np.abs(ours - exact).max() < 1e-7
    assert (ours != naive).any()


def test_a_path_its_bytes_its_pil_image_and_its_array_give_the_same_pixels(tmp_path):
    array = golden_pictures.paint(37, 21, 3, 5)
    image = Image.fromarray(array)
    image.save(tmp_path / "picture.png")
    sources = [tmp_path / "picture.png", str(tmp_path / "picture.png"), (tmp_path / "picture.png").read_bytes(), image]
    pixels, notes = load_pixels([*sources, array], 28)
    assert pixels.shape == (5, 28, 28, 3) and notes == []
    assert all(np.array_equal(pixels[0], each) for each in pixels)
    assert np.array_equal(load_pixels(image, 28)[0][0], pixels[0])
    assert load_pixels([], 28)[0].shape == (0, 28, 28, 3)


def test_black_is_minus_one_and_white_is_one():
    pixels, _ = load_pixels([np.array([[[0, 255, 0]]], np.uint8)], 2)
    assert pixels.tolist() == [[[[-1.0, 1.0, -1.0]] * 2] * 2]


def test_inputs_are_not_modified():
    array = golden_pictures.paint(9, 7, 3, 6)
    image = golden_pictures.pil_image("RGBA", 9, 7, 6)
    before = array.copy(), image.tobytes()
    load_pixels([array, image], 14)
    assert np.array_equal(array, before[0]) and image.tobytes() == before[1]


# --- settings of a folder --------------------------------------------------------------------------------------------


def test_settings_are_read_from_both_files_and_default_to_the_released_ones(tmp_path):
    assert read_settings(tmp_path) == ImageSettings()
    fields = {"size": {"height": 448, "width": 448}, "resample": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": 0.25}
    wanted = ImageSettings(size=448, resample="bilinear", mean=(0.1, 0.2, 0.3), std=(0.25, 0.25, 0.25))
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": fields}))
    assert read_settings(tmp_path) == wanted
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**fields, "resample": 0}))
    assert read_settings(tmp_path).resample == "nearest"


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"resample": 1}', r"resample is 1; want one of 0 \(nearest\), 2 \(bilinear\), 3 \(bicubic\)"),
        ('{"resample": "3"}', "resample is '3'"),
        ('{"size": {"height": 224, "width": 448}}', "want equal height and width"),
        ('{"size": {"shortest_edge": 224}}', "want equal height and width"),
        ('{"size": {"height": -1, "width": -1}}', "whole numbers in 1..16384"),
        ('{"image_mean": [0.5, 0.5]}', "image_mean has 2 values; want 3"),
        ('{"image_std": [0.5, 0.5, 0]}', r"image_std is 0; want a number from 1e-06 to 1e\+06"),
        ('{"rescale_factor": NaN}', "has the number NaN; want finite numbers"),
        ('{"rescale_factor": "1/255"}', "rescale_factor is '1/255'"),
        ('{"do_rescale": false}', "do_rescale is False"),
        ("[]", "holds a JSON list; want an object"),
        ("{", "not JSON"),
        ("", "an empty file"),
        ("version https://git-lfs.github.com/spec/v1", "Git-LFS pointer"),
    ],
)
def test_a_faulty_preprocessor_file_is_refused_with_its_field(tmp_path, text, message):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"resample": "lanczos"}, "resample is 'lanczos'; want one of nearest, bilinear, bicubic"),
        ({"sixteen_bit": "clip"}, "sixteen_bit is 'clip'; want 'refuse' or 'scale'"),
        ({"background": "no colour"}, "background is 'no colour'; want a colour"),
        ({"frame": -1}, "frame is -1"),
        ({"max_pixels": 0}, "max_pixels 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(fields, message):
    with pytest.raises(ImageError, match=message):
        ImageSettings(**fields)


def test_a_folder_that_asks_for_another_size_is_refused():
    with pytest.raises(ImageError, match="size is 224, the folder's preprocessor asks for 448"):
        load_pixels([np.zeros((2, 2, 3), np.uint8)], 224, ImageSettings(size=448))


def test_an_error_does_not_show_the_stream_of_our_own():
    with pytest.raises(ImageError, match="not an image") as caught:
        load_pixels([b"no picture at all"], 4)
    assert "BytesIO" not in str(caught.value)


@pytest.mark.parametrize("key", ["rescale_factor", "image_mean", "image_std"])
def test_numbers_of_hundreds_of_digits_are_refused(tmp_path, key):
    (tmp_path / "preprocessor_config.json").write_text(f'{{"{key}": {"9" * 400}}}')
    with pytest.raises(ConfigError, match="has the number 9{40}; want finite numbers of at most 300 digits"):
        read_settings(tmp_path)


def test_an_image_processor_that_is_no_object_is_refused(tmp_path):
    (tmp_path / "processor_config.json").write_text('{"image_processor": 3}')
    with pytest.raises(ConfigError, match="image_processor is 3; want an object"):
        read_settings(tmp_path)
