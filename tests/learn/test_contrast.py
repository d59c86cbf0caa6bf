"""SigLIP's and CLIP's losses against PyTorch; chunks; far scores; a toy of two towers that learns to match."""

import math

import numpy as np
import pytest
from golden_learning import LEARNING, equals_prints

import golden
from npgemma.learn import contrast
from npgemma.learn.optimisers import Learner

bell = golden.golden_inputs.bell


def by_sigmoid(images, texts, log_scale, bias, chunk=1024):
    """The loss of vectors of any length, and all gradients."""
    pairs = contrast.normalise(images), contrast.normalise(texts)
    loss, d_images, d_texts, *scalars = contrast.sigmoid_loss(*pairs, log_scale, bias, chunk)
    d = contrast.normalise_backward(d_images, images), contrast.normalise_backward(d_texts, texts)
    return loss, d, scalars


@pytest.mark.parametrize("chunk", [1, 3, 1024])
@pytest.mark.parametrize(("case", "scale"), [("sigmoid_loss", 10.0), ("sigmoid_loss_far", 1e4)])
def test_sigmoid_loss_equals_pytorch(case, scale, chunk):
    loss, gradients, scalars = by_sigmoid(bell(1, (7, 5)), bell(2, (7, 5)), math.log(scale), -10.0, chunk)
    assert loss == pytest.approx(LEARNING[case]["loss"], rel=1e-12)
    equals_prints(LEARNING[case]["gradients"], *gradients)
    assert scalars == pytest.approx(LEARNING[case]["scalars"], rel=1e-12)


@pytest.mark.parametrize(("case", "scale"), [("softmax_loss", 1 / 0.07), ("softmax_loss_clamped", 1e4)])
def test_softmax_loss_equals_pytorch(case, scale):
    images, texts = bell(3, (6, 5)), bell(4, (6, 5))
    loss, d_images, d_texts, d_scale = contrast.softmax_loss(
        contrast.normalise(images), contrast.normalise(texts), math.log(scale)
    )
    assert loss == pytest.approx(LEARNING[case]["loss"], rel=1e-12)
    d = contrast.normalise_backward(d_images, images), contrast.normalise_backward(d_texts, texts)
    equals_prints(LEARNING[case]["gradients"], *d)
    assert d_scale == pytest.approx(LEARNING[case]["scalars"][0], rel=1e-12)


def test_the_clamp_of_the_scale_has_gradient_zero():
    pairs = contrast.normalise(bell(3, (6, 5))), contrast.normalise(bell(4, (6, 5)))
    assert contrast.softmax_loss(*pairs, math.log(101.0))[3] == 0.0
    assert contrast.softmax_loss(*pairs, math.log(99.0))[3] != 0.0
    assert contrast.softmax_loss(*pairs, 50.0)[0] == contrast.softmax_loss(*pairs, math.log(100.0) + 1)[0]


@pytest.mark.parametrize("z", [1e4, -1e4])
def test_far_scores_are_finite(z):
    """The naive log(sigmoid(-1e4)) is -inf."""
    assert contrast.log_sigmoid(np.array([z])).tolist() == [min(z, 0.0)]
    assert contrast.sigmoid(np.array([z])).tolist() == [float(z > 0)]
    images = contrast.normalise(bell(1, (4, 3)))
    assert math.isfinite(contrast.sigmoid_loss(images, -images, math.log(1e4), z)[0])
    assert math.isfinite(contrast.softmax_loss(1e2 * images, -1e2 * images, math.log(1e4))[0])


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_two_towers_learn_to_match(kind):
    """Pictures and texts are two unknown linear views of the same eight things; held-out things must match too."""
    rng = np.random.default_rng(0)
    eye, word = rng.normal(size=(6, 12)), rng.normal(size=(6, 9))
    learner = Learner({"eye": rng.normal(size=(12, 8)) * 0.1, "word": rng.normal(size=(9, 8)) * 0.1,
                       "scale": np.array(math.log(10.0)), "bias": np.array(-10.0)})
    for _ in range(150):
        things = rng.normal(size=(32, 6))
        loss, gradients = towers(kind, learner.weights, things @ eye, things @ word)
        learner.learn(gradients, 0.03)
    things = rng.normal(size=(64, 6))
    images = contrast.normalise(things @ eye @ learner.weights["eye"])
    texts = contrast.normalise(things @ word @ learner.weights["word"])
    assert np.mean(np.argmax(images @ texts.T, axis=1) == np.arange(64)) > 0.9


def towers(kind, w, pictures, words):
    images, texts = pictures @ w["eye"], words @ w["word"]
    pairs = contrast.normalise(images), contrast.normalise(texts)
    if kind == "sigmoid":
        loss, d_images, d_texts, *scalars = contrast.sigmoid_loss(*pairs, w["scale"], w["bias"])
    else:
        loss, d_images, d_texts, *scalars = contrast.softmax_loss(*pairs, w["scale"])
    gradients = {"eye": pictures.T @ contrast.normalise_backward(d_images, images),
                 "word": words.T @ contrast.normalise_backward(d_texts, texts)}
    return loss, gradients | dict(zip(("scale", "bias"), map(np.array, scalars)))
