"""Each equation backwards against the complex step, float64, and its pitfalls in float32."""

import numpy as np
import pytest
from differences import complex_step

from npgemma import ops as forward
from npgemma import rotary as forward_rotary
from npgemma.backward import ops, rotary
from npgemma.backward.tape import Product, Rows
from npgemma.base import half, products, threads
from npgemma.base.precision import unrounded

rng = np.random.default_rng(5)
X, W, B = rng.normal(size=(2, 3, 7)), rng.normal(size=(5, 7)), rng.normal(size=(5,))
GAIN, SHIFT = rng.normal(size=(7,)), rng.normal(size=(7,))
IDS = np.array([[1, 4, 1], [9, 0, 4]])
TABLE = rng.normal(size=(6, 7))
ANGLES = rng.normal(size=(2, 2, 3, 3))
TURNED = rng.normal(size=(2, 3, 4, 6))
PROBS, VALUES = rng.normal(size=(2, 3, 4, 5, 6)), rng.normal(size=(2, 3, 1, 6, 7))
PIXELS = rng.normal(size=(2, 9, 9, 3))
SOFT, PLACES = rng.normal(size=(2, 1, 7)), np.array([[0, 1, 0], [0, 0, 1]], dtype=bool)


def capped_slope(d_y, x):
    return ops.soft_cap(d_y, forward.soft_cap(x, 1.5, unrounded), 1.5)


def softmax_slope(d_p, x):
    return ops.softmax(d_p, forward.softmax(x))


# Name: forward of its array arguments, backward of (d_y, *arguments), the arguments.
EQUATIONS = {
    "linear": (forward.linear, lambda d, x, w, b: (*ops.linear(d, x, w), ops.over_rows(d)), (X, W, B)),
    "embed": (lambda t: forward.embed(IDS, t), lambda d, t: ops.embed(d, IDS, t), (TABLE,)),
    "layer_norm": (
        lambda *a: forward.layer_norm(*a, 0.1), lambda d, *a: ops.layer_norm(d, *a, 0.1), (X, GAIN, SHIFT)
    ),
    "rms_norm": (lambda *a: forward.rms_norm(*a, 0.1), lambda d, *a: ops.rms_norm(d, *a, 0.1), (X, GAIN)),
    "gelu": (forward.gelu, ops.gelu, (3.0 * X,)),
    "soft_cap": (lambda x: forward.soft_cap(x, 1.5, unrounded), capped_slope, (X,)),
    "softmax": (forward.softmax, softmax_slope, (X,)),
    "patchify": (lambda p: forward.patchify(p, 4), lambda d, p: ops.patchify(d, p, 4), (PIXELS,)),
    "splice": (
        lambda e, s: forward.splice(e, s, PLACES), lambda d, e, s: ops.splice(d, s, PLACES), (X, SOFT)
    ),
    "rotate": (
        lambda x: forward_rotary.rotate(x, ANGLES[0], ANGLES[1], unrounded),
        lambda d, x: rotary.rotate(d, ANGLES[0], ANGLES[1]), (TURNED,),
    ),
    "split_heads": (lambda x: forward.split_heads(x, 2), lambda d, x: ops.split_heads(d), (TURNED[..., 0],)),
    "group_heads": (lambda x: forward.group_heads(x, 2), lambda d, x: ops.group_heads(d), (TURNED,)),
    "merge_heads": (forward.merge_heads, lambda d, x: ops.merge_heads(d, x.shape), (PROBS,)),
    "product": (lambda a, b: a @ b, ops.product, (PROBS, VALUES)),
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_gradient_equals_the_complex_step(name):
    function, backward, arguments = EQUATIONS[name]
    d_y = rng.normal(size=function(*arguments).shape)
    gradients = backward(d_y, *arguments)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    assert len(gradients) == len(arguments)
    for place, (x, d_x) in enumerate(zip(arguments, gradients, strict=True)):
        d_x = d_x.whole() if hasattr(d_x, "whole") else d_x
        assert d_x.shape == x.shape
        direction = rng.normal(size=x.shape)

        def along(moved, place=place):
            others = [each + 0j for each in arguments]
            return function(*others[:place], moved, *others[place + 1 :])

        slope = np.sum(d_y * complex_step(along, x, direction))
        # The sum of sizes bounds what rounding can do.
        scale = np.sum(np.abs(d_x * direction))
        assert abs(np.sum(d_x * direction) - slope) <= 1e-13 * scale


@pytest.mark.parametrize("name", sorted(set(EQUATIONS) - {"splice", "embed"}))
def test_the_forward_equation_stays_complex(name):
    """A step that drops the imaginary part would make every complex step 0, and this file prove nothing."""
    function, _, arguments = EQUATIONS[name]
    assert np.iscomplexobj(function(*(each + 0j for each in arguments)))


@pytest.mark.parametrize("norm", ["rms_norm", "layer_norm"])
def test_norms_of_a_transposed_product_are_summed_in_order(norm):
    """NumPy sums the last axis of a transposed product number by number: 3e-5 off in float32 at the real width."""
    narrow = rng.normal(loc=3.0, size=(4096, 64)).astype(np.float32).T
    d_y, gain = rng.normal(size=(64, 4096)).astype(np.float32), np.ones(4096, dtype=np.float32)
    rest = (gain, gain, 1e-6) if norm == "layer_norm" else (gain, 1e-6)
    found = getattr(ops, norm)(d_y, narrow, *rest)[0]
    in_order = getattr(ops, norm)(d_y, np.ascontiguousarray(narrow), *rest)[0]
    assert not narrow.flags.c_contiguous
    assert np.array_equal(found, in_order)


def test_gelu_has_a_slope_however_far_out():
    far = np.array([[-1e30, -1e19, -200.0, 200.0, 1e19, 1e30]], dtype=np.float32)
    assert ops.gelu(np.ones_like(far), far).tolist() == [[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]


def test_softmax_gradient_rows_sum_to_zero_and_masked_keys_get_exactly_zero():
    scores = np.where(X > -1.0, X, -3.4e38)
    d_x = ops.softmax(rng.normal(size=X.shape), forward.softmax(scores))
    assert np.all(d_x[scores < -1e38] == 0.0) and np.any(scores < -1e38)
    np.testing.assert_allclose(d_x.sum(axis=-1), 0.0, atol=1e-15)


def test_rms_norm_gradient_is_orthogonal_to_x_without_eps():
    d_x, _ = ops.rms_norm(rng.normal(size=X.shape), X, GAIN, 0.0)
    np.testing.assert_allclose(np.sum(d_x * X, axis=-1), 0.0, atol=1e-14)


def test_a_stored_matrix_is_widened_by_blocks_on_the_way_back(monkeypatch):
    bits = (rng.normal(size=(10, 7)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    d_y = rng.normal(size=(3, 10)).astype(np.float32)
    expected = d_y @ half.widen(bits)
    sizes = []
    monkeypatch.setattr(ops, "BLOCK", 21)
    monkeypatch.setattr(ops.half, "widen", lambda part, widen=half.widen: sizes.append(part.size) or widen(part))
    np.testing.assert_allclose(ops.linear(d_y, X[0].astype(np.float32), bits)[0], expected, rtol=1e-5, atol=1e-6)
    assert sizes == [21, 21, 21, 7]


@pytest.mark.parametrize("kind", ["floats", "bfloat16", "wide"])
def test_columns_of_a_matrix_shared_among_threads_give_the_whole_product(monkeypatch, kind):
    bits = (rng.normal(size=(10, 37)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    exact = half.widen(bits).astype(np.float64)
    kinds = {"floats": (exact, np.float64), "bfloat16": (bits, np.float32), "wide": (half.Wide(bits), np.float64)}
    weight, dtype = kinds[kind]
    d_y, taken = rng.normal(size=(3, 10)).astype(dtype), []
    share = threads.share
    monkeypatch.setattr(threads, "blas_threads", lambda: 1)
    monkeypatch.setattr(products, "ALONE", 0)
    monkeypatch.setattr(products, "ROWS_OF_BLOCK", 3)
    monkeypatch.setattr(ops, "BLOCK", 21)
    monkeypatch.setattr(threads, "share", lambda *given: taken.append(given[:2]) or share(*given))
    found = ops.linear(d_y, np.ones((3, 37), dtype), weight)[0]
    assert found.dtype == dtype and taken[0][0] == 37 and taken[0][1] < 37
    np.testing.assert_allclose(found, d_y @ exact, rtol=1e-5 if dtype is np.float32 else 1e-13, atol=1e-6)


def test_a_product_nobody_wants_is_never_multiplied():
    class Untouchable:
        shape = (3, 7)

        def reshape(self, *_):
            return self

    _, d_weight = ops.linear(np.ones((3, 5)), Untouchable(), W)
    assert isinstance(d_weight, Product)


def test_a_row_that_is_looked_up_twice_gets_both():
    d_rows = np.arange(6.0).reshape(3, 2)
    assert Rows(np.array([2, 0, 2]), d_rows, 4).whole().tolist() == [[2, 3], [0, 0], [4, 6], [0, 0]]
