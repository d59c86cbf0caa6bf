"""Write golden/: what PyTorch and transformers say, in float64, float32 and two bfloat16 recipes.

    python tools/golden/export.py                  everything, into golden/
    python tools/golden/export.py --out elsewhere  the same elsewhere, e.g. for tools/golden/compare.py

Needs the packages of tools/requirements.txt; a CPU is enough and it takes about half a minute.
"""

import argparse
import hashlib
import json
import pathlib
import platform

import golden_batches
import golden_equations
import golden_inputs
import golden_models
import golden_trace
import numpy as np
import torch
import transformers
from golden_precision import DTYPES, load
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCES = {
    "float64": {"operation": 1e-13, "block_and_logits": 1e-12, "re_export": 1e-12},
    "float32": {"operation": 1e-6, "end_to_end": 1e-5, "re_export": 1e-5},
    "bf16": {"share_of_equal_bits": 0.999, "may_differ_below_1000_elements": 1, "gelu_from": -2.9, "re_export": 0.999},
}
PROVES = {
    "equations": "each equation alone at the widths of the releases, where a bfloat16 recipe shows itself",
    "trace": "the whole forward pass, name by name: pictures, two prompts of different length, suffixes, right padding",
    "pictures": "the vision tower and the connector for the three pictures that the other batches show",
    "left_padding": "pads before the prompt are looked at by nobody",
    "right_padding": "pads after the prompt are looked at by nobody",
    "generation_positions": "positions that count real tokens, as transformers' generate gives them",
    "several_pictures": "two pictures in one prompt, spliced in order",
    "uneven_pictures": "rows with one, no and two pictures: the flat list of pictures is dealt out row by row",
    "text_only": "no picture at all",
    "empty_prompt": "a picture, bos and newline: no words",
    "suffix": "teacher forcing: bidirectional prefix, causal suffix, padding on the left",
    "causal": "token types all one are plain causal attention (what transformers does without token types)",
    "cached_steps": "a prefill, then one token at a time through the cache",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "golden", help="folder to write (default: golden/)")
    out = parser.parse_args().out
    transformers.utils.logging.disable_progress_bar()
    export_equations(out / "equations")
    for name in golden_models.MODELS:
        export_model(name, out / name)
    write_manifest(out)


def export_equations(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for precision in golden_equations.DTYPES:
        save(golden_equations.export(precision), folder / f"{precision}.safetensors")


def export_model(name, folder):
    """The checkpoint of one tiny model, its whole trace in four precisions, and its other batches in float64."""
    folder.mkdir(parents=True, exist_ok=True)
    golden_models.save_model(name, folder)
    config = golden_models.config_of(name)
    whole = golden_batches.whole_batch(config)
    save(as_tensors(whole), folder / "trace-inputs.safetensors")
    for precision in DTYPES:
        tensors = golden_trace.run(folder, whole, precision)
        check_dtype(tensors, DTYPES[precision])
        save(tensors, folder / f"trace-{precision}.safetensors")
    save(export_pictures(folder, config), folder / "pictures.safetensors")
    tensors = {}
    for kind, batch in golden_batches.other_batches(config).items():
        tensors |= prefixed(kind, export_batch(folder, batch))
    tensors |= prefixed("cached_steps", export_cached(folder, config))
    save(tensors, folder / "batches.safetensors")


def export_pictures(folder, config):
    """Vision tower and connector for all pictures, each block's output, float64."""
    pixels = golden_batches.pictures(config.vision_config.image_size)
    rows = [golden_batches.row(config, 1, golden_batches.PICTURES, 0)]
    tensors = golden_trace.run(
        folder, golden_batches.batch(rows, "right", list(range(len(pixels))), pixels), "float64"
    )
    kept = {key: tensors[key] for key in tensors if key.startswith("vision.") and key.endswith("out")}
    kept = {key: kept[key] for key in kept if key.count(".") == 3}
    kept |= {key: tensors[key] for key in ("vision.norm", "connector.out")}
    return {"pixels": torch.from_numpy(pixels), **kept}


def is_judged(name):
    """True for the tensors that the other batches store: masks, each text block's output, logits."""
    parts = name.split(".")
    return parts[0] == "mask" or name == "text.logits" or (parts[:2] == ["text", "blocks"] and parts[3:] == ["out"])


def export_batch(folder, batch):
    tensors = golden_trace.run(folder, batch, "float64")
    check_dtype(tensors, torch.float64)
    return as_tensors(batch, pixels=False) | {key: tensors[key] for key in tensors if is_judged(key)}


def export_cached(folder, config):
    """A prefill and its steps through transformers' own cache; checked against one long call."""
    prefill, steps = golden_batches.cached_batch(config)
    model = load(folder, "float64")
    tensors = as_tensors(prefill, pixels=False) | {"steps": torch.from_numpy(steps)}
    call = golden_trace.arguments(prefill, torch.float64)
    past, attention_mask = None, call["attention_mask"]
    last = call["position_ids"][:, -1:]
    for number in range(steps.shape[1] + 1):
        with torch.no_grad(), golden_trace.recording(model, "float64") as recorder:
            answer = model(**call, past_key_values=past, use_cache=True)
        past = answer.past_key_values
        kept = recorder.tensors | {"text.logits": answer.logits}
        # The sliding layers' cache forgets old keys, so that their mask has another width than ours.
        kept = {key: kept[key] for key in kept if is_judged(key) and (key != "mask.sliding" or number == 0)}
        tensors |= prefixed("prefill" if number == 0 else f"step{number - 1}", kept)
        if number < steps.shape[1]:
            attention_mask = torch.cat([attention_mask, torch.ones_like(last)], dim=1)
            call = {
                "input_ids": torch.from_numpy(steps[:, number : number + 1].copy()),
                "attention_mask": attention_mask,
                "position_ids": last + number + 1,
                "token_type_ids": torch.ones_like(last),
            }
    check_dtype(tensors, torch.float64)
    compare_with_one_long_call(folder, prefill, steps, tensors)
    return tensors


def compare_with_one_long_call(folder, prefill, steps, tensors):
    """Refuse cached logits that one call over all tokens does not confirm (its last step may be an image token)."""
    count = steps.shape[1] - 1
    longer = dict(prefill)
    for key, more in {
        "ids": steps[:, :count],
        "token_types": np.ones_like(steps[:, :count]),
        "attention_mask": np.ones_like(steps[:, :count]),
        "positions": prefill["positions"][:, -1:] + 1 + np.arange(count),
    }.items():
        longer[key] = np.concatenate([prefill[key], more], axis=1)
    logits = golden_trace.run(folder, longer, "float64")["text.logits"]
    for number in range(count):
        ours = tensors[f"step{number}/text.logits"][:, 0]
        difference = (ours - logits[:, number - count]).abs().max().item()
        if difference > 1e-13 * logits.abs().max().item():
            raise RuntimeError(f"cached step {number} and one long call differ by {difference:.2e}")


def prefixed(prefix, tensors):
    return {f"{prefix}/{key}": tensor for key, tensor in tensors.items()}


def as_tensors(batch, pixels=True):
    """The arrays of a batch; pixels are left out where ``picked`` says which pictures they were."""
    return {
        key: torch.from_numpy(array)
        for key, array in batch.items()
        if array is not None and (pixels or key != "pixels")
    }


def check_dtype(tensors, dtype):
    """Refuse a tensor of another float type, and float64 values that went through float32 on their way."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or name == "pixels":
            continue
        if tensor.dtype != dtype and not name.startswith(("text.cos", "text.sin")):
            raise RuntimeError(f"{name} is {tensor.dtype}; want {dtype}")
        if tensor.dtype == torch.float64:
            moving = tensor[(tensor != 0) & (tensor.abs() != 1)]
            narrow = (moving == moving.to(torch.float32).to(torch.float64)).to(torch.float64).mean().item()
            if moving.numel() and narrow > 0.01:
                raise RuntimeError(f"{name}: {narrow:.0%} of its values are float32 numbers; some step was not widened")


def save(tensors, path):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    path.chmod(0o644)  # safetensors writes files that only their owner can read


def write_manifest(out):
    """Provenance, versions, seeds, hashes, tolerances, and what each case proves."""
    files = {}
    for path in sorted(path for folder in ("equations", *golden_models.MODELS) for path in (out / folder).iterdir()):
        content = path.read_bytes()
        files[str(path.relative_to(out))] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = {
        "format": "npgemma.golden",
        "version": [1, 0],
        "command": "python tools/golden/export.py",
        "made_by": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "numpy": np.__version__,
            "machine": platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "attention": "eager",
        },
        "seeds": {"weights": golden_models.SEEDS, "numbers": "tools/golden/golden_inputs.py, raw bits of PCG64"},
        "tolerances": TOLERANCES,
        "proves": PROVES,
        "equations": {
            name: {"constants": case.constants, "inputs_sha256": hash_of(golden_inputs.inputs_of(name))}
            for name, case in golden_inputs.EQUATIONS.items()
        },
        "files": files,
        "total_bytes": sum(entry["bytes"] for entry in files.values()),
    }
    (out / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n")


def hash_of(arrays):
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
