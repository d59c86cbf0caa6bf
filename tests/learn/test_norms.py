"""Batch norm against PyTorch and the complex step, and what makes it unlike the other norms."""

import numpy as np
import pytest
from differences import complex_step
from golden_learning import LEARNING, equals_prints

import golden
from npgemma import ops
from npgemma.learn import norms

bell = golden.golden_inputs.bell
WEIGHT, BIAS = bell(7, (6,)), bell(8, (6,))


def test_training_running_statistics_and_use_equal_pytorch():
    mean, variance = np.zeros(6), np.ones(6)
    for x in (bell(9, (8, 6), 2.0, 1.0), bell(10, (8, 6), 3.0)):
        y, *batch = norms.batch_norm(x, WEIGHT, BIAS, 0.1)
        mean, variance = norms.running(mean, variance, *batch, num_rows=8, momentum=0.3)
    np.testing.assert_allclose(y, LEARNING["batch_norm"]["y"], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(mean, LEARNING["batch_norm"]["mean"], rtol=1e-13)
    np.testing.assert_allclose(variance, LEARNING["batch_norm"]["variance"], rtol=1e-13)
    used = norms.batch_norm_after(bell(12, (8, 6)), WEIGHT, BIAS, mean, variance, 0.1)
    np.testing.assert_allclose(used, LEARNING["batch_norm"]["used"], rtol=1e-13, atol=1e-13)


def test_gradients_equal_pytorch():
    gradients = norms.batch_norm_backward(bell(11, (8, 6)), bell(10, (8, 6), 3.0), WEIGHT, 0.1)
    equals_prints(LEARNING["batch_norm"]["gradients"], *gradients, tolerance=1e-13)


def test_gradients_equal_the_complex_step():
    x, d_y, direction = bell(10, (8, 6)), bell(11, (8, 6)), bell(13, (8, 6))
    slope = np.sum(d_y * complex_step(lambda moved: norms.batch_norm(moved, WEIGHT, BIAS, 0.1)[0], x, direction))
    assert np.sum(norms.batch_norm_backward(d_y, x, WEIGHT, 0.1)[0] * direction) == pytest.approx(slope, rel=1e-13)


def test_it_is_layer_norm_along_the_other_axis():
    x = bell(10, (8, 6))
    ours = norms.batch_norm(x, np.ones(6), np.zeros(6), 0.1)[0]
    np.testing.assert_allclose(ours, ops.layer_norm(x.T, np.ones(8), np.zeros(8), 0.1).T, rtol=1e-13)


def test_a_rows_result_depends_on_the_other_rows_and_in_layer_norm_it_does_not():
    x, changed = bell(10, (8, 6)), bell(10, (8, 6))
    changed[7] += 5.0
    ours, other = (norms.batch_norm(each, WEIGHT, BIAS, 0.1)[0] for each in (x, changed))
    assert not np.allclose(ours[0], other[0])
    layer, other = (ops.layer_norm(each, WEIGHT, BIAS, 0.1) for each in (x, changed))
    assert np.array_equal(layer[0], other[0])
