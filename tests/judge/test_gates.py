"""The gates: what each lets pass and what it stops; and the judge's table of five wrong accumulators on seven sets."""

import functools
import tracemalloc

import numpy as np
import pytest

from npgemma.judge import accumulators, datasets, gates

LENGTHS = (32, 72, 256, 588)


@functools.cache
def factors(name, length, seed):
    """A set's factors, their exact product, and the product of their sizes."""
    x, weight = datasets.factors(name, length, seed)
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    return x, weight, exact, np.abs(x).astype(np.float64) @ np.abs(weight).T.astype(np.float64)


def judged(accumulate, name, length, seed=0):
    """The dot-product gate's verdict of one accumulator on one set."""
    x, weight, exact, magnitude = factors(name, length, seed)
    product = gates.Product(length, one_sided=name in datasets.ONE_SIDED)
    return gates.dot(accumulate(x, weight), exact, magnitude, product)


def test_five_wrong_accumulators_are_caught_on_each_of_seven_sets():
    caught = {
        fault: [name for name in datasets.SETS if not judged(accumulate, name, 2048).passed]
        for fault, accumulate in accumulators.FAULTY.items()
    }
    print("\n".join(f"{fault:22} {len(sets)}/{len(datasets.SETS)}" for fault, sets in caught.items()))
    assert sum(len(sets) for sets in caught.values()) == 35, caught
    for name, accumulate in accumulators.CORRECT.items():
        assert all(judged(accumulate, each, 2048).passed for each in datasets.SETS), name


def test_correct_orders_of_summation_raise_no_alarm_in_a_thousand_comparisons():
    verdicts = [
        (name, length, order, seed, judged(accumulate, name, length, seed))
        for length in LENGTHS
        for name in datasets.SETS
        for order, accumulate in accumulators.CORRECT.items()
        for seed in range(8)
    ]
    assert len(verdicts) >= 1000
    assert [each for each in verdicts if not each[-1].passed] == []


@pytest.mark.parametrize("fault", ["split-k in bfloat16", "rounded early"])
def test_only_the_sums_of_errors_see_what_is_rounded_too_early(fault):
    """The largest error stays under the limit of each element; without the two sums the fault would pass."""
    verdict = judged(accumulators.FAULTY[fault], "gaussian", 2048)
    assert verdict.figures["worst"] < verdict.figures["limit"]
    assert not verdict.passed


def test_pieces_that_threads_share_are_summed_as_one(monkeypatch):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 25))
    theirs, emulated = (truth + 1e-3 * rng.normal(size=truth.shape) for _ in range(2))
    theirs[3, 4] = emulated[3, 4]
    real = rng.random(truth.shape) < 0.8
    monkeypatch.setattr(gates, "PIECE", 64)
    error, own, size, equal, count = gates.sums(theirs, truth, emulated, real)
    wanted = [np.linalg.norm(each[real]) for each in (theirs - truth, emulated - truth, truth)]
    np.testing.assert_allclose([error, own, size], wanted, rtol=1e-12)
    assert (equal, count) == (int(real[3, 4]), int(real.sum()))
    assert all(gates.sums(theirs, truth, emulated, real)[0] == error for _ in range(50))


def test_a_large_tensor_is_judged_a_piece_at_a_time():
    """Beside the tensors themselves, which may be mapped, no more memory than a few pieces in float64."""
    theirs = np.ones((8, 1 << 20), np.float32)
    ours, real = theirs.copy(), np.broadcast_to(True, theirs.shape)
    given_back = []
    tracemalloc.start()
    assert gates.alone(theirs, ours, 1e-5, real, lambda: given_back.append(1)).passed
    assert gates.dual_delta(theirs, ours, ours, real=real).passed
    assert tracemalloc.get_traced_memory()[1] < 5 * gates.PIECE * 8 < theirs.nbytes
    tracemalloc.stop()
    assert len(given_back) == theirs.size // gates.PIECE // gates.STRETCH


def test_counted_roundings_and_limits_are_those_of_the_method():
    assert gates.Product(2048).free == 2048
    assert gates.Product(2048, stored="bfloat16").free == 8  # 2048 / 2**8
    assert gates.Product(16384, stored="bfloat16", bias=True).free == 65


def test_a_sum_of_zero_products_must_be_zero():
    zero = np.zeros((32, 32))
    assert gates.dot(zero, zero, zero, gates.Product(8)).passed
    assert not gates.dot(zero + 1e-30, zero, zero, gates.Product(8)).passed


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_passes_no_gate(spoilt):
    golden = np.linspace(1.0, 2.0, 2000)
    theirs = golden.copy()
    theirs[17] = spoilt
    assert np.argwhere(gates.specials(theirs, golden)).tolist() == [[17]]
    assert not gates.noise(theirs, golden - 1e-3, golden + 1e-3).passed
    assert not gates.dual_delta(theirs, golden, golden + 1e-7).passed
    assert not gates.dot(theirs, golden, golden, gates.Product(8)).passed


def test_infinities_match_in_sign_and_a_nan_equals_nothing():
    golden = np.array([np.inf, -np.inf, np.nan, 1.0])
    assert gates.specials(np.array([np.inf, -np.inf, 0.0, 1.0]), golden).tolist() == [False, False, True, False]
    assert gates.specials(np.array([-np.inf, np.inf, np.nan, 1.0]), golden).tolist() == [True, True, True, False]


def test_form_is_judged_before_values():
    x = np.zeros((2, 3), np.float32)
    assert gates.form(x, (2, 3), "float") == ""
    assert gates.form(x, (3, 2), "float") == "shape (2, 3), want (3, 2)"
    assert gates.form(x.astype(int), (2, 3), "float") == "dtype int64, want float numbers"


def test_share_of_bits_and_ratio_of_errors_have_their_bounds():
    golden = np.linspace(1.0, 2.0, 10_000)
    theirs = golden.copy()
    theirs[:10] += 1e-9
    assert gates.bits(theirs, golden, 0.999).passed
    theirs[:11] += 1e-9
    assert not gates.bits(theirs, golden, 0.999).passed
    assert gates.dual_delta(golden + 2e-7, golden, golden + 1e-7).passed
    assert not gates.dual_delta(golden + 2.1e-7, golden, golden + 1e-7).passed
    assert gates.dual_delta(golden, golden, golden).figures["ratio"] == 0.0
