"""Faults of pictures, of the vision tower's ends, of biases and of weights in wrong places."""

import numpy as np

from npgemma import ops
from npgemma.judge.faults import with_equations, with_expressions
from npgemma.judge.near import linear

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
IMAGENET_STD = np.array([0.229, 0.224, 0.225])
PATCHES = "linear(patchify(pixels, patch_size), patches.weight, patches.bias)"


def in_unit_range(pixels):
    """From [-1, 1] back to [0, 1]."""
    return (pixels + 1.0) * 0.5


def columns_first(pixels, patch_size):
    """Patches column by column."""
    flat = ops.patchify(pixels, patch_size)
    I, P, _ = flat.shape
    side = round(P**0.5)
    return np.swapaxes(flat.reshape(I, side, side, -1), 1, 2).reshape(flat.shape)


def channels_last(pixels, patch_size):
    """A patch flattened as row, column, channel."""
    flat = ops.patchify(pixels, patch_size)
    return np.swapaxes(flat.reshape(*flat.shape[:2], 3, -1), 2, 3).reshape(flat.shape)


def patches_transposed(pixels, patch_size):
    """A patch flattened as channel, column, row."""
    flat = ops.patchify(pixels, patch_size)
    return np.swapaxes(flat.reshape(*flat.shape[:2], 3, patch_size, patch_size), 3, 4).reshape(flat.shape)


def grid_transposed(table):
    """The table of positions column by column."""
    P, C = table.shape
    side = round(P**0.5)
    return np.swapaxes(table.reshape(side, side, C), 0, 1).reshape(P, C)


def of_pixels(name, sentence, expression, **equations):
    """A fault of the pictures, before everything else."""
    return with_expressions(name, sentence, {"pixels": expression}, **equations)


def linears(tower, names, template):
    """Another expression for the matrices of a tower: ``{name}`` its weight, ``{x}`` its input, ``{letter}`` heads."""
    inputs = {
        "q": "attn_norm",
        "k": "attn_norm",
        "v": "attn_norm",
        "attn.out": "mixed",
        "mlp.up": "mlp_norm",
        "mlp.gate": "mlp_norm",
        "mlp.out": "hidden",
    }
    found = {}
    for name in names:
        short = name.split(".")[-1]
        product = template.format(name=short, x=inputs[name])
        heads = "N" if tower == "vision" or name == "q" else "K"
        row = f"{tower}.blocks.{{n}}." + (f"attn.{name}" if name in "qkv" else name)
        found[row] = f"split_heads({product}, {heads})" if name in "qkv" else product
    return found


def transposed(x, weight, bias=None):
    """Multiply by a matrix the wrong way round, which only a square one allows."""
    if weight.shape[0] != weight.shape[1]:
        raise ValueError("only a square matrix can be multiplied the wrong way round")
    return linear(x, weight.T, bias)


ALL = ("q", "k", "v", "attn.out", "mlp.up", "mlp.out")

FAULTS = [
    of_pixels(
        "bgr", "channels are blue, green, red; RGB is wanted", "reversed(pixels)", reversed=lambda x: x[..., ::-1]
    ),
    of_pixels("pixels-from-0-to-1", "pixels lie in [0, 1]; [-1, 1] is wanted", "unit(pixels)", unit=in_unit_range),
    of_pixels(
        "pixels-from-0-to-255",
        "pixels lie in [0, 255]; [-1, 1] is wanted",
        "bytes(pixels)",
        bytes=lambda x: (x + 1.0) * 127.5,
    ),
    of_pixels(
        "imagenet-mean",
        "pixels are normalised by ImageNet's mean and deviation; SigLIP's are 0.5 and 0.5",
        "imagenet(pixels)",
        imagenet=lambda x: (in_unit_range(x) - IMAGENET_MEAN) * (1.0 / IMAGENET_STD),
    ),
    of_pixels(
        "flipped-left-right",
        "the picture is mirrored left to right",
        "mirrored(pixels)",
        mirrored=lambda x: x[:, :, ::-1],
    ),
    of_pixels(
        "flipped-upside-down", "the picture stands on its head", "mirrored(pixels)", mirrored=lambda x: x[:, ::-1]
    ),
    of_pixels(
        "picture-transposed",
        "rows and columns of the picture are exchanged",
        "turned(pixels)",
        turned=lambda x: np.swapaxes(x, 1, 2),
    ),
    of_pixels(
        "grey",
        "the picture is grey: a channel stands for all three",
        "grey(pixels)",
        grey=lambda x: np.repeat(np.mean(x, axis=-1, keepdims=True), 3, axis=-1),
    ),
    *(
        with_equations(
            f"{name}-at-the-patches",
            f"pixels are right, but {sentence} before patches are cut",
            "vision.patches",
            patchify=lambda pixels, size, moved=moved: ops.patchify(moved(pixels), size),
        )
        for name, sentence, moved in (
            ("bgr", "channels are reversed", lambda x: x[..., ::-1]),
            ("flipped", "the picture is mirrored left to right", lambda x: x[:, :, ::-1]),
            ("transposed", "rows and columns of the picture are exchanged", lambda x: np.swapaxes(x, 1, 2)),
        )
    ),
    with_equations(
        "patches-column-by-column",
        "patches are taken column by column; row by row is wanted",
        "vision.patches",
        patchify=columns_first,
    ),
    with_equations(
        "pixels-before-channels",
        "a patch is flattened row, column, channel; channel, row, column is wanted",
        "vision.patches",
        patchify=channels_last,
    ),
    with_equations(
        "patch-transposed",
        "a patch is flattened channel, column, row; channel, row, column is wanted",
        "vision.patches",
        patchify=patches_transposed,
    ),
    with_expressions(
        "patch-bias-left-out",
        "the bias of the patch embedding is left out",
        {"vision.patches": "linear(patchify(pixels, patch_size), patches.weight)"},
    ),
    with_expressions(
        "positions-left-out", "the learned positions of the patches are left out", {"vision.embedded": "patches * 1.0"}
    ),
    with_expressions(
        "positions-transposed",
        "the grid of learned positions is transposed",
        {"vision.embedded": "patches + turned(positions.weight)"},
        turned=grid_transposed,
    ),
    with_expressions(
        "positions-one-late",
        "learned positions are off by one, as behind a class token",
        {"vision.embedded": "patches + one_on(positions.weight)"},
        one_on=lambda x: np.roll(x, 1, axis=0),
    ),
    with_expressions(
        "positions-twice",
        "learned positions are added twice",
        {"vision.embedded": "patches + positions.weight + positions.weight"},
    ),
    with_expressions(
        "biases-left-out",
        "the biases of the vision tower's matrices are left out",
        linears("vision", ALL, "linear({x}, {name}.weight)"),
    ),
    with_equations(
        "matrices-transposed",
        "the matrix is multiplied the wrong way round: files of another program store it transposed",
        "vision.blocks.{n}.attn.q vision.blocks.{n}.attn.k vision.blocks.{n}.attn.v "
        "vision.blocks.{n}.attn.out text.blocks.{n}.attn.q text.blocks.{n}.attn.out",
        linear=transposed,
    ),
    with_expressions(
        "connector-bias-left-out",
        "the bias of the connector is left out",
        {"connector.out": "linear(vision.norm, out.weight)"},
    ),
    with_expressions(
        "connector-gelu",
        "a GELU stands behind the connector, as in LLaVA; PaliGemma's is linear",
        {"connector.out": "gelu(linear(vision.norm, out.weight, out.bias))"},
    ),
    with_expressions(
        "vision-scale-of-the-text",
        "the vision tower's scores are scaled by the decoder's head size",
        {"vision.blocks.{n}.attn.scores": "inner(group_heads(q, N) @ group_heads(k, N).mT) * 0.0625"},
    ),
    with_expressions(
        "vision-scale-of-the-width",
        "the vision tower's scores are scaled by width^-0.5; the head's size is wanted",
        {"vision.blocks.{n}.attn.scores": "inner(group_heads(q, N) @ group_heads(k, N).mT) * root(C)"},
        root=lambda size: size**-0.5,
    ),
    with_expressions(
        "vision-residual-halved",
        "the attention's result enters the residual at half its size",
        {"vision.blocks.{n}.middle": "x + attn.out * 0.5"},
    ),
]
