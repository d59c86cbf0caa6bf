"""Packs: sizes, bytes, the schema, and what is said of one that is damaged."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from golden import GOLDEN, ROOT
from npgemma import cli, load
from npgemma.base.errors import CheckpointError, InputError, OutputError
from npgemma.config import VARIANTS
from npgemma.files import writer
from npgemma.generation.requests import Request
from npgemma.judge import op_pack, pack, vectors
from npgemma.judge.read_pack import open_pack, schema
from npgemma.judge.schema import check
from npgemma.tracing.plan import ask

PICTURE = str(ROOT / "npgemma" / "tiny" / "pictures" / "2-overlap.png")
MB = 1_000_000


@pytest.fixture(scope="module")
def box():
    """The model in the box, and a question to it."""
    model = load()
    return model, ask(model, Request([PICTURE], "caption en"))


@pytest.fixture(scope="module")
def full(box, tmp_path_factory):
    """A full pack of the model in the box."""
    folder = tmp_path_factory.mktemp("packs") / "full"
    pack.write_pack(pack.plan_pack(*box, "bf16-hf-eager"), folder)
    return folder


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_full_pack_of_a_prefill_is_small_and_holds_every_tensor(full):
    assert size_of(full) <= 25 * MB
    found = open_pack(full)
    assert len(found.entries) == 171
    assert found.read("recipe", "text.logits").shape == tuple(found.entries["text.logits"]["shape"])


def test_its_size_is_said_beforehand(box, full):
    planned = pack.plan_pack(*box, "bf16-hf-eager")
    assert planned.nbytes == sum(path.stat().st_size for path in full.glob("*.safetensors"))


def test_bytes_are_the_same_again(box, tmp_path):
    for name in ("one", "two"):
        pack.write_pack(pack.plan_pack(*box, "bf16-hf-eager", "summary"), tmp_path / name)
    one, two = (pack.files_in(tmp_path / name) for name in ("one", "two"))
    assert one == two and "manifest.json" in one


def test_summary_and_op_tiers_are_small(box, tmp_path):
    pack.write_pack(pack.plan_pack(*box, "bf16-hf-eager", "summary"), tmp_path / "summary")
    assert cli.main(["pack", "--tier", "op", "-o", str(tmp_path / "op")]) == 0
    assert size_of(tmp_path / "summary") <= 3 * MB and size_of(tmp_path / "op") <= 3 * MB


def test_a_residual_pack_holds_the_residual_and_a_selection_what_was_selected(box):
    residual = pack.plan_pack(*box, "float32", "residual").chosen
    assert {"text.spliced", "text.blocks.3.out", "vision.blocks.4.out", "text.norm"} <= set(residual)
    assert "text.blocks.3.attn.out" not in residual and "text.logits" not in residual
    assert "text.logits" in pack.plan_pack(*box, "float32", "full", ("text.logits",)).chosen
    with pytest.raises(InputError, match="nearest"):
        pack.plan_pack(*box, "float32", "full", ("text.nothing",))


def test_a_full_pack_of_a_large_picture_is_refused_without_a_selection(monkeypatch, box):
    monkeypatch.setattr(pack, "LIMIT", 1000)
    with pytest.raises(InputError, match="--select"):
        pack.plan_pack(*box, "float32", "full")
    assert pack.plan_pack(*box, "float32", "full", ("text.norm",)).chosen


def test_statistics_are_of_all_values(full):
    found = open_pack(full)
    for name in ("vision.patches", "text.blocks.1.attn.probs"):
        stats, array = found.entries[name]["stats"], found.read("recipe", name).astype(np.float64)
        assert stats["n"] == array.size and stats["nan"] == stats["inf"] == 0
        assert stats["sum_f64"] == pytest.approx(float(np.sum(array)), rel=1e-9)
        assert stats["first8"] == array.reshape(-1)[:8].tolist() and stats["last8"] == array.reshape(-1)[-8:].tolist()
        assert abs(array[tuple(stats["absmax_at"])]) == np.max(np.abs(array))


def test_accumulators_and_bounds_are_those_of_the_recipes_own_tensors(full):
    """A product of two stored tensors, made again here by hand."""
    found, weights = open_pack(full), load(dtype="float64").weights
    x = found.read("recipe", "text.blocks.2.attn_norm").astype(np.float64)
    weight = weights["text.blocks.2.attn.v.weight"]
    accumulator, bound = (found.read(file, "text.blocks.2.attn.v") for file in ("accumulators", "bounds"))
    np.testing.assert_allclose(accumulator, (x @ weight.T).reshape(-1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(bound, (np.abs(x) @ np.abs(weight).T).reshape(-1), rtol=2**-8)
    assert found.entries["text.blocks.2.attn.v"]["check"] == {"mode": "dot", "length": 128, "bias": False}


def test_truth_is_float64_rounded_once(full, box):
    from npgemma import trace

    found = open_pack(full)
    exact = trace(box[0], PICTURE, "caption en", only="text.blocks.0.out", precision="float64")["text.blocks.0.out"]
    assert np.array_equal(found.read("truth", "text.blocks.0.out"), exact.astype(np.float32))


# ---- a pack of format 1 that later versions must go on reading; a future one; damage ----

COMMITTED = GOLDEN / "pack-1"


@pytest.fixture
def copy(tmp_path):
    """A copy of the committed pack, to be damaged."""
    return shutil.copytree(COMMITTED, tmp_path / "pack")


def change(folder, edit):
    """Change the manifest of a pack."""
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_committed_pack_of_format_1_is_read():
    found = open_pack(COMMITTED)
    assert found.recipe == "bf16-hf-eager"
    assert found.read("recipe", "text.blocks.0.attn_norm").shape == (1, 68, 128)


def test_an_unknown_key_of_a_later_minor_version_is_passed_over(copy):
    change(copy, lambda manifest: manifest.update(later={"of": "1.1"}, version=[1, 1]))
    assert open_pack(copy).manifest["later"]


def test_row_44_a_future_major_version_is_refused(copy):
    change(copy, lambda manifest: manifest.update(version=[2, 0]))
    with pytest.raises(CheckpointError, match=r"format \[2, 0\]; this npgemma reads 1.x"):
        open_pack(copy)


def flip_a_byte(folder):
    content = bytearray((folder / "recipe.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "recipe.safetensors").write_bytes(bytes(content))


def renamed(manifest):
    manifest["files"]["../../etc/passwd"] = manifest["files"].pop("truth.safetensors")


def linked_to_itself(folder):
    (folder / "truth.safetensors").unlink()
    (folder / "truth.safetensors").symlink_to(folder / "truth.safetensors")


def with_truth(name, array):
    """Replaces a tensor of the truth, under a manifest that is written for it."""

    def harm(folder):
        path = folder / "truth.safetensors"
        save_file(load_file(path) | {name: array}, path)
        list_again(path)

    return harm


def list_again(path):
    """Writes the manifest of a pack for the bytes that a file of it now has."""
    size, digest = path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()
    change(path.parent, lambda m: m["files"].update({path.name: {"bytes": size, "sha256": digest}}))


def with_new_name(old, new):
    """Gives a tensor another name of the same length, in all files and in the manifest."""

    def harm(folder):
        for path in (*folder.glob("*.safetensors"), folder / "manifest.json"):
            path.write_bytes(path.read_bytes().replace(f'"{old}"'.encode(), f'"{new}"'.encode()))
        for path in folder.glob("*.safetensors"):
            list_again(path)

    return harm


def shorter(folder):
    """Takes the last token from the question alone."""
    for name in ("ids", "token_types", "attention_mask", "positions"):
        change(folder, lambda m, name=name: m["inputs"][name][0].pop())


DAMAGE = {
    "a changed byte": (flip_a_byte, "recipe.safetensors: its bytes are not those"),
    "a missing file": (lambda folder: (folder / "truth.safetensors").unlink(), "truth.safetensors is missing"),
    "a truncated file": (
        lambda folder: (folder / "truth.safetensors").write_bytes((folder / "truth.safetensors").read_bytes()[:-9]),
        "the manifest says",
    ),
    "a name that points outside": (lambda folder: change(folder, renamed), "lies outside the pack"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: no such file"),
    "a manifest that is no JSON": (lambda folder: (folder / "manifest.json").write_text("{"), "not JSON"),
    "another format": (lambda folder: change(folder, lambda m: m.update(format="x")), "is no golden pack"),
    "no recipe": (lambda folder: change(folder, lambda m: m.pop("recipe")), "has no 'recipe'"),
    "a wrong kind": (
        lambda folder: change(folder, lambda m: m["tensors"][1].update(kind="int4")),
        "tensors[1].kind: came as 'int4'",
    ),
    "a tensor that is not there": (
        lambda folder: change(folder, lambda m: m["tensors"][1].update(name="text.norm")),
        "does not hold",
    ),
    "another shape": (
        lambda folder: change(folder, lambda m: m["tensors"][1].update(shape=[3])),
        "the manifest says [3]",
    ),
    "a file that is not listed": (
        lambda folder: (folder / "notes.txt").write_text("x"),
        "'notes.txt' is not of the pack",
    ),
    "a file that is a link to itself": (linked_to_itself, "truth.safetensors' cannot be read"),
    "a tensor twice": (
        lambda folder: change(folder, lambda m: m["tensors"].append(m["tensors"][1])),
        "lists a tensor twice",
    ),
    "a truth of another shape": (
        with_truth("text.blocks.0.attn_norm", np.zeros((2, 3), np.float32)),
        "text.blocks.0.attn_norm is (2, 3), the manifest says [1, 68, 128]",
    ),
    "a truth of whole numbers": (
        with_truth("text.blocks.0.attn_norm", np.zeros((1, 68, 128), np.int64)),
        "text.blocks.0.attn_norm is of I64, the manifest says float",
    ),
    "sizes larger than any model's": (
        lambda folder: change(folder, lambda m: m["model"]["config"]["text"].update(mlp_width=2**40)),
        "mlp_width is 1099511627776",
    ),
    "a text for a number": (
        lambda folder: change(folder, lambda m: m["model"]["config"]["vision"].update(width="72")),
        "width is '72'",
    ),
    "more blocks than any model has": (
        lambda folder: change(
            folder, lambda m: m["model"]["config"]["text"].update(depth=1001, layer_windows=[None] * 1001)
        ),
        "1001 blocks",
    ),
    "an id that is none": (
        lambda folder: change(folder, lambda m: m["model"]["config"].update(pad_id=-1)),
        "configuration is damaged",
    ),
    "pictures that are not counted": (
        lambda folder: change(folder, lambda m: m["inputs"].pop("pictures")),
        "inputs are damaged: they do not count pictures",
    ),
    "positions of another length": (
        lambda folder: change(folder, lambda m: m["inputs"]["positions"][0].pop()),
        "inputs are damaged: ValueError('shapes [(1, 67), (1, 68)]')",
    ),
    "no ids": (lambda folder: change(folder, lambda m: m["inputs"].pop("ids")), "inputs are damaged: KeyError('ids')"),
    "an id that no integer holds": (
        lambda folder: change(folder, lambda m: m["inputs"]["ids"][0].__setitem__(0, 2**70)),
        "inputs are damaged: OverflowError",
    ),
    "a question of another length": (shorter, "is [1, 68], its configuration makes it (1, 67)"),
    "a tensor that the model does not compute": (
        with_new_name("text.blocks.0.attn_norm", "text.blocks.0.attn_soul"),
        "lists 'text.blocks.0.attn_soul', which this model does not compute",
    ),
    "a negative size": (
        lambda folder: change(folder, lambda m: m["files"]["truth.safetensors"].update(bytes=-1)),
        "files.truth.safetensors.bytes: came as -1; want at least 0",
    ),
    "a damaged configuration": (
        lambda folder: change(folder, lambda m: m["model"]["config"].pop("text")),
        "configuration is damaged",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_row_44_damage_is_told_in_one_line_with_exit_code_2(damage, copy, tmp_path, capsys):
    harm, message = DAMAGE[damage]
    harm(copy)
    np.savez(tmp_path / "mine.npz", **{"text.blocks.0.attn_norm": np.zeros((1, 68, 128), np.float32)})
    assert cli.main(["compare", str(tmp_path / "mine.npz"), "--pack", str(copy)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    [line] = told.err.splitlines()
    assert message in line and line.startswith("npgemma: ")


def test_row_44_single_operations_of_another_length_are_refused(tmp_path):
    cases = vectors.cases("rms_norm", VARIANTS["paligemma2-3b-224"])
    held = op_pack.plan_files(cases, "float32")
    op_pack.write_op_pack(cases, held, VARIANTS["paligemma2-3b-224"], "float32", tmp_path / "ops")
    change(tmp_path / "ops", lambda m: m["model"]["config"]["text"].update(width=2048))
    with pytest.raises(CheckpointError, match="its configuration wants rms_norm.2048, which it does not hold"):
        op_pack.judge_ops(open_pack(tmp_path / "ops"), None)


def test_row_44_two_processes_do_not_write_one_pack(tmp_path):
    with writer.writing_folder(tmp_path / "p") as partial:
        with pytest.raises(OutputError, match="p: another process is writing it"):
            with writer.writing_folder(tmp_path / "p"):
                pass
        (partial / "a").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["p", "a"]


def test_what_a_killed_process_left_of_a_pack_is_removed(tmp_path):
    (tmp_path / ".p.partial").mkdir()
    (tmp_path / ".p.partial" / "old").write_text("")
    with writer.writing_folder(tmp_path / "p"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "p"]


def test_a_pack_is_not_written_through_a_link(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / ".p.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="p: cannot be written"):
        with writer.writing_folder(tmp_path / "p"):
            pass
    assert (tmp_path / "mine").is_dir()


def test_the_schema_is_one_that_a_validator_takes_and_ours_reads():
    published = schema()
    assert published["$schema"].startswith("https://json-schema.org/")
    manifest = json.loads((COMMITTED / "manifest.json").read_text())
    check(manifest, published, "manifest")
    with pytest.raises(CheckpointError, match="manifest.tier: came as 'all'; want one of op, summary"):
        check(manifest | {"tier": "all"}, published, "manifest")
    with pytest.raises(CheckpointError, match="version.1.: came as True; want integer"):
        check(manifest | {"version": [1, True]}, published, "manifest")


@pytest.mark.parametrize(
    "words",
    [
        ["pack", "-o", "pack.safetensors"],
        ["vectors", "--op", "gelu", "-o", "x.npz"],
        ["feed", "text.norm", "-o", "x.json"],
        ["faults", "relu", "-o", "x.json"],
        ["compare", "x.npz", "--junit", "x.json"],
        ["faults"],
        ["faults", "no-such", "-o", "x.safetensors"],
    ],
)
def test_a_suffix_that_is_not_written_is_wrong_usage(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    assert list(tmp_path.iterdir()) == []
    assert len(capsys.readouterr().err.splitlines()) == 1
