"""npgemma generate: boxes and masks, in the object and drawn on the picture."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
from generation_models import saying, wordy_model
from PIL import Image
from random_codecs import codec_inputs
from safetensors.numpy import save_file

from npgemma import cli
from npgemma.places.run_lengths import decode_runs


def run(capsys, *words):
    code = cli.main(["generate", *words])
    out, err = capsys.readouterr()
    return code, out, err


BOXES = "<loc0000><loc0341><loc1023><loc0682> cat ; <loc0001> dog"


def test_boxes_are_in_the_object_and_drawn_on_the_picture(speak, picture, tmp_path, capsys):
    speak(saying(BOXES))
    code, out, _ = run(capsys, picture, "detect cat", "--json", "--draw", str(tmp_path / "out.png"), "--model", "some")
    found = json.loads(out)
    assert code == 0
    [box] = found["boxes"]
    assert box["label"] == "cat" and box["box"] == pytest.approx([10, 0, 20, 20])
    assert box["confidence"] == pytest.approx(1.0)
    assert found["unread"][0]["unread"] == "<loc0001> dog"
    with Image.open(picture) as before, Image.open(tmp_path / "out.png") as drawn:
        assert drawn.size == before.size == (30, 20)
        assert drawn.tobytes() != before.convert("RGB").tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat.png", "out.png"]


CODES = "".join(f"<seg{code:03d}>" for code in range(16))
MASKED = f"<loc0000><loc0341><loc1023><loc0682>{CODES} cat"


@pytest.fixture(scope="module")
def codec_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("codec") / "some.safetensors"
    weights = codec_inputs.make_weights("awkward")
    save_file({name: array.astype(np.float32) for name, array in weights.items()}, path)
    return str(path)


def test_masks_are_in_the_object_and_drawn_on_the_picture(speak, picture, codec_file, tmp_path, capsys):
    out, options = str(tmp_path / "out.png"), ("segment cat", "--json", "--codec", codec_file, "--model", "some")
    speak(saying(MASKED))
    code, text, _ = run(capsys, picture, *options, "--draw", out)
    [found] = json.loads(text)["boxes"]
    mask = decode_runs(found["mask"])
    assert code == 0 and mask.shape == (20, 30) and 0 < mask.sum() < 200
    assert found["segments"] == list(range(16)) and found["mask_confidence"] == pytest.approx(1.0)
    inner = np.zeros_like(mask)
    inner[6:18, 13:17] = True  # clear of the frame and of the label
    with Image.open(picture) as before, Image.open(out) as drawn:
        changed = (np.asarray(before) != np.asarray(drawn)).any(-1)
    assert (changed == mask)[inner].all()


def test_the_demonstration_s_way_and_doubt_can_be_chosen(speak, picture, codec_file, capsys):
    speak(saying(MASKED))
    code, text, _ = run(capsys, picture, "x", "--json", "--codec", codec_file, "--masks-as", "demo", "--model", "some")
    assert code == 0 and json.loads(text)["boxes"][0]["box"][3] == pytest.approx(20 * 1023 / 1024)
    code, _, err = run(capsys, picture, "x", "--min-confidence", "2", "--model", "some")
    assert (code, err) == (1, "npgemma: --min-confidence: came as 2.0; want 0 to 1\n")


def test_a_model_without_a_codec_says_where_to_put_one(speak, picture, capsys):
    speak(saying(MASKED))
    code, out, err = run(capsys, picture, "segment cat", "--model", "some")
    assert (code, out) == (0, MASKED + "\n")
    assert "'cat' has no mask: the model has no mask codec; put vae-oid.npz" in err and "--codec FILE" in err


def test_a_codec_that_is_none_is_refused_whatever_the_answer(speak, picture, tmp_path, capsys):
    speak(saying("a cat"))
    (tmp_path / "codec.bin").write_bytes(b"x")
    for name, reason in (("none.npz", "no such file"), ("codec.bin", "want one that ends in .npz or .safetensors")):
        code, out, err = run(capsys, picture, "x", "--codec", str(tmp_path / name), "--model", "some")
        assert code in (1, 2) and out == "" and reason in err and err.count("\n") == 1


def test_what_is_no_box_is_said_on_stderr(speak, picture, capsys):
    speak(saying(BOXES))
    _, out, err = run(capsys, picture, "detect cat", "--model", "some")
    assert out == BOXES + "\n"
    assert "note: '<loc0001> dog' is no box: " in err


@pytest.mark.parametrize(
    "words, message",
    (
        (["--draw", "out.txt"], "--draw out.txt: want a name that ends in .png"),
        (["--draw", "out.png", "--image", "PICTURE"], "--draw: boxes are drawn on one picture"),
        (["--draw", "PICTURE"], "is the picture itself"),
        (["--draw", "PICTURE", "--force"], "is the picture itself"),
        (["--draw", "THERE.png"], "THERE.png: exists already; choose another name, or --force to replace it"),
        (["--draw", "no/such/out.png"], "no/such/out.png: there is no folder no/such; make it first"),
    ),
)
def test_what_cannot_be_drawn_is_refused_before_the_model_is_loaded(speak, picture, capsys, words, message):
    calls = speak(wordy_model())
    there = Path(picture).with_name("THERE.png")
    there.write_bytes(b"mine")
    names = {"PICTURE": picture, "THERE.png": str(there)}
    code, _, err = run(capsys, picture, "x", *[names.get(word, word) for word in words])
    assert there.read_bytes() == b"mine"
    assert (code, calls) == (1, [])
    assert message in err


def test_an_unwritable_drawing_is_one_line_and_leaves_nothing(speak, picture, tmp_path, capsys):
    speak(saying(BOXES))
    before, target = sorted(tmp_path.iterdir()), tmp_path / "out.png"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        code, out, err = run(capsys, picture, "x", "--draw", str(target), "--model", "some")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, out) == (1, BOXES + "\n")
    assert err.endswith(f"npgemma: {target}: cannot be written: File too large\n")
    assert sorted(tmp_path.iterdir()) == before
