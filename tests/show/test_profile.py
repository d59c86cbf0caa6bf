import numpy as np
import pytest
from random_models import GENERATIONS, random_model, random_prompt

from npgemma import forward
from npgemma.show.profile import Profile


@pytest.mark.parametrize("name", GENERATIONS)
def test_the_products_of_a_profile_add_up_to_those_of_the_plan(name):
    cfg = GENERATIONS[name]
    model, prompt = random_model(cfg, "float32"), random_prompt(cfg)
    profile = Profile(model.weights.arrays, cfg)
    forward(model, **prompt, observe=profile)
    flops = {"vision": 0, "prefill": 0}
    for (call, _), line in profile.lines.items():
        flops[call] += line.flops
    rows, length = prompt["ids"].shape
    width, depth, P = cfg.text.width, cfg.text.depth, cfg.vision.num_patches
    N, K, H, F = cfg.text.num_heads, cfg.text.num_kv_heads, cfg.text.head_dim, cfg.text.mlp_width
    # A block: q, k, v and out, scores and mixed, three matrices of the MLP; then the head.
    block = 2 * length * width * (2 * N * H + 2 * K * H + 3 * F) + 4 * length * length * N * H
    assert flops["prefill"] == rows * (depth * block + 2 * length * width * cfg.text.vocab_size)
    C, D, G = cfg.vision.width, cfg.text.width, cfg.vision.mlp_width
    tower = 2 * P * C * (4 * C + 2 * G) + 4 * P * P * C
    patches = 2 * P * C * 3 * cfg.vision.patch_size**2
    assert flops["vision"] == rows * (patches + cfg.vision.depth * tower + 2 * P * C * D)


def test_the_table_names_blocks_once_and_tells_calls_apart():
    cfg = GENERATIONS["paligemma-2"]
    model = random_model(cfg, "float32")
    profile = Profile(model.weights.arrays, cfg)
    forward(model, **random_prompt(cfg), observe=profile)
    forward(model, np.array([[5]]), observe=profile)
    assert profile.lines["prefill", "text.blocks.*.attn.q"].times == 3
    assert profile.lines["step", "text.blocks.*.attn.q"].times == 3
    lines = profile.table().splitlines()
    assert lines[0].split() == ["call", "tensor", "times", "seconds", "share", "GFLOP/s", "GB/s"]
    assert [line.split()[0] for line in lines[-3:]] == ["vision", "prefill", "step"]
