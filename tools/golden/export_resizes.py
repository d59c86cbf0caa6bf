"""Writes what OpenCV and PyTorch make of one picture at 32 x 32, as levels of 255: for naming faults of resizing.

    pip install opencv-python-headless
    python tools/golden/export_resizes.py
"""

import pathlib
import sys

import cv2
import numpy as np
import torch
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "judge")]

from test_resizing import picture  # noqa: E402

OPENCV = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA,
          "lanczos4": cv2.INTER_LANCZOS4, "nearest": cv2.INTER_NEAREST}  # fmt: skip
TORCH = {
    "bilinear": dict(mode="bilinear"),
    "bilinear antialias": dict(mode="bilinear", antialias=True),
    "bilinear align_corners": dict(mode="bilinear", align_corners=True),
    "bicubic": dict(mode="bicubic"),
    "bicubic antialias": dict(mode="bicubic", antialias=True),
}


def main():
    source = picture()
    found = {f"opencv {name}": cv2.resize(source, (32, 32), interpolation=way) for name, way in OPENCV.items()}
    channels_first = torch.from_numpy(source.transpose(2, 0, 1).copy())[None]
    for name, way in TORCH.items():
        made = torch.nn.functional.interpolate(channels_first.float(), (32, 32), **way)
        found[f"torch {name}"] = made[0].permute(1, 2, 0).numpy()
    made = torch.nn.functional.interpolate(channels_first, (32, 32), mode="bicubic", antialias=True)
    found["torch bicubic antialias bytes"] = made[0].permute(1, 2, 0).numpy()
    path = ROOT / "golden" / "port" / "resizes.safetensors"
    save_file({name: np.ascontiguousarray(array, np.float32) for name, array in found.items()}, path)
    print(f"{len(found)} pictures by OpenCV {cv2.__version__} and PyTorch {torch.__version__} written to {path}")


if __name__ == "__main__":
    main()
