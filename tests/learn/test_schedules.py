"""Rates, clipping, averages, freezing: literals that can be checked by eye."""

import numpy as np
import pytest

from npgemma.base.errors import InputError
from npgemma.learn import schedules


def test_rates_by_eye():
    assert [schedules.constant(step, 8, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert [schedules.linear(step, 8, 4) for step in range(9)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    down = [schedules.cosine(step, 8, 4) for step in range(4, 9)]
    assert down == pytest.approx([1.0, 0.5 + 0.5 * 2**-0.5, 0.5, 0.5 - 0.5 * 2**-0.5, 0.0])


def test_clipping_shortens_all_gradients_alike_and_only_where_they_are_too_long():
    d = {"a": np.array([3.0]), "b": np.array([4.0])}
    shorter, norm = schedules.clip(d, 1.0)
    assert norm == 5.0 and [float(x[0]) for x in shorter.values()] == pytest.approx([0.6, 0.8], rel=1e-6)
    same, _ = schedules.clip(d, 5.1)
    assert same["a"] is d["a"]


def test_averages_follow_slowly():
    averages = {"w": np.zeros(2)}
    for _ in range(2):
        averages = schedules.average(averages, {"w": np.ones(2)}, 0.5)
    assert averages["w"].tolist() == [0.75, 0.75]


def test_freezing_by_pattern():
    names = ["vision.norm.weight", "text.norm.weight", "text.blocks.0.attn.q.weight"]
    assert schedules.chosen(names, freeze="vision.*") == names[1:]
    assert schedules.chosen(names, "text.*", "*.norm.*") == names[2:]
    with pytest.raises(InputError, match="'vison.\\*' fits none of 3"):
        schedules.chosen(names, freeze="vison.*")
    with pytest.raises(InputError, match="leaves no weight to train"):
        schedules.chosen(names, freeze="*")
