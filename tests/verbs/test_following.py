"""How far each verb says it is: from the beginning to nearly the end, never back, and without touching the run."""

import io
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import npgemma
from npgemma import cli
from npgemma.base.progress import Progress
from npgemma.checkpoints.loading import TINY
from npgemma.judge.play import play
from npgemma.verbs import faults
from npgemma.verbs.following import following

GOLDEN = Path(__file__).parents[2] / "golden"
PICTURES = [str(TINY / "pictures" / name) for name in ("1-word.png", "2-overlap.png")]


@pytest.fixture(scope="module")
def model():
    return npgemma.load()


@pytest.fixture
def told(monkeypatch):
    """All that every progress was told, by its label."""
    found = {}
    monkeypatch.setattr(Progress, "__call__", lambda self, done, total: found.setdefault(self.label, []).append(
        done / total))
    return found


def test_a_run_that_is_followed_has_the_same_bits(model):
    wanted = npgemma.generate(model, PICTURES[0], "caption en")
    found = npgemma.generate(following(model, lambda done, total: None, 70, 1), PICTURES[0], "caption en")
    assert (found.ids, found.logprobs) == (wanted.ids, wanted.logprobs)


def test_the_whole_prompt_is_counted_once(model):
    parts = []
    answer = npgemma.generate(
        following(model, lambda done, total: parts.append(done / total), 70, 1), PICTURES[0], "caption en",
        on_token=lambda token: parts.append("token"),
    )
    before, after = parts[: parts.index("token")], parts[parts.index("token") :]
    assert before == sorted(before) and before[0] == 0.0 and 0.9 < before[-1] < 1.0
    assert after == ["token"] * len(answer.ids)  # what streams is not spoken over


def test_a_matrix_counts_by_its_numbers_and_its_rows(model):
    parts = []
    npgemma.forward(following(model, lambda done, total: parts.append(done / total), 70, 1), np.array(
        [npgemma.generate(model, PICTURES[0], "caption en", max_new_tokens=1).prompt_ids]),
        np.zeros((1, 1, 64, 64, 3), np.float32))
    w = model.weights.arrays
    tower, decoder = (sum(x.size for name, x in w.items() if name.startswith(part) and x.ndim == 2 and "embedded" not in
                      name and "positions" not in name) for part in ("vision", "text"))
    share = 64 * tower / (64 * tower + 64 * w["connector.out.weight"].size + 70 * decoder)
    seen = [part for part in parts if part <= share + 1e-9]
    assert seen[-1] == pytest.approx(share, abs=1e-3)


# Whatever can take longer than two seconds at full size: its words, and what it says of each part of its work.
LONG = {
    "load": ("generate --max-tokens 1", ["loading the model"]),
    "generate": ("generate", ["reading the picture and the prompt"]),
    "beams": ("generate --beams 2", ["answering, in the longest case"]),
    "json": ("generate --json", ["answering, in the longest case"]),
    "draws": ("generate --temp 1 -n 2", ["answering, in the longest case"]),
    "batch": ("generate --batch q.jsonl --batch-size 1", ["answering"]),
    "score": (f"score {PICTURES[0]} x yes no", ["reading the picture, the prompt and the answers"]),
    "trace": ("trace --only text.norm", ["computing"]),
    "trace into a file": ("trace --quiet -o t.safetensors", ["computing"]),
    "trace of an answer": ("trace --max-tokens 3 --quiet", ["computing"]),
    "two precisions": ("trace --against float64 --only text.norm", ["computing"]),
    "gradients": ("trace --backward cat --quiet --only text.norm", ["going forth and back"]),
    "explain": ("explain -o r.html --max-tokens 1", ["looking at the tensors"]),
    "finetune": ("finetune l.jsonl -o learnt --steps 1 --batch 2 --micro 1 --held-out 0 --on text.blocks.0.*",
                 ["looking at the examples", "learning", "writing what was learnt"]),
    "evaluate": ("evaluate a.jsonl", ["scoring"]),
    "doctor": ("doctor", ["reading the weights"]),
    "pack": ("pack --tier residual -o another", ["computing and writing"]),
    "compare": (f"compare made.safetensors {PICTURES[0]}", ["comparing"]),
    "compare with a pack": (f"compare made.safetensors --pack {GOLDEN / 'pack-1'}", ["reading the pack", "comparing"]),
    "feed": ("feed text.blocks.3.attn_norm -o f.npz", ["computing"]),
    "inject": (f"inject behind.safetensors {PICTURES[0]} --at text.blocks.1.out", ["going on from theirs"]),
    "faults": ("faults none -o n.safetensors", ["computing"]),
    "vectors": ("vectors --op gelu --box -o ops", ["computing"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("work")
    (place / "q.jsonl").write_text("".join(json.dumps({"image": each, "prompt": "ocr"}) + "\n" for each in PICTURES))
    (place / "l.jsonl").write_text(
        "".join(json.dumps({"image": each, "prefix": "ocr", "suffix": "a"}) + "\n" for each in PICTURES))
    (place / "a.jsonl").write_text('{"text": "a", "answer": "a"}\n')
    for name, only in (("made", "vision.patches"), ("behind", "text.blocks.1.out,text.logits")):
        file = str(place / f"{name}.safetensors")
        assert cli.main(["trace", PICTURES[0], "caption en", "--only", only, "--quiet", "-o", file]) == 0
    return place


@pytest.mark.parametrize("case", LONG)
def test_every_verb_says_how_far_it_is(folder, monkeypatch, told, capsys, case):
    monkeypatch.chdir(folder)
    words, labels = LONG[case]
    # A port's tensors, evaluated one by one, take long even in the box: those of the tower are enough.
    monkeypatch.setattr(faults, "play", lambda *args: itertools.islice(play(*args), 90))
    assert cli.main(words.split()) in (0, 3, 4)
    for label in labels:
        parts = told[label]
        if label in ("computing and writing", "comparing"):  # and then hashes
            parts = parts[: next((n for n in range(1, len(parts)) if parts[n] < parts[n - 1]), len(parts))]
        assert parts == sorted(parts) and parts[-1] <= 1, (label, parts)
        assert parts[0] < 0.2 or label == "looking at the examples", (label, parts)
        early = label.startswith("answering, in") or label == "writing what was learnt" or case == "faults"
        assert parts[-1] >= (0.0 if early else 0.45), (label, parts[-1])


def test_lines_that_were_asked_for_reach_a_pipe(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("npgemma.base.progress.LINE_PAUSE", -1.0)
    assert cli.main(["doctor", "--progress"]) == 0
    assert "npgemma: reading the weights: " in capsys.readouterr().err
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().err == ""


def test_on_a_terminal_lines_and_progress_do_not_share_a_row(folder, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.delenv("TERM", raising=False)
    monkeypatch.setattr("npgemma.base.progress.PAUSE", -1.0)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    assert cli.main(["trace", "--only", "text.blocks.*.out"]) == 0
    rows = [row.split("\r")[-1] for row in screen.getvalue().split("\n") if "text.blocks" in row]
    assert len(rows) == 12 and all(row.startswith("text.blocks.") for row in rows)
