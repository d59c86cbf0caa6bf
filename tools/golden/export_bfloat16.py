"""Writes golden/bfloat16/: what ml_dtypes rounds float32 to, for every upper half and six lower halves of the bits.

    python tools/golden/export_bfloat16.py

Stored is the difference between the result's bits and the upper half, modulo 2**16, which packs to a few hundred bytes.
"""

import hashlib
import json
import pathlib
import zlib

import ml_dtypes
import numpy as np

# Nothing, the least, just below and just above half a unit, the half itself, and all.
LOWER_HALVES = (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)
FOLDER = pathlib.Path(__file__).parent.parent.parent / "golden" / "bfloat16"


def main():
    upper = np.arange(2**16, dtype=np.uint32)
    steps = []
    for lower in LOWER_HALVES:
        numbers = ((upper << 16) | np.uint32(lower)).view(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            rounded = numbers.astype(ml_dtypes.bfloat16).view(np.uint16)
        steps.append(rounded - upper.astype(np.uint16))
    packed = zlib.compress(np.stack(steps).astype("<u2").tobytes(), 9)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "rounding.zlib").write_bytes(packed)
    manifest = {
        "made_by": "tools/golden/export_bfloat16.py",
        "versions": {"ml_dtypes": ml_dtypes.__version__, "numpy": np.__version__},
        "holds": "uint16 (6, 65536): bits of bfloat16(float32 of upper << 16 | lower) - upper, modulo 2**16",
        "lower_halves": list(LOWER_HALVES),
        "sha256": hashlib.sha256(packed).hexdigest(),
    }
    (FOLDER / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
