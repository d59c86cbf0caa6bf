"""npgemma score: the likeliest first."""

import json

import numpy as np
import pytest
from generation_models import golden_answers, saying, wordy_model
from PIL import Image

from npgemma import cli
from npgemma.verbs import options
from npgemma.verbs.score import shares_of


@pytest.fixture
def picture(tmp_path, monkeypatch):
    path = tmp_path / "cat.png"
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    monkeypatch.setattr(options, "load", lambda *args, **kwargs: saying("cat"))
    return str(path)


def run(capsys, *words):
    code = cli.main(["score", *words, "--model", "some"])
    return code, *capsys.readouterr()


def test_a_ranking_is_printed_the_likeliest_first(picture, capsys):
    code, out, err = run(capsys, picture, "caption en", "a dog", "cat", "bird")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split() == ["total", "mean", "share", "tokens", "answer"]
    assert lines[1].split()[-1] == "cat"
    assert len(lines) == 5 and lines[4].startswith("loss: ")


def test_json_holds_every_logprob_and_both_losses(picture, capsys):
    _, out, _ = run(capsys, picture, "caption en", "a dog", "cat", "--json")
    found = json.loads(out)
    assert [each["answer"] for each in found["answers"]] == ["cat", "a dog"]
    for each in found["answers"]:
        assert each["total"] == pytest.approx(sum(each["logprobs"]))
        assert each["mean"] == pytest.approx(each["total"] / len(each["ids"]))
    assert sum(each["share"] for each in found["answers"]) == pytest.approx(1)
    tokens = [logprob for each in found["answers"] for logprob in each["logprobs"]]
    assert found["loss"]["hf"] == pytest.approx(-sum(tokens) / len(tokens))


def test_ranking_by_mean_favours_no_short_answer(picture, capsys, monkeypatch):
    monkeypatch.setattr(options, "load", lambda *args, **kwargs: wordy_model())
    words = ("cat", "a very long answer of many words")
    by = {
        key: json.loads(run(capsys, picture, "x", *words, "--json", "--by", key)[1])["answers"][0]["answer"]
        for key in ("total", "mean")
    }
    assert by["total"] == "cat"
    best = max(json.loads(run(capsys, picture, "x", *words, "--json")[1])["answers"], key=lambda each: each["mean"])
    assert by["mean"] == best["answer"]


def test_text_only_and_ids_shift_the_words(picture, capsys):
    _, out, _ = run(capsys, "--no-image", "a prompt", "cat", "dog", "--json")
    assert len(json.loads(out)["answers"]) == 2
    _, out, _ = run(capsys, "--no-image", "--ids", "2,30,40", "cat", "dog", "--json")
    found = json.loads(out)
    assert found["prompt_ids"] == [2, 30, 40]
    assert sorted(each["answer"] for each in found["answers"]) == ["cat", "dog"]


def test_no_answer_is_wrong_usage(picture, capsys):
    code, _, err = run(capsys, picture, "caption en")
    assert code == 1
    assert "no ANSWER was given" in err


def test_shares_of_far_apart_answers_do_not_overflow():
    assert shares_of([-2000.0, -1000.0, -1000.0]) == [0.0, 0.5, 0.5]


def test_goldens_hold_answers_of_different_length():
    assert sorted(map(len, golden_answers("gen-1")["scores"]["answers"])) == [1, 3, 3, 7]
