"""Check npgemma on a graphics card by one command, and write down what was found.

    python tools/gpu_check.py --out gpu.json          goldens, 8,000 answers of the box, a random 3B beside PyTorch
    python tools/gpu_check.py --table gpu.json        README's table, made of that
    python tools/gpu_check.py --fake --answers 16     here, without a card: the check's own code, nothing about cards

Needs CuPy; for the comparison torch and transformers (tools/requirements.txt), else that part is left out and said so;
and 6 GB of disk for the random 3B, written once to ~/.cache/npgemma (--folder takes a checkpoint that is there).
TF32 must be off: npgemma never asks for it, and CUPY_TF32 is refused.  Exit code 3 if something is beyond its bound.
"""

import argparse
import contextlib
import functools
import gc
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / part) for part in ("tests", "tools/tiny", "tools/bench", "tools/golden"))]

import gpu_subjects  # noqa: E402
from conditions import make_questions  # noqa: E402
from evaluate import answer_all  # noqa: E402
from random_checkpoint import default_folder, ensure_checkpoint  # noqa: E402
from world import TASKS  # noqa: E402

import golden  # noqa: E402
import npgemma  # noqa: E402
from npgemma.base.device import open_card, to_host  # noqa: E402

BOUNDS = {"float64": 1e-11, "float32": 1e-4}
# Of PyTorch eager in the same precision, on the same card.
SLOWER, LARGER = 1.3, 1.1
DTYPES = ("float32", "bfloat16")
# Of the questions to the box: pictures as it was taught, and the same moved (tools/tiny/conditions.py).
CONDITIONS = ("known", "moved")


class CardJudge(golden.Judge):
    """Holds tensors of a card against goldens, within what a card's sums may differ by."""

    def observe(self, name, ours):
        return super().observe(name, to_host(ours))

    def tolerance(self):
        # The angles of a recipe that rounds outside only are float32.
        return BOUNDS.get(self.case.precision, BOUNDS["float32"])


def goldens(device):
    """Judge every golden run on the card: float64 and float32 end to end, bfloat16 recipes operation by operation.

    Returns
    -------
    found : dict
        How many tensors were judged, and which differ.
    """
    golden.model.cache_clear()
    differing, judged = [], 0
    load = functools.partial(npgemma.load, device=device)
    with mock.patch.object(golden, "load", load), mock.patch.object(golden, "Judge", CardJudge):
        for name in golden.MODELS:
            judges = [golden.run(golden.trace_case(name, precision), inject=precision.startswith("bf16"))
                      for precision in golden.PRECISIONS]
            judges += [golden.run(golden.batch_case(name, batch)) for batch in golden.BATCHES]
            judges += golden.run_cached(name)
            judged += sum(len(judge.case.expected) for judge in judges)
            differing += [str(difference) for judge in judges for difference in judge.differences]
    golden.model.cache_clear()
    return {"tensors": judged, "differ": differing[:20], "bounds": BOUNDS, "tf32": False}


def box(device, answers, batch):
    """Answers of the model in the box to held-out questions, on the host and on the card: how many have other ids."""
    host, card = npgemma.load(), npgemma.load(device=device)
    asked, others, seconds = 0, [], {"host": 0.0, "card": 0.0}
    parts = [(task, condition) for condition in CONDITIONS for task in TASKS]
    for task, condition in parts:
        questions = make_questions(task, condition, 0, -(-answers // len(parts)))[: answers - asked]
        asked += len(questions)
        found = {}
        for where, model in (("host", host), ("card", card)):
            began = time.perf_counter()
            found[where] = answer_all(model, questions, batch)
            seconds[where] += time.perf_counter() - began
        for one, ours, theirs in zip(questions, found["host"], found["card"], strict=True):
            if ours.ids != theirs.ids:
                others.append({"seed": one.seed, "prompt": one.prompt, "host": ours.ids, "card": theirs.ids})
    return {"answers": asked, "other_ids": len(others), "first_others": others[:5], "seconds": seconds}


def subjects(options):
    """Time npgemma and PyTorch, in both precisions, taking turns."""
    found = {}
    for dtype in options.dtypes:
        for subject in ("npgemma", "transformers"):
            if subject == "transformers" and not importlib.util.find_spec("transformers"):
                found[f"transformers-{dtype}"] = {"left_out": "torch and transformers are not installed"}
                continue
            settings = {
                "subject": subject, "dtype": dtype, "model": str(options.folder), "device": options.device,
                "torch_device": "cpu" if options.fake else options.device, "text": options.text,
                "repeats": options.repeats, "steps": options.steps,
            }
            found[f"{subject}-{dtype}"] = run_subject(settings, options.fake)
    return found


def run_subject(settings, here):
    """Run one subject in a process of its own, or here, where the pretended card is."""
    if here:
        gc.collect()  # what lies on the pretended card still is none of this subject's
        return getattr(gpu_subjects, settings["subject"])(settings)
    script = ROOT / "tools" / "bench" / "gpu_subjects.py"
    done = subprocess.run([sys.executable, str(script), json.dumps(settings)], capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:] or done.returncode}
    return json.loads(done.stdout.strip().splitlines()[-1])


def about(options):
    """The card, and what runs on it."""
    if options.fake:
        return {"card": "none: the pretended one of the tests", "numpy": np.__version__}
    card = open_card(options.device)
    cupy, number = card.cupy, card.device.id
    return {
        "card": cupy.cuda.runtime.getDeviceProperties(number)["name"].decode(), "cupy": cupy.__version__,
        "memory_gb": round(card.device.mem_info[1] / 1e9, 1), "driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda": cupy.cuda.runtime.runtimeGetVersion(), "numpy": np.__version__, "python": platform.python_version(),
    }


def verdicts(found):
    """What is beyond its bound, a line each; none is the aim."""
    lines = [f"golden: {each}" for each in found["goldens"]["differ"]]
    if found["box"]["other_ids"]:
        lines.append(f"box: {found['box']['other_ids']} of {found['box']['answers']} answers have other ids")
    for dtype in DTYPES:
        ours, theirs = (found["subjects"].get(f"{name}-{dtype}", {}) for name in ("npgemma", "transformers"))
        for name in (name for name, each in (("npgemma", ours), ("transformers", theirs)) if "failed" in each):
            lines.append(f"{name} {dtype}: {found['subjects'][f'{name}-{dtype}']['failed']}")
        if "first" not in ours or "first" not in theirs or found["fake"]:
            continue
        for figure, bound in (("first", SLOWER), ("step", SLOWER), ("peak_gb", LARGER)):
            if ours[figure] > bound * theirs[figure]:
                lines.append(f"{dtype}: {figure} is {ours[figure] / theirs[figure]:.2f} of PyTorch's; want {bound}")
    return lines


def table(found):
    """README's table."""
    on = found["about"]["card"]
    lines = [f"On {on}: {found['goldens']['tensors']:,} golden tensors, {len(found['goldens']['differ'])} differ; "
             f"{found['box']['answers']:,} answers of the box, {found['box']['other_ids']} with other ids.", "",
             "| | ready | first token | each further | peak memory |", "|---|---|---|---|---|"]
    for name, each in found["subjects"].items():
        if "first" in each:
            lines.append(f"| {name.replace('-', ' ')} | {each['ready']:.1f} s | {1e3 * each['first']:.0f} ms | "
                         f"{1e3 * each['step']:.1f} ms | {each['peak_gb']:.1f} GB |")
        else:
            lines.append(f"| {name.replace('-', ' ')} | {each.get('left_out') or each.get('failed')} | | | |")
    for name, each in found["subjects"].items():
        if "a_token" in each:
            moved = each["a_token"]
            lines += ["", f"{name}: a token sends {moved['up']:g} arrays and brings {moved['down_bytes']:g} bytes back "
                      f"in {moved['down']:g} transfer."]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("--table", type=Path, metavar="FILE.json", help="print the table of an earlier run")
    parser.add_argument("--fake", action="store_true", help="on the pretended device of the tests")
    parser.add_argument("--answers", type=int, default=8000, help="of the box")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--variant", default="paligemma-3b-224")
    parser.add_argument("--folder", type=Path, help="the checkpoint to time; a random one of --variant if left out")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument("--text", type=int, default=5, help="tokens of the prompt beside the picture's")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return 0
    if os.environ.get("CUPY_TF32", "0") != "0":
        parser.error("CUPY_TF32 is set; unset it: float32 is judged as float32")
    with contextlib.ExitStack() as stack:
        if options.fake:
            from fake_device import planted

            stack.enter_context(planted())
            options.folder = options.folder or ROOT / "npgemma" / "tiny"
        try:
            found = {"fake": options.fake, "about": about(options)}  # the card comes first: the rest takes long
        except npgemma.NpgemmaError as problem:
            sys.exit(f"gpu_check.py: {problem.naming('--device')}")
        options.folder = options.folder or ensure_checkpoint(options.variant, default_folder())
        found["goldens"] = goldens(options.device)
        found["box"] = box(options.device, options.answers, options.batch)
        found["subjects"] = subjects(options)
    found["beyond"] = verdicts(found)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    print("\n".join(["", *found["beyond"]] if found["beyond"] else ["", "everything is within its bound"]))
    return 3 if found["beyond"] else 0


if __name__ == "__main__":
    sys.exit(main())
