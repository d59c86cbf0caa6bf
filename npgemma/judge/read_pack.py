"""Reading a golden pack: its manifest against the schema, its files against their hashes, its tensors one at a time."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from npgemma.base.errors import CheckpointError
from npgemma.files.reader import named, read_json, why
from npgemma.files.safetensors_file import open_safetensors
from npgemma.judge.pack import FORMAT, MANIFEST, VERSION, files_in
from npgemma.judge.read_config import config_in
from npgemma.judge.schema import check
from npgemma.tracing import trace_file

QUESTION = ("ids", "token_types", "attention_mask", "positions")
# In what types a file may hold a tensor of each kind.
KINDS = {"float": ("F64", "F32", "BF16"), "integer": ("I64",), "boolean": ("BOOL",)}
SCHEMA = Path(__file__).parent / "golden-pack-1.schema.json"


@dataclass(frozen=True)
class Pack:
    """A pack that was found whole.

    Parameters
    ----------
    folder : Path
    manifest : dict
    files : dict of str to MappedFile
    """

    folder: Path
    manifest: dict
    files: dict

    @property
    def recipe(self):
        """The recipe's name."""
        return self.manifest["recipe"]["name"]

    @property
    def entries(self):
        """What is said of each tensor, by name, in order of execution."""
        return {entry["name"]: entry for entry in self.manifest["tensors"]}

    @property
    def config(self):
        """The configuration that the manifest holds."""
        return config_in(self.manifest.get("model"), self.folder)

    def read(self, file, name):
        """One tensor of one file, widened; nothing if the file does not hold it."""
        mapped = self.files.get(f"{file}.safetensors")
        if mapped is None or name not in mapped.tensors:
            return None
        mapped.check_size()
        return trace_file.read_tensor(mapped, name)

    def let_go(self, name):
        """Hand the memory of one tensor's files back to the system; it can be read again."""
        for mapped in self.files.values():
            if name in mapped.tensors:
                mapped.let_go(name)

    def given(self):
        """The question: arrays by name, pictures among them if the pack holds them whole."""
        found = question_in(self.manifest["inputs"], self.folder)
        if "pictures" not in self.manifest["inputs"]:
            raise CheckpointError(f"{self.folder}: the manifest's inputs are damaged: they do not count pictures")
        pixels = None if "sample" in self.entries.get("pixels", {}) else self.read("truth", "pixels")
        return found if pixels is None else found | {"pixels": pixels}


def question_in(said, place):
    """The ids and their kin that a manifest holds, (B, T) each."""
    try:
        found = {name: np.array(said[name], dtype=np.int64) for name in QUESTION}
        shapes = {array.shape for array in found.values()}
        if len(shapes) > 1 or found["ids"].ndim != 2 or not found["ids"].size:
            raise ValueError(f"shapes {sorted(shapes)}")
        return found
    except (LookupError, ValueError, OverflowError, TypeError) as problem:
        raise CheckpointError(f"{place}: the manifest's inputs are damaged: {problem!r:.80}") from None


@cache
def schema():
    """The published schema of manifests."""
    return read_json(SCHEMA, CheckpointError)


def open_pack(folder, hashes=True, tell=None):
    """Check a pack and map its files.

    Parameters
    ----------
    folder : path
    hashes : bool
        Whether each file's bytes are held against its sha256; sizes always are.
    tell : callable, optional
        ``tell(bytes done, bytes)`` while they are.

    Raises
    ------
    CheckpointError
        If it is no pack, one of another version, or anything in it does not fit the rest.
    """
    folder = named(folder)
    manifest = read_json(folder / MANIFEST, CheckpointError)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{folder / MANIFEST}: is no golden pack: its format is {manifest.get('format')!r:.80}")
    version = manifest.get("version")
    if not isinstance(version, list) or version[:1] != VERSION[:1]:
        raise CheckpointError(f"{folder}: is a pack of format {version!r:.80}; this npgemma reads {VERSION[0]}.x")
    check(manifest, schema(), str(folder / MANIFEST))
    check_files(folder, manifest["files"], hashes, tell)
    held = [name for name in manifest["files"] if name.endswith(".safetensors")]
    pack = Pack(folder, manifest, {name: open_safetensors(folder / name) for name in held})
    check_tensors(pack)
    return pack


def check_files(folder, listed, hashes, tell):
    """Hold the files that are listed against those that are there."""
    for name in listed:
        path = folder / name
        try:
            inside = path.resolve().is_relative_to(folder.resolve()) and ".." not in Path(name).parts
            there = path.is_file()
        except (OSError, RuntimeError, ValueError) as problem:  # too long a name, a circle of links, a NUL
            raise CheckpointError(f"{folder}: {name!r:.80} cannot be read: {why(problem):.200}") from None
        if not inside:
            raise CheckpointError(f"{folder / MANIFEST}: the file {name!r:.80} lies outside the pack")
        if not there:
            raise CheckpointError(f"{folder}: {name:.80} is missing; fetch the pack again")
        if path.stat().st_size != listed[name]["bytes"]:
            raise CheckpointError(
                f"{path}: has {path.stat().st_size:,} bytes, the manifest says {listed[name]['bytes']:,}"
            )
    extra = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()} - {*listed, MANIFEST}
    if extra:
        raise CheckpointError(f"{folder}: {min(extra)!r:.80} is not of the pack: it is in no list; remove it")
    found = files_in(folder, tell) if hashes else {}
    for name, entry in found.items():
        if name in listed and entry["sha256"] != listed[name]["sha256"]:
            raise CheckpointError(
                f"{folder / name}: its bytes are not those that the manifest was written for (sha256)"
            )


def check_tensors(pack):
    """Hold what the manifest says of tensors against the files."""
    if len(pack.entries) < len(pack.manifest["tensors"]):
        raise CheckpointError(f"{pack.folder}: the manifest lists a tensor twice; fetch the pack again")
    for name, entry in pack.entries.items():
        mapped = pack.files.get("recipe.safetensors")
        if mapped is None or name not in mapped.tensors:
            raise CheckpointError(
                f"{pack.folder}: the manifest lists {name!r:.80}, which recipe.safetensors does not hold"
            )
        wanted = [entry["sample"]["count"]] if "sample" in entry else entry["shape"]
        for file in (mapped, pack.files.get("truth.safetensors")):
            if file is None or name not in file.tensors:
                continue
            held = file.tensors[name]
            if list(held.shape) != wanted:
                raise CheckpointError(f"{file.path}: {name} is {held.shape}, the manifest says {wanted}")
            if held.dtype not in KINDS[entry["kind"]]:
                raise CheckpointError(f"{file.path}: {name} is of {held.dtype}, the manifest says {entry['kind']}")
