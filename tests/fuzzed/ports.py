"""Golden packs, and the tensors of ports that are held against them."""

import hashlib
import io
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from fuzzed.target import GOLDEN, Target
from random_models import GENERATIONS

from npgemma.judge import goldens, op_pack, vectors
from npgemma.judge.read_pack import open_pack
from npgemma.judge.theirs import open_theirs
from npgemma.verbs.judge_options import read_map


def pack_manifests():
    return [(GOLDEN / "pack-1" / "manifest.json").read_bytes()]


def write_pack(folder):
    shutil.copytree(GOLDEN / "pack-1", folder, dirs_exist_ok=True)


def run_pack(folder, data):
    (folder / "manifest.json").write_bytes(data)
    compared(folder, folder / "recipe.safetensors")


def pack_tensors():
    return [(GOLDEN / "pack-1" / name).read_bytes() for name in PACKED]


PACKED = ("recipe.safetensors", "truth.safetensors")


def run_pack_tensors(folder, data):
    """Read a pack whose manifest was written for the damaged file."""
    held = pack_tensors()
    for example, name in zip(held, PACKED, strict=True):
        (folder / name).write_bytes(example)
    # What the file is meant for: its header, or what is left of it, is nearer to one of the two.
    name = PACKED[b"F64" in data[:60000] or b"F32" in data[:400]]
    (folder / name).write_bytes(data)
    manifest = json.loads(pack_manifests()[0])
    manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    compared(folder, GOLDEN / "pack-1" / "recipe.safetensors")


def compared(folder, theirs):
    """Hold a port against a pack, and the figures against what JSON can hold."""
    comparison = goldens.compare_with_pack(open_pack(folder), None, open_theirs(theirs), {}, False)
    assert comparison.rows


@cache
def op_packs():
    with tempfile.TemporaryDirectory() as folder:
        write_op_pack(Path(folder))
        return [(Path(folder) / "ops" / "manifest.json").read_bytes()]


def write_op_pack(folder):
    cfg = GENERATIONS["paligemma-2"]
    cases = [case for op in ("gelu", "rms_norm", "rotate", "soft_cap") for case in vectors.cases(op, cfg)]
    op_pack.write_op_pack(cases, op_pack.plan_files(cases, "float32"), cfg, "float32", folder / "ops")


def run_op_pack(folder, data):
    (folder / "ops" / "manifest.json").write_bytes(data)
    op_pack.judge_ops(open_pack(folder / "ops"), open_theirs(folder / "ops" / "recipe.safetensors"))


def raw_lists():
    return [b"text.norm bf16 0000.bin 2 3 4\nids i64 0001.bin 3\n"]


def run_raw_list(folder, data):
    (folder / "0000.bin").write_bytes(bytes(48))
    (folder / "0001.bin").write_bytes(bytes(24))
    (folder / "list.txt").write_bytes(data)
    read_everything(folder)


def ports():
    file = io.BytesIO()
    np.savez(file, **{"text.norm": np.ones((2, 3), np.float32), "ids": np.arange(3)})
    return [file.getvalue()]


def run_port(folder, data):
    (folder / "port.npz").write_bytes(data)
    read_everything(folder / "port.npz")


def read_everything(path):
    theirs = open_theirs(path)
    for name in theirs.readers:
        assert theirs.read(name).dtype.kind in "fiub"


def arrays():
    found = []
    for array in (np.ones((2, 3), np.float32), np.arange(3), np.zeros((2, 2), ">f8", order="F")):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return found


def run_array(folder, data):
    (folder / "text.norm.npy").write_bytes(data)
    read_everything(folder)


TARGETS = {
    "packs": Target(pack_manifests, run_pack, "json", write_pack),
    "pack_tensors": Target(pack_tensors, run_pack_tensors, "safetensors", write_pack),
    "op_packs": Target(op_packs, run_op_pack, "json", write_op_pack),
    "raw_lists": Target(raw_lists, run_raw_list),
    "ports": Target(ports, run_port, "archive"),
    "arrays": Target(arrays, run_array, "array"),
    "maps": Target(
        lambda: [b'{"model.norm": "text.norm", "h.0": "text.blocks.0.out"}'],
        lambda folder, data: (folder / "map.json").write_bytes(data) and read_map(folder / "map.json"),
        "json",
    ),
}
