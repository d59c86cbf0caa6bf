"""Writing a golden pack: what the model computes on one question, in float64 and in a recipe, with how to judge it.

A folder of ``manifest.json`` and safetensors files, tensors under npgemma's names in each: ``truth`` is float64 rounded
once, ``recipe`` the emulation, ``accumulators`` and ``bounds`` what each matrix product of the recipe's tensors sums to
before anything is rounded, and the sum of sizes that bounds its error.
"""

import contextlib
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from npgemma.base.device import Fetched
from npgemma.base.elsewhere import elsewhere
from npgemma.base.errors import InputError
from npgemma.base.expressions import explained, inputs_of
from npgemma.base.tensors import Call, schema, tensors
from npgemma.base.version import version
from npgemma.base.weights import Weights
from npgemma.files import writer
from npgemma.judge import raw, tensor_file
from npgemma.judge.beside import given_of, of_weights, run_beside
from npgemma.judge.products import accumulator, length_of, product_of
from npgemma.judge.provenance import blas, weights_digest
from npgemma.judge.rerun import GIVEN, exact_precision, kept_as, stored_as
from npgemma.judge.statistics import statistics
from npgemma.tracing.plan import LIMIT, Question
from npgemma.tracing.selection import check_patterns, matches
from npgemma.tracing.sources import made_at

FORMAT, VERSION, MANIFEST = "npgemma.golden", [1, 0], "manifest.json"
TIERS = ("op", "summary", "residual", "full")
RESIDUAL = (
    "pixels",
    "vision.embedded",
    "vision.blocks.?.out",
    "vision.blocks.??.out",
    "vision.norm",
    "connector.out",
    "text.spliced",
    "text.blocks.?.out",
    "text.blocks.??.out",
    "text.norm",
)
SAMPLES = 64
MEANINGS = {
    "float64": "everything in float64",
    "float32": "everything in float32, sums in any order",
    "bf16-hf-eager": "bfloat16 as transformers computes it with eager attention: every step of its Python is rounded",
    "bf16-f32-inside": "float32 inside each operation, one rounding to bfloat16 where a named tensor leaves it",
}
RAW_DTYPES = {"float64": "f64", "float32": "f32", "bfloat16": "bf16", "integer": "i64", "boolean": "bool"}


@dataclass(frozen=True)
class PackPlan:
    """A pack that is not written yet.

    Parameters
    ----------
    model : Model
    question : Question
    recipe, tier : str
    table : dict of str to Tensor
        All tensors of the call.
    chosen : tuple of str
        Those that go in.
    call : Call
    """

    model: object
    question: Question
    recipe: str
    tier: str
    table: dict
    chosen: tuple
    call: Call

    def files(self):
        """What each file of tensors will hold: name to kind and shape."""
        truth_kind = "float64" if self.recipe == "float64" else "float32"
        truth, recipe, products = {}, {}, {}
        for name in self.chosen:
            tensor = self.table[name]
            shape = (min(SAMPLES, math.prod(tensor.shape)),) if self.tier == "summary" else tensor.shape
            floating = tensor.kind == "float"
            recipe[name] = (stored_as(name, self.recipe) if floating else tensor.kind, shape)
            if floating:
                truth[name] = (truth_kind, shape)
            if self.tier == "full" and product_of(name, tensor, self.model.config, self.call):
                products[name] = shape
        found = {"truth.safetensors": truth, "recipe.safetensors": recipe}
        if products:
            sums = {name: (truth_kind, self.product_shape(name)) for name in products}
            found["accumulators.safetensors"] = sums
            found["bounds.safetensors"] = {name: ("bfloat16", shape) for name, (_, shape) in sums.items()}
        return found

    def product_shape(self, name):
        """Products are kept in the axes of their tensor, flat where heads lie side by side only in it."""
        return (math.prod(self.table[name].shape),)

    @property
    def nbytes(self):
        """Bytes of all files of tensors together."""
        return sum(tensor_file.size_of_file(planned) for planned in self.files().values())


def plan_pack(model, question, recipe, tier="full", select=()):
    """Work out what a pack will hold.

    Raises
    ------
    InputError
        If a pattern fits nothing, or the pack would be too large without a selection.
    """
    given = given_of(question, model.config)
    B, T = question.ids.shape
    call = Call(B, len(given["pixels"]) if "pixels" in given else 0, T)
    table = tensors(model.config, call.batch, call.pictures, call.length)
    check_patterns(select, table)
    patterns = select or (RESIDUAL if tier == "residual" else ())
    chosen = tuple(name for name in table if not patterns or matches(name, patterns) or name in GIVEN)
    planned = PackPlan(model, question, recipe, tier, table, chosen, call)
    if planned.nbytes > 2 * LIMIT and not select:
        size = f"{planned.nbytes / 1e9:.3g} GB"
        raise InputError(
            f"a {tier} pack would take {size}; choose tensors (--select 'text.blocks.*.out'), or --tier residual"
        )
    return planned


def write_pack(planned, path, with_raw=False, tell=None):
    """Run the model in float64 and in the recipe, and write the pack.

    Parameters
    ----------
    planned : PackPlan
    path : path
        A new folder.
    with_raw : bool
        Add the raw form, for readers without Python.
    tell : callable, optional
        ``tell(tensors done, tensors)``
    """
    with writer.writing_folder(path) as folder, contextlib.ExitStack() as stack:
        open_files = {
            name: stack.enter_context(tensor_file.writing(folder / name, held))
            for name, held in planned.files().items()
        }
        raws = {name: raw.RawFolder(folder / "raw" / name) for name in ("truth", "recipe")} if with_raw else {}
        taker = Taker(planned, open_files, raws)
        run_beside(planned.model, planned.question, planned.recipe, taker.take, tell)
        stack.close()
        for each in raws.values():
            each.finish()
        write_manifest(folder, manifest(planned, taker.entries, files_in(folder), tell))


class Taker:
    """Takes each tensor of the two runs, writes it, and describes it.

    Parameters
    ----------
    planned : PackPlan
    files : dict of str to TensorFile
    raws : dict of str to RawFolder
    """

    def __init__(self, planned, files, raws):
        self.planned, self.files, self.raws = planned, files, raws
        self.entries = []
        self.exact = Weights(Fetched(planned.model.weights.arrays), exact_precision(planned.recipe))
        self.seen, self.needed = {}, self.last_uses() if "bounds.safetensors" in files else {}

    def last_uses(self):
        """The last tensor that is made of each, so that it need not be kept longer."""
        cfg, call, found = self.planned.model.config, self.planned.call, {}
        known = {**self.planned.table, **schema(cfg)}
        for name, tensor in self.planned.table.items():
            found |= dict.fromkeys(inputs_of(name, tensor, cfg, call, known), name)
        return found

    def take(self, name, emulated, truth):
        """Write one tensor into each file that is to hold it."""
        if name in self.planned.chosen:
            written = {}
            for file, array in (("truth.safetensors", truth), ("recipe.safetensors", emulated)):
                if name in self.files[file].planned:
                    part = sampled(array) if self.planned.tier == "summary" else array
                    self.files[file].put(name, part)
                    written[file] = self.files[file].digests[name]
                    self.put_raw(file, name, part)
            self.put_product(name)
            self.entries.append(entry(self.planned, name, emulated, written, len(self.entries)))
        if name in self.needed:
            self.seen[name] = emulated
        for done in [each for each in self.seen if self.needed[each] == name]:
            del self.seen[done]

    def put_raw(self, file, name, array):
        """Add a tensor to the raw form, where there is one."""
        folder = self.raws.get(file.removesuffix(".safetensors"))
        if folder is not None:
            kind = self.files[file].planned[name][0]
            folder.put(name, array, RAW_DTYPES[kind])

    def put_product(self, name):
        """Write what a matrix product sums to, and its bound."""
        held = self.files.get("bounds.safetensors")
        if held is None or name not in held.planned:
            return
        cfg, call = self.planned.model.config, self.planned.call
        expression = product_of(name, self.planned.table[name], cfg, call)
        value, size = accumulator(name, expression, self.seen, self.exact, cfg, call)
        self.files["accumulators.safetensors"].put(name, value.reshape(-1))
        held.put(name, size.reshape(-1))


def sampled(array):
    """At most :data:`SAMPLES` elements, evenly spread over the flat order."""
    flat = np.asarray(array).reshape(-1)
    return flat[:: step_of(flat.size)][:SAMPLES]


def step_of(size):
    """The stride of a sample."""
    return max(1, size // SAMPLES)


def entry(planned, name, emulated, written, order):
    """What a manifest says of one tensor."""
    cfg, call, tensor = planned.model.config, planned.call, planned.table[name]
    file, line = made_at(tensor.row.kept_in, name)
    other = elsewhere(name, cfg)
    names = {
        "transformers": other.modules["5.x"],
        "which": other.which,
        "big_vision": other.big_vision,
        "gguf": other.gguf,
        "llama.cpp": other.graph,
    }
    found = {
        "name": name,
        "shape": list(tensor.shape),
        "axes": tensor.letters.split(),
        "kind": tensor.kind,
        "order": order,
        "expression": tensor.row.expression,
        "formula": explained(name, tensor, cfg, call),
        "made_of": inputs_of(name, tensor, cfg, call, {**planned.table, **schema(cfg)}),
        "source": f"npgemma/{file.name}:{line}",
        "elsewhere": {key: value for key, value in names.items() if value},
        "check": check_of(planned, name, tensor),
        "expect": {} if tensor.kind != "float" else {"ratio_expected": 1.2, "ratio_max": 2.0},
        "stats": statistics(emulated),
        "sha256": written,
    }
    if planned.tier == "summary":
        size = math.prod(tensor.shape)
        found["sample"] = {"step": step_of(size), "count": min(SAMPLES, size)}
    return found


def check_of(planned, name, tensor):
    """How a tensor is to be judged."""
    if not tensor.row.expression:
        return {"mode": "given"}
    if tensor.kind != "float":
        return {"mode": "exact"}
    cfg, call = planned.model.config, planned.call
    product = product_of(name, tensor, cfg, call)
    if not product:
        return {"mode": "noise"}
    return {"mode": "dot", "length": length_of(name, tensor, cfg, call), "bias": ".bias" in product}


def manifest(planned, entries, files, tell=None):
    """The whole manifest; the same bytes for the same model, question, NumPy and BLAS."""
    question, model = planned.question, planned.model
    return {
        "format": FORMAT,
        "version": VERSION,
        "producer": {"npgemma": version(), "numpy": np.__version__, "blas": blas()},
        "tier": planned.tier,
        "recipe": recipe_of(planned),
        "model": {"name": model.name, "config": asdict(model.config), "weights_sha256": weights_digest(model, tell)},
        "inputs": {
            "image": Path(question.image).name,
            "prompt": question.prompt,
            "pictures": planned.call.pictures,
            **{name: getattr(question, name).tolist() for name in GIVEN if name != "pixels"},
        },
        "files": files,
        "tensors": entries,
    }


def recipe_of(planned):
    """What a manifest says of the recipe."""
    name, weights = planned.recipe, of_weights(planned.model, planned.recipe)
    found = {"name": name, "stored": kept_as(name), "meaning": MEANINGS[name]}
    return found | {"weights": weights} if weights else found


def files_in(folder, tell=None):
    """Size and sha256 of each file of a folder, in the order of their paths; ``tell(bytes done, bytes)`` on the way."""
    found = {}
    paths = sorted(each for each in folder.rglob("*") if each.is_file())
    done, total = 0, sum(path.stat().st_size for path in paths)
    for path in paths:
        digest = hashlib.sha256()
        mapped = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.zeros(0, np.uint8)
        for start in range(0, mapped.size, 1 << 24):
            digest.update(mapped[start : start + (1 << 24)].tobytes())
            done += len(mapped[start : start + (1 << 24)])
            if tell is not None:
                tell(done, total)
        found[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
    return found


def write_manifest(folder, value):
    """Write ``manifest.json``."""
    writer.write_file(folder / MANIFEST, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
