"""Killed at random moments while it writes: nothing looks whole and is not, no answer is lost or doubled."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

from npgemma.judge.read_pack import open_pack

ROOT = Path(__file__).parents[2]

# Imports once, then runs a command again and again in children, each killed after a while; the last one may finish.
SCRIPT = """
import os, random, shutil, signal, sys, time
sys.path[:0] = ["tests"]
import npgemma
from npgemma import cli
from npgemma.verbs import options, generate, pack, trace

rng, moments, words = random.Random(int(sys.argv[1])), int(sys.argv[2]), sys.argv[3:]
model = npgemma.load()
options.load = lambda *args, **kwargs: model

def child(delay):
    begun = time.monotonic()
    process = os.fork()
    if process == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        code = cli.main(words)
        os._exit(code)
    if delay is not None:
        time.sleep(delay)
        number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
        os.kill(process, number)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return status, time.monotonic() - begun

def partial():
    return {name for name in os.listdir(".") if name.endswith(".partial")}

def look(name):
    if os.path.exists(name):
        os.rename(name, f"{name}.{rng.randrange(10**9)}.seen")

target = words[words.index("-o" if "-o" in words else "--draw") + 1]
_, whole = child(None)
grows = "--batch" in words
(shutil.rmtree if os.path.isdir(target) else os.remove)(target)
for moment in range(moments):
    before = partial()
    status, _ = child(rng.uniform(0, 1.1 * whole / (3 if grows else 1)))
    # Told to end, not killed: it has cleaned up.
    assert status == -signal.SIGKILL or not partial() - before, (status, partial())
    if not grows:
        look(target)
    elif rng.random() < 0.1 and os.path.exists(target):
        os.rename(target, f"{target}.{rng.randrange(10**9)}.seen")
status, _ = child(None)
assert status == 0, status
"""
QUESTIONS = 8
# A hundred and more of each take a minute: NPGEMMA_KILLS=200 before a release.
MOMENTS = int(os.environ.get("NPGEMMA_KILLS", "6"))


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    lines = [{"image": "a.png", "prompt": "caption en", "id": n} for n in range(QUESTIONS)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def killed(folder, moments, *words):
    """Run a command many times, killed; gives the names that lie in the folder at the end, but those it had."""
    before = set(os.listdir(folder))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    seed = random.randrange(10**6)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(seed), str(moments), *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300 + 5 * moments,
    )
    assert done.returncode == 0, (seed, done.stderr)
    return sorted(set(os.listdir(folder)) - before)


def test_row_84_a_trace_is_whole_or_not_there(folder):
    names = killed(folder, MOMENTS, "trace", "a.png", "caption en", "-o", "t.safetensors", "--quiet")
    assert "t.safetensors" in names and all(name.startswith("t.safetensors") for name in names)
    sizes = set()
    for name in names:
        with safe_open(folder / name, "np") as file:
            sizes.add(len(file.keys()))
    assert len(sizes) == 1


def test_row_84_a_picture_is_whole_or_not_there(folder):
    names = killed(folder, MOMENTS, "generate", "a.png", "detect circle", "--max-tokens", "4", "--draw", "d.png")
    assert "d.png" in names and all(name.startswith("d.png") for name in names)
    for name in names:
        image = Image.open(folder / name)
        image.load()
        assert image.size == (40, 40)


def test_rows_44_and_84_a_pack_is_whole_or_not_there(folder):
    words = ["pack", "a.png", "caption en", "--select", "text.blocks.0.mlp*", "--raw", "-o", "p"]
    names = killed(folder, MOMENTS, *words)
    assert "p" in names and all(name.startswith("p") for name in names)
    assert len({len(open_pack(folder / name).entries) for name in names}) == 1


def test_row_84_a_batch_loses_and_doubles_no_answer(folder):
    words = ["generate", "--batch", "q.jsonl", "--max-tokens", "2", "--batch-size", "2", "-o", "out.jsonl"]
    names = killed(folder, MOMENTS, *words)
    assert "out.jsonl" in names and all(name.startswith("out.jsonl") for name in names)
    for name in names:
        lines = (folder / name).read_text().splitlines()
        found = [json.loads(line) for line in lines]
        assert [line["line"] for line in found] == list(range(1, len(found) + 1))
        assert len({json.dumps(line["ids"]) for line in found}) <= 1
    assert len(found) <= QUESTIONS and len((folder / "out.jsonl").read_text().splitlines()) == QUESTIONS
