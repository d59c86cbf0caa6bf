"""Each verb with --device: the host's words and files on the pretended card; without a card one line from each."""

import io
import re
import sys

import numpy as np
import pytest
from fake_device import planted
from PIL import Image

import golden
from npgemma import cli
from npgemma.base import products
from npgemma.checkpoints.loading import TINY

# What each verb wants to hear: those that load a model, and those that do not.
LOADING = {
    "generate": "PICTURE ocr", "score": "PICTURE ocr dog", "trace": "PICTURE ocr", "step": "PICTURE ocr",
    "explain": "PICTURE ocr -o new.html", "compare": "mine.npz PICTURE ocr", "pack": "PICTURE ocr -o new",
    "feed": "text.norm PICTURE ocr -o new.npz", "inject": "mine.npz PICTURE ocr", "faults": "none PICTURE -o new.npz",
    "finetune": "lessons.jsonl -o new",
}
OTHERS = {
    "vectors": "--op gelu -o new", "evaluate": "answers.jsonl", "doctor": "", "names": "", "plan": "paligemma-3b-224",
}
PICTURE = str(TINY / "pictures" / "1-word.png")
FAULT = ["faults", "rms-norm-without-one", "-o"]


@pytest.fixture(autouse=True)
def plain_products(monkeypatch):
    """Host and card multiply in one order, so that what they write can be equal."""
    monkeypatch.setattr(products, "linear", lambda x, weight, linear=products.linear: (
        products.linear_plain(x, weight) if isinstance(weight, np.ndarray) else linear(x, weight)))
    monkeypatch.setattr(products, "even_parts", lambda F, at_most, multiple: F)  # on the way back, too


@pytest.fixture
def question(tmp_path, monkeypatch):
    """A small model and a question about a picture; a folder to write into is the current one."""
    monkeypatch.chdir(tmp_path)
    cfg = golden.model("tiny-2", "float32").config
    Image.fromarray((np.arange(12 * 9 * 3).reshape(12, 9, 3) % 251).astype(np.uint8)).save("cat.png")
    ids = [cfg.image_token_id] * cfg.vision.num_patches + [2, 5, 7, 9]
    return ["cat.png", "--model", str(golden.GOLDEN / "tiny-2"), "--ids", ",".join(map(str, ids))]


def said(capsys, *words, typed=""):
    """Exit code and what was said, without seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(typed))
        code = cli.main(list(map(str, words)))
    found = capsys.readouterr()
    return code, re.sub(r"\d+(\.\d+)? m?s\b", "T", found.out), found.err


def on_both(capsys, *words, **more):
    """Run a command on the host, where CuPy must not be imported, and on the pretended card; gives what it said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", None)
        host = said(capsys, *words, **more)
    with planted() as traffic:
        card = said(capsys, *(re.sub("^host", "card", word) for word in words), "--device", "cuda", **more)
        assert traffic.up > 50, "nothing went to the card"
    assert card[0] == host[0], card[2]
    assert card[1].replace("card", "host") == host[1]
    return host


def written(path):
    """Bytes of a file, or of all files of a folder, by name."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in files}


WRITING = {
    "explain": ["explain", "-o", "host.html"],
    "a pack with its sums": ["pack", "--select", "text.blocks.0.attn.*", "-o", "host"],
    "a raw pack of stored matrices": ["pack", "--tier", "residual", "--dtype", "bfloat16", "--raw", "-o", "host"],
    "what an attention reads": ["feed", "text.blocks.1.attn.scores", "-o", "host.safetensors"],
    "what a product reads": ["feed", "vision.blocks.0.attn.q", "--dtype", "bfloat16", "-o", "host"],
    "a fault with steps": ["faults", "cache-rolled", "--max-tokens", "2", "-o", "host.npz"],
    "a trace of steps": ["trace", "--max-tokens", "3", "-o", "host.safetensors"],
}


@pytest.mark.parametrize("what", WRITING)
def test_a_verb_that_writes_writes_the_same_bytes(what, question, capsys, tmp_path):
    verb, *more = WRITING[what]
    assert on_both(capsys, verb, *([more.pop(0)] if verb in ("feed", "faults") else []), *question, *more)[0] == 0
    name = more[-1]
    host, card = (written(tmp_path / re.sub("^host", where, name)) for where in ("host", "card"))
    assert host and list(host) == list(card)
    assert [each for each in host if host[each] != card[each]] == []


def test_an_injected_tensor_of_a_port_goes_on_on_the_card(question, capsys):
    assert said(capsys, *FAULT, "port.npz", *question)[0] == 0
    code, out, _ = on_both(capsys, "inject", "port.npz", *question, "--at", "text.blocks.0.attn.mixed", "--json")
    assert code == 3 and '"ratio"' in out
    assert said(capsys, "faults", "none", "-o", "right.npz", *question)[0] == 0
    code, out, _ = on_both(capsys, "inject", "right.npz", *question, "--at", "text.blocks.0.out")
    assert code == 0 and "everything behind is right" in out


def test_a_port_is_judged_against_a_pack(question, capsys):
    assert said(capsys, *FAULT, "port.npz", *question)[0] == 0
    assert said(capsys, "pack", "--select", "*.blocks.0.*", "-o", "golden", *question)[0] == 0
    model = question[1:3]
    code, out, _ = on_both(capsys, "compare", "port.npz", "--pack", "golden", *model)
    assert code == 3 and "vision.blocks" not in out.splitlines()[0]


def test_a_walk_shows_the_same_pages_and_values(question, capsys):
    typed = ["n vision.blocks.0.attn.scores", "p", "p np.abs(scores).max()", "p scores[0, 0]", "n mask.full", "m", "p",
             "n text.blocks.0.attn.probs", "m 3", "m 3 1", "m all", "t", "l", "back", "restart", "n text.logits", "p"]
    code, out, err = on_both(capsys, "step", *question, typed="\n".join([*typed, "q", ""]))
    assert code == 0 and "text.blocks.0.attn.probs" in out + err and "Error" not in out + err
    typed = ["n text.blocks.1.out", "p", "r 2.0 * d", "n text.blocks.0.out", "r d.clip(-1, 1)", "", "p d.max()"]
    code, out, err = on_both(capsys, "step", PICTURE, "ocr", "--backward", "dog", typed="\n".join([*typed, "q", ""]))
    assert code == 0 and "grad text.blocks.0.out" in out + err and "Error" not in out + err


def test_boxes_of_the_cards_answer_are_drawn(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask = ["generate", TINY / "pictures" / "2-overlap.png", "detect circle", "--codec", TINY / "codec.safetensors"]
    code, out, _ = on_both(capsys, *map(str, ask), "--draw", "host.png", "--max-tokens", "8")
    assert code == 0 and "circle" in out
    assert (tmp_path / "card.png").read_bytes() == (tmp_path / "host.png").read_bytes()


def refused(capsys, *words):
    """What a command says that has nothing to compute on: one line behind the note on the model in the box."""
    code, out, err = said(capsys, *words)
    *notes, line = err.splitlines()
    assert code == 1 and not out and len(notes) == 1 and "in the box" in notes[0]
    return line


@pytest.mark.parametrize("verb", LOADING)
def test_every_verb_that_loads_a_model_says_in_one_line_what_a_card_lacks(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", **{"text.norm": np.zeros((1, 68, 128), np.float32)})
    (tmp_path / "lessons.jsonl").write_text(f'{{"image": "{PICTURE}", "prompt": "ocr", "answer": "dog"}}\n' * 4)
    words = [verb, *LOADING[verb].replace("PICTURE", PICTURE).split(), "--device"]
    for device in ("rocm", "cuda:x"):
        assert refused(capsys, *words, device) == f"npgemma: --device: came as {device!r}; want cpu, cuda, or cuda:N"
    with planted(cards=2):
        assert "came as cuda:9; this machine has cuda:0, cuda:1" in refused(capsys, *words, "cuda:9")
    with planted(problem="cudaErrorInsufficientDriver: CUDA driver version is insufficient"):
        assert "install or update the driver until 'nvidia-smi' lists the card" in refused(capsys, *words, "cuda")
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install 'npgemma[cuda12]', or npgemma[cuda13]" in refused(capsys, *words, "cuda")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["lessons.jsonl", "mine.npz"]


@pytest.mark.parametrize("verb", OTHERS)
def test_a_verb_without_a_model_knows_no_device(verb, capsys):
    code, out, err = said(capsys, verb, *OTHERS[verb].split(), "--device=cuda")
    assert code == 1 and not out and err.startswith(f"npgemma {verb}: unknown arguments: --device=cuda")


def test_every_verb_stands_in_one_of_the_two_lists():
    assert sorted([*LOADING, *OTHERS]) == sorted(cli.VERBS)
