"""Writes what big_vision's PaliGemma (JAX) computes, by the names of its own modules: a port in another framework.

    git clone https://github.com/google-research/big_vision
    python tools/golden/export_big_vision.py big_vision                      into golden/port, both generations
    python tools/golden/export_big_vision.py big_vision --wrong-gelu --out FOLDER

Nothing of big_vision is changed, but for the GELU where that is asked for; ``capture_intermediates`` of flax looks at
it.  Its epsilon is fixed at 1e-6 and it has no sliding window: so have the models of ``tests/random_models.py`` here.
Needs jax, flax, einops, ml_collections and orbax-checkpoint.
"""

import argparse
import functools
import pathlib
import re
import sys
import types

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import random_models  # noqa: E402

from npgemma.base.elsewhere import big_vision_array  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("big_vision", type=pathlib.Path, help="a checkout")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "golden" / "port")
    parser.add_argument("--wrong-gelu", action="store_true", help="put the exact GELU in its place")
    args = parser.parse_args()
    model_file, gemma = import_models(args.big_vision)
    if args.wrong_gelu:
        gemma.nn.gelu = functools.partial(gemma.nn.gelu, approximate=False)
    for generation in random_models.GENERATIONS:
        found = run(model_file, gemma, random_models.as_big_vision_has_it(generation))
        path = args.out / f"big-vision-{generation}{'-erf' if args.wrong_gelu else ''}.npz"
        np.savez_compressed(path, **found)
        print(f"{len(found)} tensors of big_vision written to {path}")


def import_models(checkout):
    """Its PaliGemma and Gemma; what only reads checkpoints (and needs TensorFlow) is left out."""
    sys.path.insert(0, str(checkout))
    sys.modules["big_vision.utils"] = types.ModuleType("big_vision.utils")
    import big_vision
    from big_vision.models.ppp import gemma
    from big_vision.models.proj.paligemma import paligemma

    big_vision.utils = sys.modules["big_vision.utils"]
    return paligemma, gemma


def run(paligemma, gemma, cfg):
    """Every tensor that its modules give for one question, by name."""
    import jax
    import ml_collections

    vision, text = cfg.vision, cfg.text
    sizes = dict(
        variant="tiny", width=text.width, depth=text.depth, mlp_dim=text.mlp_width, num_heads=text.num_heads,
        num_kv_heads=text.num_kv_heads, head_dim=text.head_dim, norm_eps=text.norm_eps, vocab_size=text.vocab_size,
        attn_logits_softcap=text.attn_softcap or 0.0, final_logits_softcap=text.final_softcap or 0.0,
        post_norms=text.post_norms, scan=False, remat_policy="none",
    )  # fmt: skip
    gemma.get_config = lambda variant: ml_collections.ConfigDict(sizes)
    model = paligemma.Model(
        img=dict(
            patch_size=(vision.patch_size,) * 2, width=vision.width, depth=vision.depth, mlp_dim=vision.mlp_width,
            num_heads=vision.num_heads, pool_type="none",
        ),
        llm=dict(variant="tiny", scan=False, remat_policy="none"),
    )  # fmt: skip
    given = random_models.random_prompt(cfg)
    P = vision.num_patches
    text_ids, mask_ar = given["ids"][:, P:], given["token_types"][:, P:]
    params = {"params": nested(parameters(cfg))}
    with jax.default_matmul_precision("highest"):
        (_, out), state = model.apply(
            params, given["pixels"][:, 0], text_ids, mask_ar, capture_intermediates=True, mutable=["intermediates"]
        )
    return captured(state["intermediates"]) | {
        name: np.asarray(array) for name, array in flat(out) if not name.startswith(("text_", "llm/ztxt"))
    }


def flat(tree, before=""):
    """(name, array) of the arrays of nested dictionaries."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}/")
        else:
            yield f"{before}{name}", value


def captured(tree):
    """What each module's call gave; of several results the first, of several calls the last.

    The decoder is called for embeddings, for all and for logits; a block's dropout behind both branches.
    """
    found = {}
    for name, calls in flat(tree):
        result = calls[-1]
        array = np.asarray(result[0] if isinstance(result, tuple) else result)
        several = name == "llm/__call__" or re.search(r"encoderblock_\d+/Dropout_0", name)
        if name.endswith("/__call__") and not several:
            found[name] = array
    return found


def parameters(cfg):
    """Its parameters by path, from the weights of the model; matrices are transposed there, heads have their axis."""
    vision, text = cfg.vision, cfg.text
    N, H, C, D = text.num_heads, text.head_dim, vision.width, text.width
    heads, patch = vision.num_heads, vision.patch_size
    found, pairs = {}, {}
    for ours, array in random_models.random_arrays(cfg).items():
        path = big_vision_array(ours, cfg)
        place, _, index = path.partition("[")
        number, *rest = index.rstrip("]").split(",")
        place = place.replace("encoderblock/", f"encoderblock_{number}/").replace("layers/", f"layers/{number}/")
        name = ours.removesuffix(".weight")
        kind = name.rpartition(".")[2]
        tower = name.split(".")[0]
        if name == "vision.patches":
            array = array.reshape(C, 3, patch, patch).transpose(2, 3, 1, 0)
        elif name == "vision.positions":
            place, array = "img/pos_embedding", array[None]
        elif ".attn." in name and tower == "vision":
            biased = ours.endswith(".bias")
            parts = {True: (heads, -1), False: (heads, C // heads, C) if ".out" in name else (C, heads, -1)}[biased]
            array = array if biased and ".out" in name else (array if biased else array.T).reshape(parts)
        elif ".attn." in name:
            array = array.T.reshape(N, H, D) if kind == "out" else array.reshape(-1, H, D).transpose(0, 2, 1)
        elif array.ndim == 2 and name != "text.embedded":
            array = array.T
        if rest:  # one of a pair that lies in one array there
            pairs.setdefault(place, {})[int(rest[0])] = array
        else:
            found[place] = array
    return found | {place: np.stack([pair[0], pair[1]]) for place, pair in pairs.items()}


def nested(arrays):
    """Nested dictionaries of arrays by path."""
    tree: dict = {}
    for path, array in arrays.items():
        *above, last = path.split("/")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = array
    return tree


if __name__ == "__main__":
    main()
