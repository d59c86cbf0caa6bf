"""--device: what a command says on the pretended card is what it says on the host; mistakes are one line."""

import io
import json
import re
import sys

import numpy as np
import pytest
from fake_device import CudaError, DeviceArray, planted
from lessons import write_lessons
from safetensors.numpy import load_file, save_file

from npgemma import cli
from npgemma.base import products
from npgemma.checkpoints.loading import TINY

PICTURE = str(TINY / "pictures" / "1-word.png")
QUESTION = [PICTURE, "caption en"]
QUICK = ["--steps", "2", "--batch", "2", "--held-out", "1", "--every", "1", "--rate", "0.01"]


@pytest.fixture(autouse=True)
def plain_products(monkeypatch):
    """Host and card multiply in one order, so that what they print can be equal."""
    monkeypatch.setattr(products, "linear", lambda x, weight, linear=products.linear: (
        products.linear_plain(x, weight) if isinstance(weight, np.ndarray) else linear(x, weight)))


def said(capsys, *words):
    """Exit code and what was said, without the seconds that it took."""
    code = cli.main(list(map(str, words)))
    found = capsys.readouterr()
    return code, re.sub(r"\d+(\.\d+)?(e-\d+)? s\b|\"seconds\": {[^}]*}|saved about.*", "T", found.out), found.err


def on_both(capsys, *words):
    """Run a command on the host and on the pretended card; gives what both said."""
    host = said(capsys, *words)
    with planted() as traffic:
        card = said(capsys, *words, "--device", "cuda")
        assert traffic.up > 100, "nothing went to the card"
    assert card[:2] == host[:2], card[2]
    return host


def test_generate_says_the_same(capsys):
    assert on_both(capsys, "generate", *QUESTION)[0] == 0
    assert on_both(capsys, "generate", *QUESTION, "--json", "--beams", "2", "--max-tokens", "4")[0] == 0
    drawn = ["generate", PICTURE, "detect circle", "--boxes-only", "--temperature", "0.8", "--seed", "4"]
    assert on_both(capsys, *drawn, "--max-tokens", "6")[0] == 0


def test_generate_from_a_file_and_its_profile(capsys, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(
        json.dumps({"image": PICTURE, "prompt": prompt}) + "\n" for prompt in ("ocr", "caption de")
    ))
    code, out, err = on_both(capsys, "generate", "--batch", questions, "--max-tokens", "4")
    assert code == 0 and len(out.splitlines()) == 2
    with planted():
        code, out, err = said(capsys, "generate", *QUESTION, "--max-tokens", "2", "--profile", "--device", "cuda:0")
    assert code == 0 and "text.blocks.*.attn.q" in err


def test_score_says_the_same(capsys):
    assert on_both(capsys, "score", *QUESTION, "a red circle", "a dog")[0] == 0


def test_trace_says_the_same(capsys, tmp_path):
    only = ["--only", "text.blocks.0.*,text.logits"]
    assert on_both(capsys, "trace", *QUESTION, *only, "--json")[0] == 0
    assert on_both(capsys, "trace", *QUESTION, *only, "--precision", "bf16-hf-eager", "--against", "float64")[0] == 0
    gradients = ["trace", *QUESTION, "--backward", "a red circle", "--only", "pixels,text.norm.weight"]
    code, out, _ = said(capsys, *gradients)
    with planted():
        assert said(capsys, *gradients, "--device", "cuda")[:2] == (code, out) and "grad pixels" in out
    out = tmp_path / "out.safetensors"
    assert on_both(capsys, "trace", *QUESTION, "--only", "text.blocks.0.out", "-o", out, "--force", "--quiet")[0] == 0
    save_file({"text.blocks.0.out": 0.5 * load_file(out)["text.blocks.0.out"]}, tmp_path / "half.safetensors")
    replace = ["--replace", f"text.blocks.0.out={tmp_path / 'half.safetensors'}", "--only", "text.blocks.1.out"]
    assert on_both(capsys, "trace", *QUESTION, *replace)[0] == 0


def test_a_breakpoint_is_asked_of_the_cards_array(capsys, monkeypatch):
    from npgemma.show import breaking

    stopped = []
    monkeypatch.setattr(breaking, "stop_in", lambda frame: stopped.append(frame.f_locals.get("q")))
    with planted():
        code, out, _ = said(capsys, "trace", *QUESTION, "--break", "text.blocks.0.attn.scores", "--device", "cuda")
    assert code == 0 and len(stopped) == 1 and isinstance(stopped[0], DeviceArray)


def test_a_walk_shows_the_cards_tensors(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("n text.blocks.0.out\np\nl\nq\n"))
    with planted():
        code, out, err = said(capsys, "step", *QUESTION, "--device", "cuda")
    assert code in (0, 130) and "the model would say now" in out + err, err


def test_compare_judges_on_the_host_what_the_card_computed(capsys, tmp_path):
    theirs = tmp_path / "theirs.safetensors"
    only = ["--only", "text.blocks.0.mlp.*,text.blocks.0.mlp_norm"]
    assert said(capsys, "trace", *QUESTION, *only, "-o", theirs, "--quiet")[0] == 0
    wrong = {name: array.copy() for name, array in load_file(theirs).items()}
    wrong["text.blocks.0.mlp.gate"][0, 3] *= -1.0
    save_file(wrong, theirs)
    code, out, _ = on_both(capsys, "compare", theirs, *QUESTION)
    assert code == 3 and "text.blocks.0.mlp.gate" in out


def test_finetune_learns_the_same(capsys, tmp_path):
    data, learnt = write_lessons(tmp_path), []
    for more in (["--lora", "2"], ["--on", "text.blocks.0.*"]):
        for device in ("cpu", "cuda"):
            out = tmp_path / f"{device}{more[0]}"
            with planted():
                code, lines, err = said(capsys, "finetune", data, "-o", out, *QUICK, *more, "--device", device)
            assert code == 0, err
            [file] = [file for file in out.iterdir() if file.name in ("adapter_model.safetensors", "model.safetensors")]
            learnt.append(load_file(file))
        host, card = learnt[-2:]
        for name, array in host.items():
            np.testing.assert_allclose(card[name], array, atol=1e-5, err_msg=name)


def test_a_folder_that_a_card_learnt_goes_on_where_it_stopped(capsys, tmp_path):
    data, whole, parts = write_lessons(tmp_path), tmp_path / "whole", tmp_path / "parts"
    with planted():
        assert said(capsys, "finetune", data, "-o", whole, *QUICK, "--lora", "2", "--device", "cuda")[0] == 0
        from npgemma.learn import finetune

        def stops_after_one(*args):
            *before, _, progress = args
            return real(*before, lambda: True, progress)

        real = finetune.finetune
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("npgemma.verbs.finetune.finetune", stops_after_one)
            said(capsys, "finetune", data, "-o", parts, *QUICK, "--lora", "2", "--device", "cuda")
        assert said(capsys, "finetune", data, "-o", parts, *QUICK, "--lora", "2", "--device", "cuda")[0] == 0
    once, twice = (load_file(folder / "adapter_model.safetensors") for folder in (whole, parts))
    assert all(np.array_equal(once[name], twice[name]) for name in once)


def mistake(capsys, *words):
    """What a command that cannot be done says: one line behind the note on the model in the box."""
    code, out, err = said(capsys, "generate", *QUESTION, *words)
    assert code == 1 and not out
    return err.splitlines()[-1]


def test_mistakes_are_one_line_each(capsys, monkeypatch):
    assert "--device: came as 'gpu'; want cpu, cuda, or cuda:N" in mistake(capsys, "--device", "gpu")
    with planted(cards=1):
        assert "this machine has cuda:0" in mistake(capsys, "--device", "cuda:1")
    with planted(problem="cudaErrorNoDevice: no CUDA-capable device is detected"):
        assert "'nvidia-smi' lists the card" in mistake(capsys, "--device", "cuda")
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert "pip install 'npgemma[cuda12]'" in mistake(capsys, "--device", "cuda")


def test_a_card_without_room_is_refused_before_anything_is_copied(capsys):
    with planted(memory=100_000) as traffic:
        said = mistake(capsys, "--device", "cuda")
        assert traffic.up == 1  # the two ones that the card is tried with
    assert re.search(r"float32 needs 0\.0\d+ GB on cuda:0, \S+ GB are free there; no mode fits", said)


def test_a_card_that_is_full_on_the_way_is_one_line(capsys, monkeypatch):
    from npgemma.checkpoints import checkpoint

    monkeypatch.setattr(checkpoint, "check_card", lambda *_: None)
    with planted(memory=100_000):
        assert "the card's memory is full (Out of memory allocating" in mistake(capsys, "--device", "cuda")


def test_a_card_that_fails_on_the_way_is_one_line(capsys, monkeypatch):
    def fails(*_):
        raise CudaError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    monkeypatch.setattr("npgemma.generation.loop.fetch", fails)
    with planted():
        assert "the card failed (cudaErrorIllegalAddress" in mistake(capsys, "--device", "cuda")
