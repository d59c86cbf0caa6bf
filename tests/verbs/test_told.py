"""What the command says of its own accord: why an answer ends, what was written, what was not found."""

import json

import pytest
from generation_models import saying, wordy_model
from PIL import Image

from npgemma import cli
from npgemma.generation.answers import Answer, why_cut
from npgemma.verbs import options


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a verb with a model that says what it is to; gives code, output, errors."""
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)

    def of(model, *words):
        monkeypatch.setattr(options, "load", lambda *args, **kwargs: model)
        code = cli.main([*words, "--model", "some"])
        return code, *capsys.readouterr()

    return of


def test_an_answer_that_fills_the_context_is_told_no_way_to_go_on():
    cut = Answer("a cat", (7,) * 118, "length", prompt_ids=(2,) * 138)
    assert why_cut(cut, 256) == "the answer was cut after 118 tokens: with the 138 of the prompt they fill the " \
        "model's context of 256"
    assert why_cut(cut, 257).endswith("; --max-tokens lets it go on")


def test_a_file_that_was_written_is_named(run):
    code, _, err = run(saying("a cat"), "generate", "a.png", "x", "--draw", "found.png")
    assert code == 0 and err.splitlines()[-1] == "npgemma: note: written to found.png"
    code, _, err = run(wordy_model(), "faults", "gelu-erf", "a.png", "x", "-o", "wrong.npz")
    assert code == 0 and err.splitlines()[-1] == "npgemma: note: written to wrong.npz"


def test_boxes_without_masks_are_said_where_masks_were_asked_for(run):
    box = "<loc0100><loc0200><loc0300><loc0400>"
    said = "npgemma: note: the answer has no masks: boxes alone are drawn"
    for prompt, expected in (("segment cat", True), ("detect cat", False)):
        _, _, err = run(saying(f"{box} cat"), "generate", "a.png", prompt, "--draw", "found.png", "--force")
        assert (said in err.splitlines()) == expected


def test_lines_that_failed_are_told_by_file_line_and_reason(run, tmp_path):
    lines = [{"image": "a.png", "prompt": "x"}, {"image": "no.png", "prompt": "x"}, {"image": "no.png"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    code, _, err = run(saying("a cat"), "generate", "--batch", "q.jsonl")
    assert code == 1 and err.splitlines()[-1] == (
        "npgemma: q.jsonl: 2 of 3 lines could not be answered, the first is line 2: no.png: no such file; check the "
        "path; each says so in its 'error'")


def test_one_tensor_is_one_tensor(run):
    assert "note: 1 tensor, " in run(wordy_model(), "trace", "a.png", "x", "--only", "text.norm")[2]
    assert "note: 2 tensors, " in run(wordy_model(), "trace", "a.png", "x", "--only", "text.norm,ids")[2]
