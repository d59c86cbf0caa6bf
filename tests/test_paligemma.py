import numpy as np
import pytest
from random_models import GENERATIONS, random_model, random_prompt

from npgemma import forward
from npgemma.base import inputs
from npgemma.base.cache import take_state
from npgemma.base.precision import PRECISIONS
from npgemma.base.weights import Weights
from npgemma.paligemma import prefill, see, splice, step

CLOSE = {"rtol": 0, "atol": 1e-13}
both_generations = pytest.mark.parametrize("cfg", GENERATIONS.values(), ids=GENERATIONS)


def traced(model, **prompt):
    seen = {}
    return forward(model, **prompt, observe=lambda name, x: seen.__setitem__(name, x)), seen


def read_prompt(model, prompt, length):
    """Prefill the first ``length`` positions of a prompt; gives logits and state."""
    cfg, w = model.config, model.weights
    ids, types = prompt["ids"][:, :length], prompt["token_types"][:, :length]
    soft = see(w, cfg, inputs.flat_pictures(prompt["pixels"], prompt["ids"], cfg))
    return prefill(w, cfg, ids, soft, types, np.ones_like(ids), inputs.slot_positions(ids, cfg))


@both_generations
@pytest.mark.parametrize("chunks", [[1, 1, 1], [3], [2, 1]])
def test_cached_steps_equal_one_long_call(cfg, chunks):
    model, prompt = random_model(cfg), random_prompt(cfg, num_suffix=3)
    whole = forward(model, **prompt)
    length = prompt["ids"].shape[1] - 3
    logits, state = read_prompt(model, prompt, length)
    pieces = [logits]
    for chunk in chunks:
        ids = prompt["ids"][:, length : length + chunk]
        positions = np.zeros_like(ids) + np.arange(length, length + chunk) + 1
        logits, state = step(model.weights, cfg, ids, positions, state)
        pieces.append(logits)
        length += chunk
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, **CLOSE)


@both_generations
def test_one_state_serves_two_continuations_and_stays_as_it_was(cfg):
    model, prompt = random_model(cfg), random_prompt(cfg)
    length = prompt["ids"].shape[1] - 2
    _, state = read_prompt(model, prompt, length)
    before = [past.keys.copy() for past in state.blocks]
    positions = np.full((2, 1), length + 1)
    first, _ = step(model.weights, cfg, np.array([[5], [6]]), positions, state)
    step(model.weights, cfg, np.array([[7], [8]]), positions, state)
    again, _ = step(model.weights, cfg, np.array([[5], [6]]), positions, state)
    assert np.array_equal(first, again)
    assert all(np.array_equal(past.keys, keys) for past, keys in zip(state.blocks, before, strict=True))


@both_generations
def test_a_row_of_a_step_has_the_same_bits_in_a_batch_of_1_2_4_and_8(cfg):
    model, prompt = random_model(cfg, "float32"), random_prompt(cfg, num_rows=8, num_suffix=0)
    length = prompt["ids"].shape[1]
    _, state = read_prompt(model, prompt, length)
    ids, positions = np.arange(5, 13)[:, None], np.full((8, 1), length + 1)
    alone = [step(model.weights, cfg, ids[[row]], positions[[row]], take_state(state, [row]))[0] for row in range(8)]
    for batch in (2, 4, 8):
        beside, _ = step(model.weights, cfg, ids[:batch], positions[:batch], take_state(state, range(batch)))
        assert np.array_equal(beside, np.concatenate(alone[:batch]))


@both_generations
def test_a_batch_equals_its_rows_one_at_a_time(cfg):
    model, prompt = random_model(cfg), random_prompt(cfg)
    whole = forward(model, **prompt)
    for row in range(2):
        single = forward(model, **{name: array[row : row + 1] for name, array in prompt.items()})
        np.testing.assert_allclose(whole[row : row + 1], single, **CLOSE)


def padded(prompt, left, right, filler):
    """The same prompt with padding ids on either side, and its attention mask and positions."""
    width = ((0, 0), (left, right))
    real = np.pad(np.ones_like(prompt["ids"]), width)
    return prompt | {
        "ids": np.pad(prompt["ids"], width, constant_values=filler),
        "token_types": np.pad(prompt["token_types"], width),
        "attention_mask": real,
        "positions": np.maximum(np.cumsum(real, axis=1), 1),
    }


@both_generations
@pytest.mark.parametrize(("left", "right"), [(3, 0), (0, 2), (1, 2)])
def test_padding_on_either_side_changes_nothing_whatever_it_holds(cfg, left, right):
    model, prompt = random_model(cfg), random_prompt(cfg)
    whole = forward(model, **prompt)
    for filler in (0, 17):
        logits = forward(model, **padded(prompt, left, right, filler))
        np.testing.assert_allclose(logits[:, left : logits.shape[1] - right], whole, **CLOSE)


@both_generations
def test_last_only_scores_each_rows_last_real_position(cfg):
    model, prompt = random_model(cfg), random_prompt(cfg)
    whole = forward(model, **prompt)
    last = forward(model, **padded(prompt, 1, 2, 0), last_only=True)
    np.testing.assert_allclose(last, whole[:, -1:], **CLOSE)


@both_generations
def test_the_suffix_is_causal_and_the_prefix_is_not(cfg):
    model, prompt = random_model(cfg), random_prompt(cfg)
    before = forward(model, **prompt)
    suffix, prefix = dict(prompt), dict(prompt)
    suffix["ids"], prefix["ids"] = prompt["ids"].copy(), prompt["ids"].copy()
    suffix["ids"][:, -1] += 1
    prefix["ids"][:, -3] += 1
    assert np.array_equal(forward(model, **suffix)[:, :-1], before[:, :-1])
    assert not np.allclose(forward(model, **prefix)[:, 0], before[:, 0])


@both_generations
def test_a_uniform_shift_of_positions_moves_rotated_keys_but_not_logits(cfg):
    model, prompt = random_model(cfg), random_prompt(cfg)
    positions = inputs.slot_positions(prompt["ids"], cfg)
    logits, kept = traced(model, **prompt, positions=positions)
    shifted_logits, shifted = traced(model, **prompt, positions=positions + 7)
    np.testing.assert_allclose(shifted_logits, logits, atol=1e-12)
    name = "text.blocks.0.attn.q_rot"
    assert not np.allclose(kept[name], shifted[name])


@both_generations
def test_patches_permuted_with_their_positions_permute_the_towers_output(cfg):
    model, prompt = random_model(cfg), random_prompt(cfg)
    w, pictures = model.weights, prompt["pixels"][0]
    soft = see(w, cfg, pictures)
    # Swapping the two columns of patches of a picture swaps patches 0-1 and 2-3.
    swapped_picture = np.concatenate([pictures[:, :, 4:8], pictures[:, :, :4], pictures[:, :, 8:]], axis=2)
    order = [1, 0, 3, 2]
    arrays = dict(w.arrays) | {"vision.positions.weight": w.arrays["vision.positions.weight"][order]}
    np.testing.assert_allclose(see(Weights(arrays, w.precision), cfg, swapped_picture), soft[:, order], atol=1e-13)


@both_generations
def test_blocks_without_output_are_the_identity(cfg):
    model, prompt = random_model(cfg), random_prompt(cfg)
    silenced = ("attn.out.weight", "attn.out.bias", "mlp.out.weight", "mlp.out.bias")
    arrays = {name: x * (0 if name.endswith(silenced) else 1) for name, x in model.weights.arrays.items()}
    quiet = type(model)(cfg, Weights(arrays, PRECISIONS["float64"]))
    _, kept = traced(quiet, **prompt)
    assert np.array_equal(kept[f"text.blocks.{cfg.text.depth - 1}.out"], kept["text.spliced"])
    assert np.array_equal(kept["vision.blocks.1.out"], kept["vision.embedded"])


@both_generations
def test_permuting_the_vocabulary_permutes_the_logits(cfg):
    model, prompt = random_model(cfg), random_prompt(cfg)
    V = cfg.text.vocab_size
    order = np.arange(V)
    order[3:39] = np.random.default_rng(0).permutation(36) + 3
    table = model.weights.arrays["text.embedded.weight"]
    arrays = dict(model.weights.arrays) | {"text.embedded.weight": table[order]}
    renamed = prompt | {"ids": np.append(np.argsort(order), np.arange(V, 99))[prompt["ids"]]}
    permuted = forward(type(model)(cfg, Weights(arrays, model.weights.precision)), **renamed)
    np.testing.assert_allclose(permuted, forward(model, **prompt)[..., order], **CLOSE)


@both_generations
def test_observing_and_running_twice_change_no_bit(cfg):
    model, prompt = random_model(cfg, "float32"), random_prompt(cfg)
    for array in [*model.weights.arrays.values(), *prompt.values()]:
        array.flags.writeable = False
    logits, kept = traced(model, **prompt)
    assert np.array_equal(forward(model, **prompt), logits) and np.array_equal(kept["text.logits"], logits)


def test_soft_tokens_stand_at_image_tokens_in_order():
    soft = np.arange(8.0).reshape(2, 2, 2)
    places = np.array([[True, False, True], [True, True, False]])
    spliced = splice(np.full((2, 3, 2), -1.0), soft, places, Weights({}, PRECISIONS["float64"]))
    assert spliced.tolist() == [[[0, 1], [-1, -1], [2, 3]], [[4, 5], [6, 7], [-1, -1]]]


@both_generations
def test_rows_may_have_different_numbers_of_pictures_in_the_flat_form(cfg):
    model, P = random_model(cfg), cfg.vision.num_patches
    picture = cfg.image_token_id
    ids = np.array([[picture] * (2 * P) + [2, 5], [picture] * P + [2, 5] + [0] * P])
    mask = np.array([[1] * (2 * P + 2), [1] * (P + 2) + [0] * P])
    pixels = np.random.default_rng(0).uniform(-1, 1, size=(3, 3, 9, 9))
    logits = forward(model, ids, pixels, attention_mask=mask)
    alone = forward(model, ids[1:, : P + 2], pixels[2:])
    np.testing.assert_allclose(logits[1:, : P + 2], alone, **CLOSE)


@both_generations
def test_text_only_and_an_empty_prompt_behind_a_picture_run(cfg):
    model, P = random_model(cfg), cfg.vision.num_patches
    assert forward(model, [[2, 5, 6]]).shape == (1, 3, cfg.text.vocab_size)
    ids = np.array([[cfg.image_token_id] * P + [2, 8]])
    pixels = np.zeros((1, 1, 9, 9, 3))
    assert np.all(np.isfinite(forward(model, ids, pixels)))
