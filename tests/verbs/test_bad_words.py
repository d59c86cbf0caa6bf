"""Each verb's inputs, each broken in its ways: the exit code, and one line that says what is wrong."""

import json
import os

import numpy as np
import pytest
from generation_models import wordy_model
from made_checkpoints import file_bytes
from PIL import Image

from golden import ROOT
from npgemma import cli
from npgemma.verbs import options

NAME = "text.blocks.1.attn.out"
PACK = str(ROOT / "golden" / "pack-1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a sound picture and files that are broken by name; the model is small and random."""
    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.png")
    (tmp_path / "html.png").write_text("<!DOCTYPE html>")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "evil\x1b[2J.png").write_text("no")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    (tmp_path / "there.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("The names of all tensors that I have written down.")
    (tmp_path / "map.json").write_text('{"their.norm": 3}')
    array = np.zeros((1, 3, 10), np.float32)
    (tmp_path / "wrong.safetensors").write_bytes(file_bytes({NAME: ("F32", array)}))
    np.save(tmp_path / "x.npy", array)
    os.mkfifo(tmp_path / "pipe")
    deep = "{\"a\": " + "[" * 99 + "]" * 99 + "}"
    for name, values in (("llava", {"model_type": "llava"}), ("nan", {"a": float("nan")}), ("deep", deep)):
        (tmp_path / name).mkdir()
        text = values if isinstance(values, str) else json.dumps(values)
        (tmp_path / name / "config.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


OF_A_FILE = {
    "html.png": (2, "is an HTML page"),
    "cut.png": (2, "is broken or truncated"),
    "empty.png": (2, "is an empty file"),
    "evil\x1b[2J.png": (2, r"evil\x1b[2J.png: is not an image"),
    "circle.png": (2, "Too many levels of symbolic links"),
    "pipe": (2, "is a pipe or a device; want a regular file"),
    "/dev/zero": (2, "is a pipe or a device; want a regular file"),
    ".": (2, "is a folder; want a regular file"),
    "nowhere.png": (1, "there is no such picture; check the path"),
    "no/where": (1, "there is no such picture; check the path"),
    "caption en": (1, "there is no such picture; the picture comes first, then the prompt; without a picture: --no-"),
    "x" * 300: (1, "there is no such picture"),
}
WORDS = [
    *((["generate", name, "cat"], *said) for name, said in OF_A_FILE.items()),
    *((["score", name, "cat", "dog"], *said) for name, said in OF_A_FILE.items()),
    *((["trace", name, "cat"], *said) for name, said in OF_A_FILE.items()),
    *((["step", name, "cat"], *said) for name, said in OF_A_FILE.items()),
    (["generate", "a.png", "cat", "--background", "no colour"], 2, "background is 'no colour'; want a colour"),
    (["generate", "a.png", "cat", "--max-pixels", "80"], 2, "is 9 x 9 = 81 pixels; want at most 80"),
    (["generate", "a.png", "cat", "--frame", "1"], 2, "has 1 frames; frame 1 does not exist"),
    (["generate", "a.png", "cat", "--frame", "-1"], 2, "frame is -1"),
    (["generate", "a.png", "cat", "--draw", "there.png"], 1, "there.png: exists already; choose another name"),
    (["trace", "a.png", "cat", "--backward", "x", "--map", "a.jpg"], 1, "--map a.jpg: want a name that ends in .png"),
    (["generate", "--no-image", "cat", "--ids", "2"], 1, "--ids stands instead of the prompt"),
    (["generate", "--ids", "99999999999999999999", "--no-image"], 1, "--ids: came with id 99999999999999999999"),
    (["generate", "--no-image", "x" * 125_001], 1, "the text has 125,001 characters"),
    (["generate", "--no-image", "\udcff"], 1, "is the lone surrogate U+DCFF"),
    (["trace", "a.png", "cat", "-o", "there.safetensors"], 1, "there.safetensors: exists already"),
    (["trace", "a.png", "cat", "-o", "no/x.safetensors"], 1, "there is no folder no; make it first"),
    (["trace", "a.png", "cat", "-o", "pipe", "--force"], 1, "pipe: is no regular file"),
    (["trace", "a.png", "cat", "--rows", "999"], 1, "--rows: came as '999'"),
    (["trace", "a.png", "cat", "--rows", "x"], 1, "--rows: 'x' is no position"),
    (["trace", "a.png", "cat", "--only", "nothing"], 1, "'nothing' fits none of"),
    (["trace", "--no-image", "cat", "--replace", NAME], 1, "--replace: came as"),
    (["trace", "--no-image", "cat", "--replace", f"{NAME}=x.npy"], 2, "a NumPy array (.npy), not safetensors"),
    (["trace", "--no-image", "cat", "--replace", f"{NAME}=pipe"], 2, "is a pipe or a device"),
    (["trace", "--no-image", "cat", "--replace", f"{NAME}=no.safetensors"], 1, "no such file"),
    (["trace", "--no-image", "cat", "--replace", "text.*=wrong.safetensors"], 1, "--replace: 'text.*' is a pattern"),
    (["trace", "--no-image", "a cat", "--replace", f"{NAME}=wrong.safetensors"], 1, "the replacement is (1, 3, 10)"),
    (["trace", "a.png", "cat", "--only", "text.blocks.7.out"], 1, "tensors; text.blocks are 0 to 2"),
    (["trace", "a.png", "cat", "--only", "zzz"], 1, "tensors; 'npgemma names' lists them"),
    (["generate", "a.png", "cat", "--codec", "no.safetensors"], 1, "no.safetensors: no such file"),
    (["names", "layers.0.self_attn.qproj"], 1, "nearest: layers.0.self_attn.q_proj"),
    (["compare", "no.safetensors"], 1, "no.safetensors: no such file"),
    (["compare", "wrong.safetensors", "--pack", "no"], 1, "no: no such file"),
    (["compare", "notes.txt"], 2, "notes.txt: a text file, not safetensors"),
    (["compare", "wrong.safetensors", "--map", "map.json"], 2, "'their.norm' is mapped to 3; want npgemma's name of a"),
    (["compare", "wrong.safetensors", "--pack", PACK, "--recipe", "float64"], 1, "the pack is of bf16-hf-eager"),
    (["compare", "wrong.safetensors", "--junit", "x.json"], 1, "--junit writes .xml, and 'x.json' ends otherwise"),
    (["compare", "wrong.safetensors", "--html", "x.xml"], 1, "--html writes .html, and 'x.xml' ends otherwise"),
    (["faults"], 1, "want the name of one fault, or --all, or --list"),
    (["faults", "gelu-erf", "--all"], 1, "want the name of one fault, or --all, or --list"),
    (["faults", "gelu-erf"], 1, "-o is missing: where to write the tensors to"),
    (["faults", "gelu-er", "-o", "x.npz"], 1, "'gelu-er' is no fault; npgemma faults --list names "),
    (["vectors", "--op", "gelu", "--variant", "gpt", "-o", "new"], 1, "variant 'gpt'; want one of paligemma"),
    (["explain", "a.png", "cat", "-o", "page.txt"], 1, "--output page.txt: want a name that ends in .html"),
    (["explain", "--no-image", "cat", "--compare", "a.png"], 1, "--compare: the first run has no picture"),
    (["explain", "--no-image", "--ids", "2", "--compare-prompt", "cat"], 1, "the first run has ids in the place of a"),
    (["generate", "a.png", "cat", "--min-confidence", "1.5"], 1, "--min-confidence: came as 1.5; want 0 to 1"),
    (["generate", "a.png", "cat", "--do-sample", "--temperature", "0"], 1, "--do-sample draws, and a temperature of 0"),
    (["generate", "a.png", "cat", "--prompt", "a dog"], 1, "'cat' and --prompt 'a dog' are both prompts; leave one"),
    (["trace", "a.png", "a.png", "cat", "--backward", "x", "--map", "x.png"], 1, "--map draws one picture"),
    (["names", "nothing"], 1, "'nothing' fits none of"),
    (["names", "--variant", "gpt"], 1, "want one of paligemma"),
    (["plan", "nowhere"], 1, "no folder 'nowhere' here"),
    (["plan", "llava"], 2, "model_type='llava' is not PaliGemma"),
    (["plan", "nan"], 2, "has the number NaN"),
    (["doctor", "nowhere/at/all"], 1, "there is no folder 'nowhere/at/all'"),
    (["doctor", "a.png"], 1, "is a file; want the folder that holds config.json"),
]


@pytest.mark.parametrize("words, code, message", WORDS)
def test_a_bad_word_is_one_line_and_its_exit_code(folder, monkeypatch, capsys, words, code, message):
    monkeypatch.setattr(options, "load", lambda *args, **kwargs: wordy_model())
    before = sorted(os.listdir(folder))
    model = ["--model", "some"] if words[0] in ("generate", "score", "trace", "step") else []
    found = cli.main([*words, *model])
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert (found, message in last) == (code, True), (found, last)
    assert all(line.startswith("npgemma: ") for line in err.splitlines()) and "\x1b" not in err + out
    assert len(last) < 1000 and sorted(os.listdir(folder)) == before
    assert (folder / "there.png").read_bytes() == (folder / "there.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize("name, message", [("llava", "not PaliGemma"), ("nan", "NaN"), ("deep", "nested too deeply")])
def test_the_doctor_reports_a_broken_configuration(folder, capsys, name, message):
    assert cli.main(["doctor", name]) == 2
    assert message in capsys.readouterr().out
