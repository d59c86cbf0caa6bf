"""Weights and masks of the mask codec's goldens: the exporter and the tests make them, goldens hold outputs only.

NumPy alone is imported.  Weights are named as in the released file; ``released`` has its widths, ``awkward`` widths
that differ wherever they may, so that no axis can be taken for another.
"""

import numpy as np
from golden_inputs import bell, uniform

WIDTHS = {
    # encoder's grids, code vectors, decoder's grids
    "released": ((1, 16, 32, 64, 128), 512, (128, 128, 64, 32, 16)),
    "awkward": ((1, 3, 5, 4, 7), 11, (6, 8, 5, 3, 2)),
}
SEED = 160_000


def make_weights(name):
    """The 49 arrays of a codec in the released layout, float64 numbers that are bfloat16 values."""
    encoder, code, decoder = WIDTHS[name]
    shapes = {}
    for n in range(4):
        shapes[f"encoder.{2 * n}"] = (encoder[n + 1], encoder[n], 4, 4)
        shapes[f"decoder.{2 * n + 4}"] = (decoder[n], decoder[n + 1], 4, 4)
    for side, first, width in (("encoder", 8, encoder[4]), ("decoder", 2, decoder[0])):
        for n in (first, first + 1):
            for layer, size in ((0, 3), (2, 3), (4, 1)):
                shapes[f"{side}.{n}.net.{layer}"] = (width, width, size, size)
    shapes["encoder.10"] = (code, encoder[4], 1, 1)
    shapes["decoder.0"] = (decoder[0], code, 1, 1)
    shapes["decoder.12"] = (1, decoder[4], 1, 1)
    arrays = {}
    for number, (layer, shape) in enumerate(sorted(shapes.items())):
        transposed = layer in ("decoder.4", "decoder.6", "decoder.8", "decoder.10")
        # A place of a doubled grid is painted by 4 of the 16 windows' places.
        seen = shape[0] * 4 if transposed else shape[1] * shape[2] * shape[3]
        arrays[f"{layer}.weight"] = bell(SEED + 2 * number, shape, spread=2.0 * seen**-0.5)
        arrays[f"{layer}.bias"] = bell(SEED + 2 * number + 1, (shape[1 if transposed else 0],), spread=0.1)
    # Near the nominal -1 to 1, and about as much outside as inside.
    arrays["decoder.12.weight"] *= 0.2
    arrays["decoder.12.bias"] = np.array([-0.3125])
    arrays["_vq_vae._embedding"] = bell(SEED + 500, (128, code), spread=0.3)
    arrays["_vq_vae._ema_cluster_size"] = np.ones(128)
    arrays["_vq_vae._ema_w"] = np.ones((128, code))
    return arrays


def make_masks(count=2):
    """(count, 64, 64) in [-1, 1]: soft blots, as masks are that were made smaller."""
    waves = uniform(SEED + 600, (count, 3, 4))
    rows, columns = np.mgrid[0:64, 0:64] / 64.0
    # A sum of parabolas, whose last bit is the same on every machine, unlike a sine's.
    x = sum(
        (0.3 + 0.3 * one[0])[:, None, None] - 4 * (rows - one[1][:, None, None]) ** 2
        - (1 + 4 * one[3])[:, None, None] * (columns - one[2][:, None, None]) ** 2
        for one in waves.transpose(1, 2, 0)
    )
    return np.clip(x, -1.0, 1.0)


def make_codes(count=2):
    """(count, 16) words; the first row holds the first and the last word."""
    codes = (uniform(SEED + 700, (count, 16)) * 128).astype(np.int64)
    codes[0, :2] = 0, 127
    return codes
