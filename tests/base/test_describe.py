"""One line an array, held against values that a reader counts by eye."""

import math

import numpy as np
import pytest
from random_models import GENERATIONS, random_model

from npgemma.base import describe as describing
from npgemma.base.describe import bars, describe, line_of, summarise
from npgemma.base.errors import InputTypeError


def test_the_line_has_it_all():
    x = np.array([[3.0, -1.0, 0.0], [1.0, -3.0, 0.0]], dtype=np.float32)
    line = describe(x, "text.norm", "T D")
    assert line == (
        "text.norm  (T2 D3)  float32  24 B  [-3, 3]  mean 0 rms 1.83  |▄  ▄ █▄  ▄|  zero 2 nan 0 inf 0  first 3 -1 0 1"
    )


def test_what_is_not_finite_is_counted_and_left_out_of_the_rest():
    summary = summarise(np.array([np.nan, np.inf, -np.inf, np.inf, 2.0, 0.0]))
    assert (summary.nan, summary.inf, summary.zero) == (1, 3, 1)
    assert (summary.low, summary.high, summary.mean) == (0.0, 2.0, 1.0)
    assert summary.rms == math.sqrt(2.0)
    assert sum(summary.counts) == 2


@pytest.mark.parametrize("x", [np.array([np.nan]), np.zeros((0, 3)), np.array([np.inf, -np.inf])])
def test_without_finite_values_there_is_a_line_all_the_same(x):
    assert "[nan, nan]" in describe(x)


def test_huge_values_do_not_overflow_the_histogram():
    assert describe(np.array([1e308, -1e308])).count("█") == 2


def test_pieces_add_up(monkeypatch):
    x = np.random.default_rng(0).normal(size=1000)
    whole = summarise(x)
    monkeypatch.setattr(describing, "CHUNK", 7)
    pieces = summarise(x)
    assert (pieces.low, pieces.high, pieces.zero) == (whole.low, whole.high, whole.zero)
    assert math.isclose(pieces.mean, whole.mean, rel_tol=1e-12)
    assert math.isclose(pieces.rms, whole.rms, rel_tol=1e-12)


@pytest.mark.parametrize(
    "probs, entropy", [([[1.0, 0, 0, 0]], 0.0), ([[0.25] * 4], 2.0), ([[0.5, 0.5, 0, 0], [0.25] * 4], 1.5)]
)
def test_the_entropy_of_attention_is_in_bits(probs, entropy):
    line = describe(np.array(probs), "text.blocks.0.attn.probs")
    assert f"entropy {entropy:.2f} of 2.00 bits" in line
    assert "entropy" not in describe(np.array(probs), "text.norm")


def test_letters_stand_before_sizes():
    assert "(B1 T3 H/2=4)" in describe(np.zeros((1, 3, 4)), letters="B T H/2")
    assert "(I2 N2 1 P9 P9)" in describe(np.zeros((2, 2, 1, 9, 9)), letters="I N 1 P P")
    assert "(1 3 4)" in describe(np.zeros((1, 3, 4)), letters="B T")
    assert "()" in describe(np.float32(1.5))


def test_a_large_array_is_sampled_for_a_hover():
    line = describe(np.arange(100.0), most=10)
    assert line.endswith("(every 10th value)")
    assert "[0, 90]" in line
    assert "every" not in describe(np.arange(10.0), most=10)


def test_bfloat16_bits_are_shown_as_the_values_they_stand_for():
    line = describe(np.array([0x3F80, 0xC000], dtype=np.uint16))  # 1 and -2
    assert "bfloat16" in line and "[-2, 1]" in line


def test_booleans_and_integers():
    assert "mean 0.75" in describe(np.array([True, True, False, True]))
    assert "[2, 257152]" in describe(np.array([2, 257152]))


def test_arrays_of_another_device_are_brought_here():
    class OnDevice:
        shape = (2,)

        def get(self):
            return np.array([1.0, 2.0])

    assert "[1, 2]" in describe(OnDevice())


def test_bars_show_whatever_is_not_nothing():
    assert bars([0, 1, 1000]) == " ▁█"
    assert bars([]) == ""


def test_describing_writes_nothing_into_the_array():
    x = np.arange(6.0).reshape(2, 3)
    x.flags.writeable = False
    assert line_of(summarise(x))


def test_the_repr_of_weights_is_a_tree_with_counts_bytes_and_dtypes():
    weights = random_model(GENERATIONS["paligemma-2"], "float32").weights
    lines = repr(weights).splitlines()
    assert lines[0].startswith("Weights: 74 arrays, ")
    assert lines[1].startswith("  vision: 37 arrays, ")
    # q, k, v, out 144 + 12 each; two norms 24 each; MLP 168 + 14 and 168 + 12: 1,034 in each of two blocks
    assert "    blocks x 2: 32 arrays, 2,068 numbers, 0.01 MB, float32" in lines
    assert any(line.startswith("    embedded: 1 array, 430 numbers") for line in lines)  # 43 x 10
    assert repr(weights.at("text.blocks.1.attn")).splitlines()[1:] == [
        "  q: 1 array, 480 numbers, 0.00 MB, float32",  # 6 heads of 8, from 10
        "    weight: 1 array, 480 numbers, 0.00 MB, float32",
        "  k: 1 array, 160 numbers, 0.00 MB, float32",
        "    weight: 1 array, 160 numbers, 0.00 MB, float32",
        "  v: 1 array, 160 numbers, 0.00 MB, float32",
        "    weight: 1 array, 160 numbers, 0.00 MB, float32",
        "  out: 1 array, 480 numbers, 0.00 MB, float32",
        "    weight: 1 array, 480 numbers, 0.00 MB, float32",
    ]


@pytest.mark.parametrize("x", [np.array(["a"]), [object()], None, {"q": 1}])
def test_what_holds_no_numbers_is_refused(x):
    with pytest.raises(InputTypeError, match="came as .*; want an array of numbers"):
        describe(x)
