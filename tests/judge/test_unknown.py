"""Faults that stand in no list of the judge's: it says "unknown", or a thing that is true, never a wrong cause."""

import numpy as np
import ports
import pytest

import golden
from npgemma import ops
from npgemma.judge import diagnose

# A true word for some: what is said of all numbers, whatever made them.
TRUE = {"attention output doubled": "scaled", "two positions exchanged": "", "weights of another block": ""}


def weight(model, name):
    return golden.model(model, "float32").weights.arrays[name].astype(np.float64)


def wide(tensors, name):
    return tensors[name].astype(np.float64)


def normed(x, eps):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)


def eps_of(model):
    return golden.model(model, "float32").config.text.norm_eps


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def hot_softmax(t, m):
    scores = wide(t, "text.blocks.0.attn.capped" if m == "tiny-2" else "text.blocks.0.attn.scores")
    mask = t["mask.sliding" if m == "tiny-2" else "mask.full"]
    return softmax(np.where(mask[:, None, None], scores / 1.1, -1e30))


def last_key_lost(t, m):
    probs, v = wide(t, "text.blocks.0.attn.probs"), wide(t, "text.blocks.0.attn.v")
    mixed = np.einsum("bkgts,bskh->btkgh", probs[..., :-1], v[:, :-1])
    return mixed.reshape(t["text.blocks.0.attn.mixed"].shape)


def values_of_the_other_head(t, m):
    probs, v = wide(t, "vision.blocks.0.attn.probs")[:, :, 0], wide(t, "vision.blocks.0.attn.v")[:, :, ::-1]
    return np.einsum("intp,ipnh->itnh", probs, v).reshape(t["vision.blocks.0.attn.mixed"].shape)


def kernel_turned(t, m):
    """A convolution where a correlation belongs."""
    arrays = golden.model(m, "float32").weights.arrays
    cfg = golden.model(m, "float32").config.vision
    kernel = arrays["vision.patches.weight"].astype(np.float64)
    turned = kernel.reshape(-1, 3, cfg.patch_size, cfg.patch_size)[:, :, ::-1, ::-1].reshape(kernel.shape)
    return ops.patchify(wide(t, "pixels"), cfg.patch_size) @ turned.T + arrays["vision.patches.bias"]


def alibi(t, m):
    scores = wide(t, "text.blocks.0.attn.scores")
    T, S = scores.shape[-2:]
    return scores - 0.05 * np.abs(np.arange(T)[:, None] - np.arange(S))


def one_token_lost(t, m):
    q = t["text.blocks.0.attn.q"].copy()
    q[:, 3] = 0.0
    return q


def two_positions_exchanged(t, m):
    embedded = t["text.embedded"].copy()
    embedded[:, [-1, -2]] = embedded[:, [-2, -1]]
    return embedded


def other_block(t, m):
    x = wide(t, "text.spliced")
    return normed(x, eps_of(m)) * (1.0 + weight(m, "text.blocks.1.attn_norm.weight"))


INVENTED = {
    "a gain of 1.01 + weight": ("text.blocks.0.attn_norm", lambda t, m: normed(wide(t, "text.spliced"), eps_of(m))
                                * (1.01 + weight(m, "text.blocks.0.attn_norm.weight"))),
    "weights of another block": ("text.blocks.0.attn_norm", other_block),
    "the root of the mean absolute value": ("text.blocks.0.attn_norm", lambda t, m: wide(t, "text.spliced") / (
        np.mean(np.abs(wide(t, "text.spliced")), axis=-1, keepdims=True) + eps_of(m))
        * (1.0 + weight(m, "text.blocks.0.attn_norm.weight"))),
    "a GELU of another constant": ("text.blocks.0.mlp.opened", lambda t, m: 0.5 * wide(t, "text.blocks.0.mlp.gate") * (
        1.0 + np.tanh(0.85 * (wide(t, "text.blocks.0.mlp.gate") + 0.05 * wide(t, "text.blocks.0.mlp.gate") ** 3)))),
    "a clipped hidden layer": ("text.blocks.0.mlp.hidden", lambda t, m: np.clip(
        wide(t, "text.blocks.0.mlp.hidden"), -0.3, 0.3)),
    "a warm softmax": ("text.blocks.0.attn.probs", hot_softmax),
    "the last key lost": ("text.blocks.0.attn.mixed", last_key_lost),
    "values of the other head": ("vision.blocks.0.attn.mixed", values_of_the_other_head),
    "a convolution of a turned kernel": ("vision.patches", kernel_turned),
    "a bias by distance": ("text.blocks.0.attn.scores", alibi),
    "one token lost": ("text.blocks.0.attn.q", one_token_lost),
    "two positions exchanged": ("text.embedded", two_positions_exchanged),
    "nine tenths of a residual": ("text.blocks.0.middle", lambda t, m: wide(t, "text.blocks.0.middle")
                                  - 0.1 * wide(t, "text.spliced")),
    "logits with a half added": ("text.logits", lambda t, m: wide(t, "text.logits") + 0.5),
    "attention output doubled": ("text.blocks.0.attn.out", lambda t, m: 2.0 * wide(t, "text.blocks.0.attn.out")),
    "frequencies of a wrong base": ("text.cos", lambda t, m: np.cos(
        t_positions(m)[..., None] / 9000.0 ** (np.arange(0, head_dim(m), 2) / head_dim(m)))),
    "noise of a hundredth": ("text.blocks.0.mlp.up", lambda t, m: wide(t, "text.blocks.0.mlp.up") * (
        1.0 + 0.01 * np.random.default_rng(0).standard_normal(t["text.blocks.0.mlp.up"].shape))),
}  # fmt: skip


def t_positions(model):
    return ports.question(model)["positions"]


def head_dim(model):
    return golden.model(model, "float32").config.text.head_dim


@pytest.mark.parametrize("recipe", ["float32", "bf16-hf-eager"])
@pytest.mark.parametrize("model", golden.MODELS)
def test_invented_faults_are_caught_where_they_are_and_never_called_by_a_wrong_name(model, recipe):
    told = {}
    for fault, (name, made) in INVENTED.items():
        right = ports.right(model, recipe)
        theirs = ports.stored(made(right, model), ports.stored_as(name, recipe))
        first, again, found = ports.first_wrong(model, recipe, right | {name: theirs})
        assert first == name, (fault, first)
        told[fault] = [cause.name for cause in diagnose.causes(again, name, theirs, found.real)]
    said = [f"{fault}: {' '.join(names) or 'unknown'}" for fault, names in told.items()]
    print(f"\n{model} {recipe}: " + ", ".join(said))
    assert {fault: names for fault, names in told.items() if names and names != [TRUE.get(fault)]} == {}
