"""The numbers of the page's tables, each against a whole trace of the same question."""

import math
from dataclasses import replace

import numpy as np
import pytest
from expected import rms, softmax
from expected_choosing import pieces, second, second_answer
from expected_reading import entering, gain
from explained import facts

import npgemma
from npgemma.explaining.choosing import since_when
from npgemma.explaining.comparing import distances, tensors


def best_of(row, count):
    """The ids of the largest numbers, the smaller id first where two are alike."""
    return sorted(range(len(row)), key=lambda id: (-row[id], id))[:count]


def only(probs, kept):
    """What is left where only some may be chosen."""
    left = np.where(np.isin(np.arange(len(probs)), kept), probs, 0.0)
    return left / left.sum()


def near(cell, wanted, digits):
    """A percentage in a cell is right to its last digit; ``out`` is nothing at all."""
    if cell == "out" or not wanted:
        return cell == "out" and not wanted
    return abs(float(cell.rstrip("%")) - 100 * wanted) < 0.501 * 10**-digits and cell.endswith("%")


@pytest.mark.parametrize("case", ["caption", "boxes", "gemma 2"])
def test_tables_of_choices_hold_the_probabilities_of_the_logits(case):
    f = facts(case)
    for step, row in zip(f.panels["choice"].steps, f.steps("text.logits"), strict=True):
        probs, best = softmax(row), best_of(row, 8)
        fewest = next(count for count in range(1, len(row)) if sum(np.sort(probs)[-count:]) >= 0.9)
        ways = [probs, softmax(np.asarray(row, float) / 0.5), softmax(np.asarray(row, float) / 2),
                only(probs, best_of(row, 3)), only(probs, best_of(row, fewest))]
        assert [cells[0] for cells in step["rows"]] == pieces(f, best)
        for id, cells in zip(best, step["rows"], strict=True):
            assert float(cells[1]) == pytest.approx(row[id], abs=0.00501)
            assert all(near(cell, way[id], 2) for cell, way in zip(cells[2:], ways, strict=True)), cells
        assert step["head"][3:] == ["temperature 0.5", "temperature 2", "top-k 3", "top-p 0.9"]


@pytest.mark.parametrize("case", ["caption", "gemma 2"])
def test_the_lens_holds_what_each_block_would_say(case):
    f = facts(case)
    weight, table = (np.asarray(f.model.weights[f"text.{name}.weight"], float) for name in ("norm", "embedded"))
    cap, eps = f.cfg.text.final_softcap, f.cfg.text.norm_eps
    for number, step in enumerate(f.panels["lens"].steps):
        for n, cells in enumerate(step["rows"]):
            out = f.steps(f"text.blocks.{n}.out")[number].astype(float)
            probs = softmax(cap * np.tanh(table @ (out / math.sqrt(rms(out) ** 2 + eps) * (1 + weight)) / cap))
            best = best_of(probs, 3)
            assert cells[0] == f"block {n}"
            assert [cell.rpartition("  ")[0] for cell in cells[1:]] == pieces(f, best)
            assert all(near(cell.rpartition("  ")[2], probs[id], 0) for cell, id in zip(cells[1:], best, strict=True))


@pytest.mark.parametrize("guesses, block", [("abaa", 2), ("aaaa", 0), ("abca", 3), ("bcaa", 2)])
def test_a_token_is_settled_where_it_stays(guesses, block):
    assert since_when(list(guesses)) == block


def test_the_three_norms_stand_beside_each_other():
    f = facts("caption")
    x = entering(f).astype(np.float64)
    last, eps = x[-1], f.cfg.text.norm_eps
    for place, row in enumerate(f.panels["norms"].table["rows"]):
        plain = last[place] / math.sqrt(np.mean(last**2) + eps)
        layer = (last[place] - last.mean()) / math.sqrt(last.var() + eps)
        batch = (last[place] - x[:, place].mean()) / math.sqrt(x[:, place].var() + eps)
        wanted = [last[place], plain, plain * (1 + gain(f)[place]), layer, batch]
        assert row == [str(place), *(f"{number:.3f}" for number in wanted)]


@pytest.mark.parametrize("case", ["caption", "boxes", "words"])
def test_the_token_table_is_the_prompt(case):
    f = facts(case)
    patches = 64 * bool(f.picture)
    first, *rows = f.panels["tokens"].table["rows"] if patches else [None, *f.panels["tokens"].table["rows"]]
    assert not patches or first == ["0-63", "<image> × 64", str(f.cfg.image_token_id), "image", "1-64"]
    wanted = list(range(patches, len(f.ids)))
    assert [row[0] for row in rows] == [str(place) for place in wanted]
    assert [row[1] for row in rows] == pieces(f, f.ids[patches:])
    assert [row[2] for row in rows] == [str(id) for id in f.ids[patches:]]
    assert [row[4] for row in rows] == [str(place + 1) for place in wanted]


def test_two_answers_stand_beside_each_other_with_their_probabilities():
    f = facts("compared")
    other = second_answer(str(f.picture), second(f)[0])
    rows = f.panels["compare-answers"].table["rows"]
    assert [row[0] for row in rows] == [str(n) for n in range(max(len(f.answer.ids), len(other.ids)))]
    for column, answer in ((1, f.answer), (2, other)):
        cells = [row[column] for row in rows if row[column]]
        assert [cell.rpartition("  ")[0] for cell in cells] == pieces(f, answer.ids)
        assert all(near(cell.rpartition("  ")[2], math.exp(logprob), 0)
                   for cell, logprob in zip(cells, answer.logprobs, strict=True))


def test_places_are_listed_with_their_edges_and_how_sure_they_are():
    f = facts("boxes")
    found, _ = npgemma.locate(f.model, f.answer, str(f.picture))
    rows = f.panels["places"].table["rows"]
    assert [row[0] for row in rows] == [place.box.label for place in found]
    for row, place in zip(rows, found, strict=True):
        assert [float(cell) for cell in row[1:5]] == pytest.approx(place.box.corners, abs=0.501)
        assert near(row[5], place.confidence, 1)


def test_distances_are_those_of_two_traces():
    f, rows = facts("compared"), dict(facts("compared").panels["compare-tensors"].table["rows"])
    other = second(f)[1]
    assert not [name for name in rows if name.startswith("vision")]  # one picture, seen twice
    assert len(f.ids) != other["ids"].size
    assert rows["ids"] == rows["text.spliced"] == "another length"
    for name, cell in rows.items():
        if f.whole[name].shape == other[name].shape and f.whole[name].dtype.kind == "f":
            x, y = f.whole[name].astype(float), other[name].astype(float)
            assert float(cell) == pytest.approx(np.sqrt(np.sum((x - y) ** 2) / np.sum(x**2)), rel=1e-2)


def test_a_distance_is_the_size_of_the_difference_over_that_of_the_first():
    run = facts("caption").run
    ones, twos = ({"pixels": np.full(4, value), "ids": np.array([2, 5, value])} for value in (1.0, 2.0))
    first, other = (replace(run, arrays={**each, "ids": each["ids"].astype(int)}) for each in (ones, twos))
    assert distances(first, other) == {"pixels": 1.0, "ids": 1.0}
    assert distances(other, first) == {"pixels": 0.5, "ids": 1.0}


def test_a_last_bit_parts_two_tensors():
    run = facts("caption").run
    moved = np.nextafter(run["vision.norm"], np.float32(np.inf))
    other = replace(run, arrays={**run.arrays, "vision.norm": moved})
    told, parted = tensors(run, other).text
    assert told.numbers["same"] == told.numbers["count"] - 1 and parted.numbers["first"] == "vision.norm"


def test_a_run_beside_itself_parts_nowhere():
    panel = facts("same").panels["compare-tensors"]
    assert panel.table["rows"] == [] and len(panel.text) == 1
