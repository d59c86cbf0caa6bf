"""The README's promises, held against what the interpreter itself reports: each file opened, process, socket."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# An audit hook hears what no code can hide: every opened file, started process, socket, compiled and unpickled object.
SCRIPT = """
import json, os, sys
heard = []
def hear(event, args):
    rooms = ("open", "subprocess", "socket", "ctypes", "pickle", "webbrowser", "urllib", "ftplib")
    calls = ("system", "exec", "posix_spawn", "fork", "remove", "rename", "mkdir", "link", "symlink", "truncate")
    if event.split(".")[0] in rooms or event.startswith("os.") and event[3:] in calls:
        heard.append([event, [str(each) for each in args]])
sys.addaudithook(hear)
import npgemma
from npgemma import cli
out = sys.argv[1]
code = cli.main(json.loads(sys.argv[2]))
with open(out, "w") as file:
    json.dump([code, heard], file)
"""
SYSTEM = ("/proc/", "/sys/fs/cgroup", "/dev/null", "/dev/urandom")


def heard_of(tmp_path, *words):
    """Run a command under the hook; gives what was heard: (event, arguments)."""
    out = tmp_path / "heard.json"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SCRIPT, str(out), json.dumps(words)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert out.exists(), done.stderr
    code, heard = json.loads(out.read_text())
    assert code == 0, done.stderr
    return [(event, args) for event, args in heard if event != "open" or args[0] != str(out)]


def is_pythons(path):
    """Tell a file of Python, its packages and its shared libraries, npgemma's own code included."""
    roots = [Path(each).resolve() for each in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path) if each]
    roots = [root for root in roots if root != Path("/")]
    whole = Path(os.path.realpath(path))
    roots += [ROOT.resolve() / "npgemma", Path("/usr/lib"), Path("/lib")]
    code = whole.suffix in (".py", ".pyc", ".so", ".pth", ".zip", ".cfg", "") or ".so." in whole.name
    return path.isdigit() or code and any(whole.is_relative_to(root) for root in roots)


@pytest.fixture
def folder(tmp_path):
    """A model's folder full of temptations, and a picture elsewhere."""
    model = tmp_path / "model"
    model.mkdir()
    for path in (ROOT / "npgemma" / "tiny").iterdir():
        if path.is_file():
            (model / path.name).write_bytes(path.read_bytes())
    for name in ("modeling.py", "pytorch_model.bin", "weights.pkl", "setup.py", "tokenizer.py", "image_processing.py"):
        (model / name).write_bytes(b"raise SystemExit('this was run')")
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling.Model", "AutoTokenizer": "tokenizer.Tokenizer"}
    (model / "config.json").write_text(json.dumps(config))
    picture = next((ROOT / "npgemma" / "tiny" / "pictures").glob("*.png"))
    (tmp_path / "cat.png").write_bytes(picture.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    "words",
    (
        ["generate", "cat.png", "caption en", "--model", "model", "--max-tokens", "2"],
        ["score", "cat.png", "caption en", "a", "b", "--model", "model", "--dtype", "bfloat16"],
        ["trace", "cat.png", "caption en", "--model", "model", "--quiet"],
        ["doctor", "model"],
    ),
    ids=lambda words: words[0],
)
def test_nothing_is_opened_but_the_folder_and_the_inputs_nothing_started_nothing_sent(folder, words):
    heard = heard_of(folder, *words)
    opened = [args[0] for event, args in heard if event == "open"]
    ours = [path for path in opened if not is_pythons(path) and not path.startswith(SYSTEM)]
    inside = [Path(os.path.realpath(folder / path)) for path in ours]
    strange = [path for path in inside if path.parent != folder / "model" and path != folder / "cat.png"]
    assert not strange, strange
    assert {path.name for path in inside} >= {"config.json", "model.safetensors", "tokenizer.model"}
    never = {".py", ".bin", ".pkl"}
    assert not [path for path in inside if path.suffix in never]
    others = [(event, args) for event, args in heard if event != "open"]
    # NumPy asks the C library for its page size; that starts and sends nothing.
    assert not [(event, args) for event, args in others if not event.startswith("ctypes.")], others


def test_only_the_output_is_written(folder):
    heard = heard_of(folder, "trace", "cat.png", "caption en", "--model", "model", "--quiet", "-o", "t.safetensors")
    before = {"model", "cat.png", "heard.json"}
    assert set(os.listdir(folder)) == before | {"t.safetensors"}
    changed = {event: args for event, args in heard if event in ("os.remove", "os.rename", "os.mkdir", "os.link")}
    assert [Path(each).name for each in changed.pop("os.rename")[:2]] == [".t.safetensors.partial", "t.safetensors"]
    assert not changed
