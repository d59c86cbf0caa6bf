"""What a notebook shows of a trace, an answer and weights: small, all text escaped, nothing fetched, well-formed."""

import io
import re
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import npgemma
from npgemma.base.markup import MOST, table_of_arrays
from npgemma.base.weights import Weights
from npgemma.checkpoints.loading import TINY
from npgemma.generation.answers import Answer
from npgemma.words.locations import Box

PICTURE = TINY / "pictures" / "2-overlap.png"
SCRIPT = "<script>alert('&')</script>"


@pytest.fixture(scope="module")
def model():
    return npgemma.load()


def parsed(html):
    """The tree of a piece of HTML, which must be well-formed, and in which nothing may run or be fetched."""
    tree = ElementTree.fromstring(f"<div>{html.replace('<br>', '<br/>')}</div>")
    for element in tree.iter():
        assert element.tag.rpartition("}")[2] not in ("script", "link", "style", "iframe", "object")
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("href", "src") or value.startswith("data:image/"), value
    return tree


def text_of(tree):
    return " ".join(tree.itertext())


def test_a_trace_is_a_table_of_its_tensors_and_its_prompt_stays_text(model):
    kept = npgemma.trace(model, PICTURE, SCRIPT, only="text.blocks.0.attn.*")
    html = kept._repr_html_()
    tree = parsed(html)
    rows = [[cell.text for cell in row] for row in tree.iter("tr")][1:]
    assert [row[0] for row in rows] == list(kept)
    scores = kept["text.blocks.0.attn.scores"]
    shown = next(row for row in rows if row[0].endswith(".scores"))
    B, K, G, T, S = scores.shape
    assert shown[1:4] == [f"(B{B} K{K} G{G} T{T} S{S})", "float32", f"{scores.min():.4g} to {scores.max():.4g}"]
    assert SCRIPT in text_of(tree) and "<script" not in html
    assert len(html) < 20_000


def test_a_long_table_is_cut_and_says_so_and_what_is_not_finite_is_counted():
    arrays = {f"t{n}": np.array([1.0, np.nan, np.inf]) for n in range(MOST + 7)}
    tree = parsed(table_of_arrays("many", arrays, {}))
    assert len(list(tree.iter("tr"))) == MOST + 1
    assert "and 7 more" in text_of(tree) and "1 NaN, 1 infinite" in text_of(tree)


def test_an_answer_shows_its_boxes_where_they_are_on_the_picture(model):
    answer = npgemma.generate(model, PICTURE, "detect circle ; square")
    tree = parsed(answer._repr_html_())
    with Image.open(PICTURE) as file:
        picture = file.convert("RGB")
    [drawn] = [each for each in tree.iter() if each.tag.endswith("svg")]
    assert drawn.attrib["viewBox"] == f"0 0 {picture.width} {picture.height}"
    frames = [each.attrib for each in drawn if each.tag.endswith("rect")]
    corners = [(float(f["x"]), float(f["y"]), float(f["x"]) + float(f["width"]), float(f["y"]) + float(f["height"]))
               for f in frames]
    assert len(frames) == len(answer.boxes) == 2
    assert np.allclose(corners, [box.corners for box in answer.boxes], atol=0.11)
    assert [each.text for each in drawn if each.tag.endswith("text")] == [box.label for box in answer.boxes]
    [image] = [each for each in drawn if each.tag.endswith("image")]
    there = Image.open(io.BytesIO(b64decode(image.attrib["href"].partition(",")[2])))
    gap = np.asarray(there, float) - np.asarray(picture, float)
    assert there.size == picture.size and np.abs(gap).mean() < 8  # a JPEG of the same picture


def test_a_large_picture_becomes_a_small_one():
    noise = np.random.default_rng(3).integers(0, 256, (3000, 2000, 3), dtype=np.uint8)
    answer = Answer("x", (1,), "stop", boxes=(Box("x", (0.0, 0.0, 9.0, 9.0)),), picture=Image.fromarray(noise))
    html = answer._repr_html_()
    assert len(html) < 400_000 and 'viewBox="0 0 2000 3000"' in html


def test_an_answer_and_its_labels_stay_text():
    box = Box(SCRIPT, (1.0, 2.0, 3.0, 4.0))
    answer = Answer(SCRIPT, (5,), "stop", notes=(SCRIPT,), boxes=(box,), picture=Image.new("RGB", (8, 8)))
    html = replace(answer, others=(replace(answer, text="the second"),))._repr_html_()
    assert text_of(parsed(html)).count(SCRIPT) == 5  # the first's text, and twice a label and a note
    assert "the second" in html and "<script" not in html


def test_an_answer_without_boxes_or_without_text_has_no_picture(model):
    assert npgemma.generate(model, PICTURE, "caption en", max_new_tokens=1).picture is None
    html = Answer("", (7, 8), "length")._repr_html_()
    assert "svg" not in html and "7 8" in html


def test_weights_are_a_tree_and_those_of_a_block_a_row_each(model):
    whole = text_of(parsed(model.weights._repr_html_()))
    assert "blocks x 5" in whole and "1 array, 229,376 numbers" in whole
    attention = parsed(model.weights.at("text.blocks.0.attn")._repr_html_())
    names = [row[0].text for row in attention.iter("tr")][1:]
    assert names == ["q.weight", "k.weight", "v.weight", "out.weight"]
    assert f"(128 {model.config.text.width})" in text_of(attention)
    odd = Weights({SCRIPT: np.zeros(3)})._repr_html_()
    assert SCRIPT in text_of(parsed(odd)) and not re.search("<script", odd)
