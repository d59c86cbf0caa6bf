"""Cross-entropy over the answer: value and derivative, chunks, sure answers, nothing labelled."""

import numpy as np
import pytest
from golden_learning import LEARNING, equals_prints

import golden
from npgemma.base.errors import InputError
from npgemma.learn.losses import IGNORED, cross_entropy, cross_entropy_plain

bell = golden.golden_inputs.bell
X, TABLE = bell(5, (9, 11)), bell(6, (53, 11), 0.5)
LABELS = np.array([3, 0, IGNORED, 52, 17, 17, IGNORED, 8, 51])
COUNTED = LABELS != IGNORED


@pytest.mark.parametrize("chunk", [1, 7, 53, 8192])
def test_chunks_of_any_size_equal_pytorch(chunk):
    weights = np.full(7, 0.2)
    loss, d_counted, d_table = cross_entropy(X[COUNTED], TABLE, LABELS[COUNTED], weights, 2.0, chunk)
    d_x = np.zeros_like(X)
    d_x[COUNTED] = d_counted
    assert loss == pytest.approx(LEARNING["cross_entropy"]["loss"], rel=1e-14)
    equals_prints(LEARNING["cross_entropy"]["gradients"], d_x, d_table.whole())


def test_the_plain_form_equals_the_chunked_one():
    logits = 2.0 * np.tanh(X @ TABLE.T / 2.0)
    loss, d_logits = cross_entropy_plain(logits, LABELS, np.full(9, 0.2))
    chunked, d_x, d_table = cross_entropy(X[COUNTED], TABLE, LABELS[COUNTED], np.full(7, 0.2), 2.0, 10)
    d_product = d_logits * (1 - np.square(logits / 2.0))
    assert loss == pytest.approx(chunked, rel=1e-14)
    np.testing.assert_allclose((d_product @ TABLE)[COUNTED], d_x, atol=1e-15)
    np.testing.assert_allclose(d_product.T @ X, d_table.whole(), atol=1e-15)
    assert not d_logits[~COUNTED].any()


def test_a_sure_answer_keeps_all_digits_of_its_small_loss_and_gradient():
    """p - 1 cancels to a multiple of 2**-24 in float32; here the label stands 20 above two others."""
    logits = np.array([[20.0, 0.0, 0.0]], dtype=np.float32)
    loss, d_logits = cross_entropy_plain(logits, np.array([0]), np.ones(1))
    truth = 2 * np.exp(-20.0)
    assert loss == pytest.approx(truth, rel=1e-5, abs=0)
    assert d_logits[0].tolist() == pytest.approx([-truth, truth / 2, truth / 2], rel=1e-5, abs=0)
    x, table = np.array([[1.0]], dtype=np.float32), np.array([[20.0], [0.0], [0.0]], dtype=np.float32)
    loss, d_x, d_table = cross_entropy(x, table, np.array([0]), np.ones(1), None, chunk=2)
    assert loss == pytest.approx(truth, rel=1e-5, abs=0)
    assert d_table.whole()[:, 0].tolist() == pytest.approx([-truth, truth / 2, truth / 2], rel=1e-5, abs=0)
    assert d_x[0, 0] == pytest.approx(-20 * truth, rel=1e-5, abs=0)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_scores_far_out_stay_finite(size):
    logits = np.array([[size, 0.0, -size]])
    loss, d_logits = cross_entropy_plain(logits, np.array([1]), np.ones(1))
    assert loss == pytest.approx(1e4) and np.all(np.isfinite(d_logits))


def test_nothing_labelled_is_zero_and_not_nan():
    empty = np.zeros((0, 11)), TABLE, np.zeros(0, dtype=int), np.zeros(0)
    loss, d_x, d_table = cross_entropy(*empty, None)
    assert loss == 0.0 and d_x.shape == (0, 11) and not d_table.whole().any()
    loss, d_logits = cross_entropy_plain(np.ones((2, 3)), np.full(2, IGNORED), np.ones(2))
    assert loss == 0.0 and not d_logits.any()


@pytest.mark.parametrize("wrong", [-1, 53])
def test_a_label_outside_the_vocabulary_is_refused(wrong):
    with pytest.raises(InputError, match=f"labels: {wrong} is among them; want 0..52, or -100"):
        cross_entropy(X[:1], TABLE, np.array([wrong]), np.ones(1), None)


def test_whole_logits_never_exist():
    sizes = []

    class Table(np.ndarray):
        def __getitem__(self, rows):
            part = np.asarray(self)[rows]
            sizes.append(part.shape[0])
            return part

    cross_entropy(X, TABLE.view(Table), np.zeros(9, dtype=int), np.ones(9), 2.0, chunk=20)
    assert sizes == [20, 20, 13] * 2
