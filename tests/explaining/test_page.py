"""The page as text: all panels, nothing from elsewhere, nothing that a prompt could run."""

import base64
import functools
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from expected_choosing import pieces
from explained import CASES, facts, written

from npgemma import cli

VOID = {"meta", "link", "img", "br", "input"}


class Reader(HTMLParser):
    """Collects what a test wants to know of a page, and that its elements close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.scripts, self.addresses, self.sections, self.text = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append([given.get("type", ""), ""])
        if tag == "section":
            self.sections.append(given["id"])
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name in given), given

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1] += data
        else:
            self.text.append(data)


@functools.cache
def read(case):
    return Reader(written(case))


@pytest.mark.parametrize("case", CASES)
def test_all_panels_stand_in_order_and_all_elements_are_closed(case):
    found = read(case)
    assert found.sections == list(facts(case).panels)
    assert len(found.sections) == {"words": 14, "compared": 22, "same": 22}.get(case, 20)
    assert not found.open


@pytest.mark.parametrize("case", CASES)
def test_nothing_comes_from_elsewhere(case):
    found = read(case)
    assert all(address.startswith(("data:", "#")) for address in found.addresses)
    text = written(case)
    assert not re.findall(r"https?://|url\(|@import", text)


def test_only_its_own_script_may_run():
    found, text = read("caption"), written("caption")
    [script] = [body for kind, body in found.scripts if kind == ""]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text


def test_a_prompt_of_a_script_stays_text():
    found = read("words")
    assert sum(kind == "" for kind, _ in found.scripts) == 1
    assert "caption <script>alert(1)</script>" in found.text


def test_every_sentence_and_line_of_code_is_on_the_page():
    text = "".join(read("boxes").text)
    for panel in facts("boxes").panels.values():
        for sentence in panel.sentences():
            assert str(sentence) in text
        for code in panel.code:
            assert all(line in text for _, line in code.lines)
        assert panel.paper in text


def test_the_script_is_given_the_weights_of_every_head():
    f, found = facts("caption"), read("caption")
    tower, decoder = [json.loads(body) for kind, body in found.scripts if kind == "application/json"]
    T, steps = len(f.ids), len(f.answer.ids) - 1
    assert (tower["size"], tower["heads"], decoder["size"], decoder["heads"]) == (64, 6, T + steps, 4)
    weights = np.frombuffer(base64.b64decode(decoder["weights"]["3"]), "<u2").reshape(4, T + steps, T + steps) / 65535
    whole = f.whole["text.blocks.3.attn.probs"].reshape(4, T, T)
    assert weights[:, :T, :T] == pytest.approx(whole, abs=1e-5)
    row = f.whole["step.2.text.blocks.3.attn.probs"].reshape(4, -1)
    assert weights[:, T + 2, : T + 3] == pytest.approx(row, abs=1e-5)
    assert decoder["tokens"][1]["text"] == "'caption'"
    assert [token["place"] for token in decoder["tokens"]] == list(range(64, T + steps))
    assert [token["text"] for token in decoder["tokens"]] == pieces(f, [*f.ids[64:], *f.answer.ids[:-1]])
    assert [token["answer"] for token in decoder["tokens"]] == [False] * (T - 64) + [True] * steps
    seen = np.frombuffer(base64.b64decode(tower["weights"]["1"]), "<u2").reshape(6, 64, 64) / 65535
    assert seen == pytest.approx(f.whole["vision.blocks.1.attn.probs"][0, :, 0], abs=1e-5)
    assert decoder["patches"] == tower["patches"] == list(range(64))


def test_the_command_writes_a_small_page_and_replaces_none(tmp_path, capsys):
    target = tmp_path / "r.html"
    assert cli.main(["explain", "-o", str(target)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{target}  ") and "keeps at most" in err
    assert 100_000 < target.stat().st_size <= 5_000_000
    before = target.read_bytes()
    assert str(tmp_path) not in before.decode() and "1-word.png" in before.decode()
    assert cli.main(["explain", "-o", str(target)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert target.read_bytes() == before


def test_another_suffix_is_refused(tmp_path, capsys):
    assert cli.main(["explain", "-o", str(tmp_path / "r.pdf")]) == 1
    assert "want a name that ends in .html" in capsys.readouterr().err


def test_without_jinja2_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert cli.main(["explain", "-o", str(tmp_path / "r.html")]) == 1
    assert capsys.readouterr().err == (
        "npgemma: the page needs jinja2, which is not installed: pip install 'npgemma[explain]'\n"
    )


def test_the_command_compares_with_another_picture_or_prompt(tmp_path, capsys):
    target, other = tmp_path / "r.html", facts("boxes").picture
    words = ["explain", str(facts("caption").picture), "caption en", "-o", str(target), "--max-tokens", "4"]
    assert cli.main([*words, "--compare", str(other), "--compare-prompt", "ocr"]) == 0
    text = "".join(Reader(target.read_text()).text)
    assert "The second run, with the same model, was “ocr”" in text
    assert "The picture of the second run." in text and "pixels" in text
    assert cli.main(["explain", "--no-image", "x", "--compare", str(other), "-o", str(tmp_path / "s.html")]) == 1
    assert "--compare: the first run has no picture" in capsys.readouterr().err
    assert cli.main(["explain", "--ids", "2,5", "--compare-prompt", "x", "-o", str(tmp_path / "s.html")]) == 1
    assert "--compare-prompt: the first run has ids" in capsys.readouterr().err
