"""Ask Flax (decoder) and PyTorch (encoder) for the mask codec's tensors, and store them in golden/codec.

With the packages of tools/requirements.txt: ``python tools/golden/export_codec.py``.  The networks are written from
their description: Ning et al. 2023 (arXiv 2301.02229) and big_vision's readers of the released file.
"""

import hashlib
import json
import platform
import sys
from pathlib import Path

import flax
import flax.linen as nn
import jax
import numpy as np
import torch
from safetensors.numpy import save_file

jax.config.update("jax_enable_x64", True)
sys.path.insert(0, str(Path(__file__).parent))
import codec_inputs  # noqa: E402

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "codec"
DTYPES = ("float64", "float32")


class Block(nn.Module):
    """Two 3 x 3 convolutions and one 1 x 1, added to what came in."""

    width: int

    @nn.compact
    def __call__(self, x):
        y = nn.relu(nn.Conv(self.width, (3, 3), padding=1, param_dtype=x.dtype, name="0")(x))
        y = nn.relu(nn.Conv(self.width, (3, 3), padding=1, param_dtype=x.dtype, name="2")(y))
        return x + nn.Conv(self.width, (1, 1), param_dtype=x.dtype, name="4")(y)


class Decoder(nn.Module):
    """Vectors (B, 4, 4, E) to a mask (B, 64, 64, 1); gives every layer's grid by name."""

    widths: tuple

    @nn.compact
    def __call__(self, x):
        seen = {}
        seen["opened"] = y = nn.relu(nn.Conv(self.widths[0], (1, 1), param_dtype=x.dtype, name="0")(x))
        for n in range(2):
            seen[f"blocks.{n}.out"] = y = Block(self.widths[0], name=f"{n + 2}.net")(y)
        for n, width in enumerate(self.widths[1:]):
            layer = nn.ConvTranspose(
                width, (4, 4), (2, 2), padding=2, transpose_kernel=True, param_dtype=x.dtype, name=f"{2 * n + 4}"
            )
            seen[f"doubled.{n}.out"] = y = nn.relu(layer(y))
        seen["out"] = nn.Conv(1, (1, 1), param_dtype=x.dtype, name="12")(y)
        return seen


def decode(arrays, widths, codes, dtype):
    """What Flax computes of codes."""
    tree = {}
    for name, array in arrays.items():
        if name.startswith("decoder."):
            *path, last = name.removeprefix("decoder.").split(".")
            place = tree
            for part in [f"{path[0]}.net", path[2]] if len(path) == 3 else path:
                place = place.setdefault(part, {})
            kernel = last == "weight"
            # Flax wants rows, columns, in, out; for a transposed kernel rows, columns, out, in.
            place["kernel" if kernel else "bias"] = array.transpose(2, 3, 1, 0) if kernel else array
    tree = jax.tree.map(lambda array: jax.numpy.asarray(array, dtype), tree)
    vectors = jax.numpy.asarray(arrays["_vq_vae._embedding"], dtype)[codes].reshape(len(codes), 4, 4, -1)
    seen = Decoder(widths).apply({"params": tree}, vectors)
    return {f"decoder.{name}": np.asarray(array) for name, array in seen.items()}


class Residual(torch.nn.Module):
    """The encoder's block."""

    def __init__(self, width):
        super().__init__()
        near, far = (torch.nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        branch = torch.nn.Conv2d(width, width, 1)
        self.net = torch.nn.Sequential(near, torch.nn.ReLU(), far, torch.nn.ReLU(), branch)

    def forward(self, x):
        return x + self.net(x)


def make_encoder(widths, code):
    """The encoder; places in the sequence are the numbers of the released file's names."""
    layers = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [torch.nn.Conv2d(before, after, 4, stride=2, padding=1), torch.nn.ReLU()]
    layers += [Residual(widths[-1]), Residual(widths[-1]), torch.nn.Conv2d(widths[-1], code, 1)]
    return torch.nn.Sequential(*layers)


def encode(arrays, widths, code, masks, dtype):
    """What PyTorch computes of masks, channels last, and the two smallest distances of each vector."""
    encoder = make_encoder(widths, code).to(dtype)
    tensors = {name: torch.from_numpy(array.copy()).to(dtype) for name, array in arrays.items()}
    encoder.load_state_dict({name[8:]: one for name, one in tensors.items() if name.startswith("encoder.")})
    names = {2 * n + 1: f"halved.{n}.out" for n in range(4)} | {8: "blocks.0.out", 9: "blocks.1.out", 10: "out"}
    seen, x = {}, torch.from_numpy(masks).to(dtype)[:, None]
    with torch.no_grad():
        for number, layer in enumerate(encoder):
            x = layer(x)
            if number in names:
                seen[f"encoder.{names[number]}"] = x.permute(0, 2, 3, 1).contiguous().numpy()
        z = x.permute(0, 2, 3, 1).reshape(-1, code)
        words = tensors["_vq_vae._embedding"]
        distances = z.square().sum(1, keepdim=True) + words.square().sum(1) - 2 * z @ words.T
    ordered = distances.sort(dim=1).values
    seen["gaps"] = (ordered[:, 1] - ordered[:, 0]).reshape(-1, 16).double().numpy()
    seen["codes"] = distances.argmin(1).reshape(-1, 16).numpy()
    return seen


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    masks, codes = codec_inputs.make_masks(), codec_inputs.make_codes()
    for name, (encoder, code, decoder) in codec_inputs.WIDTHS.items():
        arrays = codec_inputs.make_weights(name)
        for dtype in DTYPES:
            tensors = encode(arrays, encoder, code, masks, getattr(torch, dtype))
            tensors |= decode(arrays, decoder, codes, dtype)
            if name == "released":  # every grid at these widths would fill megabytes: what counts at the end
                tensors = {key: tensors[key] for key in ("codes", "gaps", "encoder.out", "decoder.out")}
            assert len(np.unique(tensors["codes"])) > 8, "all codes are alike: the masks prove nothing"
            tensors = {key: np.ascontiguousarray(one) for key, one in tensors.items()}
            save_file(tensors, FOLDER / f"{name}-{dtype}.safetensors")
    files = sorted(FOLDER.glob("*.safetensors"))
    manifest = {
        "format": "npgemma.golden.codec",
        "version": [1, 0],
        "command": "python tools/golden/export_codec.py",
        "reference": "decoder in flax.linen, encoder in torch.nn, random weights of tools/golden/codec_inputs.py",
        "made_by": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, flax, jax, np)},
        },
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    (FOLDER / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files):,} bytes")


if __name__ == "__main__":
    main()
