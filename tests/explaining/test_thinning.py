"""What is kept of a run whose picture has more patches than the page shows, and the bound that is said beforehand."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from random_models import PALIGEMMA_2, random_model

import npgemma
from npgemma.base.errors import InputError
from npgemma.base.weights import Weights
from npgemma.config import VARIANTS
from npgemma.explaining.attending import attention_matrix
from npgemma.explaining.page import engine, page, panels
from npgemma.explaining.run import observed, prepared
from npgemma.explaining.thinning import spread
from npgemma.generation.requests import Request
from npgemma.paligemma import Model

# Twenty patches a side, four of them a square: ten squares a side.
VISION = replace(PALIGEMMA_2.vision, image_size=80)
CFG = replace(PALIGEMMA_2, vision=VISION, text=replace(PALIGEMMA_2.text, max_positions=512))
WORDS = 4


@functools.cache
def large():
    model = random_model(CFG, "float32")
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 80, 80, 3)).astype(np.float32)
    ids = [CFG.image_token_id] * 400 + [2, 5, 7, 9]
    kept = prepared(model, Request(ids=ids, pixels=pixels), 4)
    return kept, observed(kept), npgemma.trace(model, ids=ids, pixels=pixels, max_new_tokens=4)


def square(number):
    """The patches of a square, counted by hand: two rows of two."""
    first = number // 10 * 2 * 20 + number % 10 * 2
    return [first, first + 1, first + 20, first + 21]


def test_a_square_stands_for_its_patches():
    kept, run, whole = large()
    assert (kept.thinning.side, kept.thinning.step, kept.thinning.squares) == (20, 2, 10)
    for name in (f"{run.opened}.attn.probs", f"vision.blocks.{kept.seeing[0]}.attn.probs"):
        ours, theirs = run[name][0, :, 0], whole[name][0, :, 0]
        assert ours.shape == (2, 100, 100)
        for asks, asked in [(0, 0), (37, 62), (99, 98)]:
            wanted = theirs[:, square(asks)[0], square(asked)].sum(axis=-1)
            assert ours[:, asks, asked] == pytest.approx(wanted, rel=1e-5)


def test_weights_still_add_up_to_one():
    _, run, _ = large()
    for name, x in run.arrays.items():
        if name.endswith("probs"):
            assert x.sum(axis=-1) == pytest.approx(np.ones(x.shape[:-1]), rel=1e-4), name


def test_words_stay_words():
    kept, run, whole = large()
    assert run["ids"][0].tolist() == [CFG.image_token_id] * 100 + [2, 5, 7, 9]
    assert np.array_equal(run["text.spliced"][0, 100:], whole["text.spliced"][0, 400:])
    n = kept.reading[-1]
    matrix = attention_matrix(run, n)
    theirs = whole[f"step.1.text.blocks.{n}.attn.probs"].reshape(6, -1)
    assert len(run.answer.ids) == 4
    assert matrix[:, 105, 100:106] == pytest.approx(theirs[:, 400:406], rel=1e-6)
    assert matrix[:, 105, 41] == pytest.approx(theirs[:, square(41)].sum(axis=-1), rel=1e-5)


def test_no_more_is_kept_than_was_said():
    kept, run, whole = large()
    said = sum(array.nbytes for array in run.arrays.values())
    assert said <= kept.nbytes < 1.1 * said
    assert kept.largest == max(whole[name].nbytes for name in run.arrays)


def test_the_page_says_what_a_square_is_and_has_all_panels():
    _, run, _ = large()
    shown = panels(run)
    assert "stands for 2 × 2 of them" in " ".join(page(run, shown, engine()).split())
    assert len(shown) == 20


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_released_models_keep_less_than_a_gigabyte(variant):
    cfg = VARIANTS[variant]
    R, P = cfg.vision.image_size, cfg.vision.num_patches
    ids = [cfg.image_token_id] * P + [2, 100, 101, 108]
    kept = prepared(Model(cfg, Weights({})), Request(ids=ids, pixels=np.zeros((1, R, R, 3), np.float32)), 24)
    assert kept.nbytes < 1e9
    assert kept.seeing[0] == kept.reading[0] == 0


def test_blocks_are_spread_from_the_first_to_the_last():
    assert spread(4, 4, 92) == (0, 1, 2, 3)
    assert spread(18, 8, 284) == (0, 6, 11, 17)
    assert spread(46, 32, 4000) == (0,)


def test_what_no_page_can_show_is_refused():
    model = random_model(PALIGEMMA_2, "float32")
    with pytest.raises(InputError, match="300 tokens of text; a page shows at most 256"):
        prepared(random_model(CFG), Request(ids=[2] * 300), 4)
    with pytest.raises(InputError, match="max_new_tokens"):
        prepared(model, Request(ids=[2, 5]), 65)
    pixels = np.zeros((2, 9, 9, 3), np.float32)
    with pytest.raises(InputError, match="2 pictures; a page explains what is done with one"):
        prepared(model, Request(ids=[40] * 8 + [2, 5], pixels=pixels), 4)
