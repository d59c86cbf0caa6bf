"""Small random models for tests: awkward sizes, both generations, the same numbers on every machine."""

from dataclasses import replace

import numpy as np

from npgemma.base.precision import PRECISIONS
from npgemma.base.tensors import schema
from npgemma.base.weights import Weights
from npgemma.config import Config, TextConfig, VisionConfig
from npgemma.paligemma import Model

# Two patches a side, a remainder of one pixel, heads of 6.
VISION = VisionConfig(image_size=9, patch_size=4, width=12, depth=2, num_heads=2, mlp_width=14, norm_eps=0.1)

PALIGEMMA_1 = Config(
    VISION,
    TextConfig(
        vocab_size=41, width=10, depth=2, num_heads=3, num_kv_heads=1, head_dim=4, mlp_width=22, norm_eps=0.1,
        rope_theta=10000.0, query_pre_attn_scalar=4, attn_softcap=None, final_softcap=None,
        layer_windows=(None, None), post_norms=False, max_positions=64,
    ),
    image_token_id=41,
)

PALIGEMMA_2 = Config(
    VISION,
    TextConfig(
        vocab_size=43, width=10, depth=3, num_heads=6, num_kv_heads=2, head_dim=8, mlp_width=22, norm_eps=0.1,
        rope_theta=10000.0, query_pre_attn_scalar=5, attn_softcap=0.9, final_softcap=2.0,
        layer_windows=(3, None, 3), post_norms=True, max_positions=64,
    ),
    image_token_id=40,
)

GENERATIONS = {"paligemma-1": PALIGEMMA_1, "paligemma-2": PALIGEMMA_2}


def as_big_vision_has_it(generation):
    """The configuration with what is fixed in big_vision: epsilons of 1e-6, the scale of the head size, no window."""
    cfg = GENERATIONS[generation]
    text = replace(
        cfg.text, norm_eps=1e-6, query_pre_attn_scalar=cfg.text.head_dim, layer_windows=(None,) * cfg.text.depth
    )
    return replace(cfg, vision=replace(cfg.vision, norm_eps=1e-6), text=text)


def random_arrays(cfg, seed=0):
    """Weights for every name of the schema: (name to float32 array), large enough that nothing is nearly linear."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(scale=0.4, size=parameter.shape).astype(np.float32) for name, parameter in schema(cfg).items()
    }


def random_model(cfg, precision="float64", seed=0):
    """A model without tokenizer."""
    return Model(cfg, Weights(random_arrays(cfg, seed), PRECISIONS[precision]))


def random_prompt(cfg, num_rows=2, num_text=5, num_suffix=2, seed=1):
    """Inputs of one picture a row: a dictionary of arguments of :func:`npgemma.forward`."""
    rng = np.random.default_rng(seed)
    P, R = cfg.vision.num_patches, cfg.vision.image_size
    length = P + num_text + num_suffix
    ids = rng.integers(3, 39, size=(num_rows, length))
    ids[:, :P] = cfg.image_token_id
    token_types = np.zeros_like(ids)
    token_types[:, P + num_text :] = 1
    pixels = rng.uniform(-1, 1, size=(num_rows, 1, R, R, 3)).astype(np.float32)
    return {"ids": ids, "pixels": pixels, "token_types": token_types}
