"""Every weight's gradient against PyTorch's autograd through transformers, float64, every kind of batch."""

import numpy as np
import pytest
from golden_gradients import CASES, KINDS, batch_of, differences

import golden
from npgemma.backward.tape import Sums
from npgemma.learn.losses import IGNORED
from npgemma.learn.teaching import gradients_of, teach


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_weights_gradient_equals_pytorchs(name, kind):
    assert not differences(name, kind)


def test_goldens_cover_ten_kinds_both_generations_and_an_image_id_in_a_suffix():
    assert len(KINDS["tiny-1"]) == 10 and len(KINDS["tiny-2"]) == 11
    batch = batch_of("tiny-2", "image_id_in_suffix")
    suffix = batch.token_types == 1
    assert np.any(batch.ids[suffix] == golden.model("tiny-2", "float64").config.image_token_id)
    assert all(batch_of(*case).count for case in CASES)


def test_whole_logits_give_the_gradients_of_labelled_rows_alone():
    model, batch = golden.model("tiny-2", "float64"), batch_of("tiny-2", "suffix")
    sums = Sums(model.weights.arrays)
    teach(model, batch, sums, 1 / batch.count)
    whole = gradients_of(model, batch)
    for name, d_weight in whole.weights.items():
        np.testing.assert_allclose(sums[name], d_weight, rtol=0, atol=1e-15 * max(1.0, np.abs(d_weight).max()))
    assert not whole.tensors["text.logits"][batch.labels == IGNORED].any()
