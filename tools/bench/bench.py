"""Time npgemma against transformers and against this machine's own ceilings, side by side in one run.

    python tools/bench/bench.py                                     PaliGemma 1 3B at 224 pixels
    python tools/bench/bench.py --variant paligemma2-3b-224 --repeats 5 --json out.json
    python tools/bench/bench.py --only npgemma-bfloat16 ceilings    some of the subjects
    python tools/bench/bench.py --rows 1 4 8 --beams 4              further tokens of several rows at once, of beams
    python tools/bench/bench.py --busy --only npgemma-bfloat16 box box-one-thread     under load, and without
    python tools/bench/bench.py --blocks 4                          four blocks a tower: matrices as large, in seconds

Each subject runs in a process of its own, one after the other, on the same random full-size checkpoint (bfloat16 on
disk, written once) and the same prompt; figures are medians.  Ratios of one run may be quoted, seconds of two may not:
--rounds runs all subjects in turn, and gives the median of the ratios of each round.
npgemma runs as its command does, BLAS on one thread and npgemma's own on all, or, with --library, as in a program that
imported NumPy first.  Yardsticks are the machine's: the bytes that must be read over its speed of reading, the
operations over the speed of its best product, whichever takes longer; a second one is the model's own products alone.
transformers is left out where it is not installed.  OPENBLAS_CORETYPE is unset for NumPy, as on a user's machine.
Needs the file's size in the system's cache, and 18 GB of memory for a 3B model in transformers' float32.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import subjects
from machine import busy
from random_checkpoint import default_folder, ensure_checkpoint

from npgemma.base.threads import BLAS_VARIABLES, OUR_VARIABLE, processors
from npgemma.config import VARIANTS

ROOT = Path(__file__).resolve().parents[2]
# Behind the name of a subject that ran under load.
BUSY = ", busy"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--variant", choices=VARIANTS, default="paligemma-3b-224")
    which.add_argument("--model", type=checkpoint, help="a checkpoint to time instead of a random one: a folder")
    parser.add_argument("--blocks", type=count, help="of the random checkpoint: so many blocks a tower instead of all")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where random checkpoints are kept")
    parser.add_argument("--batch", type=count, default=1, help="prompts, and pictures, at once")
    parser.add_argument("--text", type=count, default=5, help="tokens of text behind the image tokens")
    parser.add_argument("--repeats", type=count, default=3, help="first tokens timed")
    parser.add_argument("--rounds", type=count, default=1, help="runs of all subjects in turn; figures are medians")
    parser.add_argument("--steps", type=count, default=12, help="further tokens timed")
    parser.add_argument("--rows", type=count, nargs="+", help="rows of further tokens, in turn (default: --batch)")
    parser.add_argument("--beams", type=count, help="time a further token of so many beams, too")
    parser.add_argument("--busy", action="store_true", help="everything once more beside an endless loop a processor")
    parser.add_argument("--library", action="store_true", help="leave products of many rows to BLAS's own threads")
    parser.add_argument("--quick", action="store_true", help="no warming, products or plain layers")
    parser.add_argument("--only", nargs="+", choices=subjects.SUBJECTS, help="subjects to run")
    parser.add_argument("--json", type=new_file, help="write all figures here")
    parser.add_argument("--show", type=figures_of, metavar="FILE.json", help="print the table of an earlier run")
    arguments = parser.parse_args()
    if arguments.show:
        print(table(arguments.show))
        return 0
    chosen = arguments.only or subjects.SUBJECTS
    if importlib.util.find_spec("transformers") is None:
        print("transformers is not installed, left out", file=sys.stderr)
        chosen = [subject for subject in chosen if not subject.startswith("transformers")]
    if not chosen:
        parser.error("nothing is left to time; pip install -r tools/requirements.txt")
    arguments.model = arguments.model or ensure_checkpoint(arguments.variant, arguments.folder, arguments.blocks)
    arguments.rows = arguments.rows or [arguments.batch]
    names = ("batch", "text", "repeats", "steps", "quick", "rows", "beams", "library")
    settings = {name: getattr(arguments, name) for name in names}
    figures = {"machine": machine(), "model": arguments.model.name, "settings": settings}
    rounds = [one_round(chosen, settings, arguments.model, arguments.busy) for _ in range(arguments.rounds)]
    figures["subjects"] = {subject: middle([results[subject] for results in rounds]) for subject in rounds[0]}
    figures["rounds"] = rounds
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    print(table(figures))
    return int(any("error" in result for result in figures["subjects"].values()))


def count(word):
    """A whole number from 1."""
    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r}; want a whole number from 1")
    return int(word)


def checkpoint(word):
    """A folder that holds a model."""
    if not (Path(word) / "config.json").is_file():
        raise argparse.ArgumentTypeError(f"{word!r} is no folder with a config.json")
    return Path(word).resolve()


def new_file(word):
    """A file that can be written when all is measured."""
    if Path(word).is_dir() or not Path(word).resolve().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{word!r} cannot be written; want a file in a folder that exists")
    return Path(word)


def figures_of(word):
    """What --json wrote."""
    try:
        figures = json.loads(Path(word).read_text())
        return {key: figures[key] for key in ("machine", "model", "settings", "subjects", "rounds")}
    except (OSError, ValueError, TypeError, KeyError) as problem:
        raise argparse.ArgumentTypeError(f"{word!r} holds no figures of this bench ({problem!r})") from None


def one_round(chosen, settings, model, under_load):
    """Run all subjects, one after the other, and each again under load; gives the figures of each."""
    results = {}
    for subject in chosen:
        results[subject] = run_subject(subject, settings, model)
        if under_load and subject != "ceilings":
            with busy(processors()):
                results[subject + BUSY] = run_subject(subject, settings, model)
    return results


def run_subject(subject, settings, model):
    """Run one subject in a process of its own; gives its figures, or what went wrong."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    environment["PYTHONPATH"] = str(ROOT)
    if subject.startswith("npgemma") and not settings["library"] and not any(map(os.environ.get, BLAS_VARIABLES)):
        environment |= dict.fromkeys(BLAS_VARIABLES, "1") | {OUR_VARIABLE: str(processors())}  # as the command does
    start = time.perf_counter()
    settings = settings | {"subject": subject, "model": str(model)}
    command = [sys.executable, str(Path(__file__).with_name("subjects.py")), json.dumps(settings)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    print(f"{subject}: {time.perf_counter() - start:.0f} s in all", file=sys.stderr)
    if done.returncode:
        return {"error": f"ended with {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def middle(results):
    """The median of each figure over the rounds; of what is no number, the last."""
    failed = next((result for result in results if "error" in result), None)
    if failed:
        return failed
    return {key: statistics.median(result[key] for result in results) if isinstance(last, (int, float)) else last
            for key, last in results[-1].items()}


def machine():
    """What a reader must know to judge the figures."""
    names = ["numpy", "torch", "transformers"]
    installed = {name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)}
    return {
        "date": time.strftime("%Y-%m-%d"), "cpu": cpu_name(), "cores": processors(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "python": platform.python_version(), "load_before": round(os.getloadavg()[0], 2), **installed,
        "threads_told": os.environ.get("OPENBLAS_NUM_THREADS", "not set"),
    }


def cpu_name():
    """The processor's name as Linux gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


COLUMNS = (
    ("ready", "load", "{:.3g} s"), ("first token", "first", "{:.3g} s"), ("each further", "step", "{:.3g} s"),
    ("anonymous", "anonymous_gb", "{:.1f} GB"), ("mapped", "mapped_gb", "{:.1f} GB"), ("peak", "peak_gb", "{:.1f} GB"),
)


def table(figures):
    """One table of all subjects, then rows beside one another, yardsticks and ratios."""
    told = figures["machine"] | figures["settings"] | {"rounds": len(figures["rounds"])}
    lines = [", ".join(f"{name} {value}" for name, value in told.items()), ""]
    lines.append("| " + figures["model"] + "".join(f" | {title}" for title, _, _ in COLUMNS) + " |")
    lines.append("|--" * (len(COLUMNS) + 1) + "|")
    for subject, result in figures["subjects"].items():
        if "first" in result or "error" in result:
            cells = [form.format(result[key]) if key in result else "" for _, key, form in COLUMNS]
            lines.append(f"| {' '.join([subject, *result.get('error', '').split()])} | " + " | ".join(cells) + " |")
    rounds, settings = figures["rounds"], figures["settings"]
    return "\n".join([*lines, "", *yardsticks(rounds, settings), "", *ratios(rounds, settings), "", *the_rest(figures)])


def yardsticks(rounds, settings):
    """How far from what the machine could do, and from its own products, each npgemma is."""
    lines = ["| seconds over | the machine's | its own products' |", "|--|--|--|"]
    for subject in [name for name in rounds[0] if name.startswith("npgemma")]:
        for key in ("first", *(f"step of {rows}" for rows in settings["rows"])):
            cells = []
            for floor in (machines_seconds, own_products_seconds):
                pairs = [(results[subject].get(key), floor(results, subject, key, settings)) for results in rounds]
                cells.append(f"{middle_ratio(pairs):.2f}" if all(a and b for a, b in pairs) else "")
            lines.append(f"| {subject}, {key} | " + " | ".join(cells) + " |")
    return lines


def machines_seconds(results, subject, key, settings):
    """What this machine would need at best: to multiply, or to read, whichever is longer."""
    machine, result = results.get("ceilings", {}), results[subject]
    if "gflops" not in machine or "first" not in result:
        return None
    if key == "first":
        return result["first_gflop"] / machine["gflops"]
    rows = int(key.split()[-1])
    return max(result["step_gb"] / machine["read_gb"], rows * result["row_gflop"] / machine["gflops"])


def own_products_seconds(results, subject, key, settings):
    """What the model's products took alone, taking turns with it."""
    return results[subject].get(key.replace("first", "first_products").replace("step", "step_products"))


def middle_ratio(pairs):
    """The median of ratios, each of two figures of one round."""
    return statistics.median(a / b for a, b in pairs)


def ratios(rounds, settings):
    """Each claim as the median of its ratios, each taken within one round."""
    lines = []

    def line(ours, key, theirs, their_key=None):
        pairs = [(results.get(ours, {}).get(key), results.get(theirs, {}).get(their_key or key)) for results in rounds]
        if all(a and b for a, b in pairs):
            lines.append(f"{ours} {key} / {theirs} {their_key or key}: {middle_ratio(pairs):.2f}")

    first_rows, *more_rows = settings["rows"]
    steps = [f"step of {rows}" for rows in settings["rows"]]
    for subject in rounds[0]:
        for rows in more_rows:
            line(subject, f"step of {rows}", subject, f"step of {first_rows}")
        line(subject, "beam_step", subject, f"step of {first_rows}")
        for key in ("first", *steps, "questions"):
            if subject.endswith(BUSY):
                line(subject, key, subject.removesuffix(BUSY))
    for load in ("", BUSY):
        for key in ("first", *steps):
            for ours in ("npgemma-float32", "npgemma-bfloat16"):
                for theirs in ("transformers-float32", "transformers-bfloat16"):
                    line(ours + load, key, theirs + load)
            line("npgemma-bfloat16" + load, key, "npgemma-float32" + load)
        line("box" + load, "questions", "box-one-thread" + load)
    return lines


def the_rest(figures):
    """How far the fast layers are from the plain ones, the seconds of the box, and what the machine can."""
    lines = []
    for subject, result in figures["subjects"].items():
        if "from_plain" in result:
            lines.append(f"{subject}, logits, relative L2 from the plain layers': {result['from_plain']:.1e}")
        if "questions" in result:
            lines.append(f"{subject}, 100 questions: {result['questions']:.3g} s")
    ceilings = figures["subjects"].get("ceilings", {}).items()
    return lines + [f"{name}: {value:.3g}" if type(value) is float else f"{name}: {value}" for name, value in ceilings]


if __name__ == "__main__":
    sys.exit(main())
