"""``npgemma compare`` and its kin, from the command line: formats, names, axes, reports, exit codes."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import random_models
from safetensors.numpy import save_file

from golden import ROOT
from npgemma import cli, load, trace
from npgemma.base.elsewhere import elsewhere
from npgemma.base.errors import CheckpointError, InputError
from npgemma.base.precision import round_bf16
from npgemma.judge import accumulators, comparison, feeding, goldens, report, tensor_file
from npgemma.judge.beside import run_beside
from npgemma.judge.raw import RawFolder
from npgemma.judge.read_pack import open_pack
from npgemma.judge.read_run import open_run
from npgemma.judge.theirs import open_theirs
from npgemma.tracing.plan import given, plan
from npgemma.tracing.trace import run, trace_forward
from npgemma.verbs import judge_options

PICTURE = str(ROOT / "npgemma" / "tiny" / "pictures" / "2-overlap.png")
QUESTION = [PICTURE, "caption en"]


@pytest.fixture(scope="module")
def right():
    """Tensors of a port without a fault, in bfloat16."""
    return dict(trace(load(), *QUESTION, precision="bf16-hf-eager"))


@pytest.fixture(scope="module")
def small():
    """A small model, a question to it, and tensors of a port of it without a fault, in bfloat16."""
    model = random_models.random_model(random_models.PALIGEMMA_2, "float32")
    prompt = random_models.random_prompt(model.config, num_rows=1, num_suffix=0)
    question = given(model.config, prompt["ids"], prompt["pixels"])
    return model, question, dict(trace_forward(model, **prompt, precision="bf16-hf-eager"))


@pytest.fixture(scope="module")
def wrong(tmp_path_factory):
    """A file of a port whose gain is not 1 + weight."""
    path = tmp_path_factory.mktemp("port") / "wrong.safetensors"
    assert cli.main(["faults", "rms-norm-without-one", *QUESTION, "-o", str(path)]) == 0
    return path


def compared(path, capsys, *more, question=QUESTION):
    """Exit code and record of a comparison."""
    code = cli.main(["compare", str(path), *question, "--json", *more])
    told = capsys.readouterr()
    return code, json.loads(told.out) if told.out else told.err


def judged(path, small, recipe="bf16-hf-eager", names_map=(), quantised=False):
    """Exit code and record of a comparison with the small model."""
    model, question, _ = small
    found = goldens.compare_beside(model, question, recipe, open_theirs(path), dict(names_map), quantised)
    return judge_options.code_of(found.rows), report.record(found)


def rows_of(record):
    return {row["name"]: row for row in record["rows"]}


def test_the_first_bad_row_says_formula_source_worst_element_tolerance_and_cause(wrong, capsys):
    assert cli.main(["compare", str(wrong), *QUESTION]) == 3
    out = capsys.readouterr().out
    for part in (
        "text.blocks.0.attn_norm = x / sqrt(mean(x^2) + norm_eps) * (1 + attn_norm.weight)",
        "made in npgemma/text.py:",
        "worst element [0, ",
        ", want ",
        "a tolerance of ",
        "cause: rms-norm-without-one: RMSNorm multiplies by the stored gain",
        "the first that differs is text.blocks.0.attn_norm",
        "FIRST BAD",
        "follows",
    ):
        assert part in out, part
    assert len(out.splitlines()) <= 50


def test_formats_are_read_alike(small, tmp_path):
    names = ["vision.norm", "connector.out", "text.blocks.1.attn.probs", "mask.full", "ids"]
    chosen = {name: small[2][name] for name in names}
    np.savez(tmp_path / "a.npz", **chosen)
    save_file({name: np.ascontiguousarray(array) for name, array in chosen.items()}, tmp_path / "a.safetensors")
    (tmp_path / "npy").mkdir()
    for name, array in chosen.items():
        np.save(tmp_path / "npy" / f"{name}.npy", array)
    raw = RawFolder(tmp_path / "raw")
    for name, array in chosen.items():
        raw.put(name, array, {"f": "bf16", "b": "bool", "i": "i64"}[array.dtype.kind])
    raw.finish()
    for path in ("a.npz", "a.safetensors", "npy", "raw"):
        recipe = goldens.guessed_recipe(open_theirs(tmp_path / path))
        code, record = judged(tmp_path / path, small, recipe)
        rows = rows_of(record)
        assert recipe == "bf16-hf-eager"
        assert code == 0 and [name for name in names if rows[name]["status"] == "ok"] == names, path


def test_names_of_other_programs_are_found(small, tmp_path):
    cfg, right = small[0].config, small[2]
    ours = ["vision.blocks.1.attn.q", "text.blocks.1.attn_norm", "text.blocks.2.mlp.out", "connector.out"]
    found = {}
    for name, place in zip(ours, ("5.x", "4.52-4.57", "graph", "big_vision"), strict=True):
        other = elsewhere(name, cfg)
        found[name] = getattr(other, place, None) or other.modules[place]
    np.savez(tmp_path / "a.npz", **{found[name].replace("/", "|"): right[name] for name in ours})
    names = {each.replace("/", "|"): name for name, each in found.items() if "/" in each}
    code, record = judged(tmp_path / "a.npz", small, names_map=names)
    rows = rows_of(record)
    assert code == 0 and all(rows[name]["status"] == "ok" for name in ours)


def test_axes_that_lie_otherwise_are_no_fault_but_are_said(small, tmp_path):
    right = small[2]
    q, scores = right["text.blocks.0.attn.q"], right["text.blocks.0.attn.scores"]
    found = {
        "text.blocks.0.attn_norm": right["text.blocks.0.attn_norm"][0],
        "text.blocks.0.attn.q": q.reshape(*q.shape[:2], -1),
        "text.blocks.0.attn.k_rot": right["text.blocks.0.attn.k_rot"].swapaxes(1, 2),
        "text.blocks.0.attn.scores": scores.reshape(scores.shape[0], -1, *scores.shape[3:]),
        "pixels": right["pixels"].transpose(0, 3, 1, 2),
        "text.cos": np.concatenate([right["text.cos"]] * 2, axis=-1),
        "mask.full": np.where(right["mask.full"], np.float32(0), np.float32(-3e38))[:, None],
    }
    np.savez(tmp_path / "a.npz", **found)
    code, record = judged(tmp_path / "a.npz", small)
    rows = rows_of(record)
    notes = [rows[name]["note"] for name in found]
    assert [(name, rows[name]["status"], rows[name]["message"]) for name in found if rows[name]["status"] != "ok"] == []
    assert code == 0 and all(rows[name]["status"] == "ok" for name in found)
    assert notes == [
        "an axis of one added",
        "N and H in one axis",
        "heads before positions",
        "K and G in one axis",
        "channels first",
        "each value twice",
        "an additive mask",
    ]


def test_logits_of_the_last_token_alone_are_compared(small, tmp_path):
    last = small[2]["text.logits"][:, -1:]
    np.savez(tmp_path / "a.npz", **{"text.norm": small[2]["text.norm"], "text.logits": last[:, 0]})
    code, record = judged(tmp_path / "a.npz", small)
    assert code == 0 and rows_of(record)["text.logits"]["entire"]["share"] > 0.9
    np.savez(tmp_path / "b.npz", **{"text.norm": small[2]["text.norm"], "text.logits": small[2]["text.logits"][:, -2]})
    assert judged(tmp_path / "b.npz", small)[0] == 3


def test_what_cannot_be_compared_is_code_4(small, tmp_path):
    right = small[2]
    np.savez(tmp_path / "a.npz", **{"text.norm": right["text.norm"][:, :5], "text.logits": right["text.logits"]})
    code, record = judged(tmp_path / "a.npz", small)
    assert code == 4 and rows_of(record)["text.norm"]["message"] == "shape (1, 5, 10), want (1, 9, 10)"
    np.savez(tmp_path / "b.npz", nothing=np.zeros(3))
    code, record = judged(tmp_path / "b.npz", small)
    assert code == 4 and "unknown: nothing" in " ".join(record["notes"])


@pytest.mark.parametrize("wrong", [np.array(["red"]), np.zeros(3, complex)])
def test_what_holds_no_numbers_is_refused_with_its_dtype(small, tmp_path, wrong):
    np.savez(tmp_path / "a.npz", **{"text.norm": wrong})
    with pytest.raises(CheckpointError, match="a.npz: 'text.norm'.* has dtype .*; want a plain array of numbers"):
        judged(tmp_path / "a.npz", small)


def test_a_folder_without_tensors_says_what_it_wants(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(CheckpointError, match=r"holds neither list.txt nor .npy files; want tensors of a port"):
        open_theirs(tmp_path)


def test_nan_is_wrong_and_integers_are_no_floats(small, tmp_path):
    spoilt = small[2]["text.norm"].copy()
    spoilt[0, 3, 5] = np.nan
    np.savez(tmp_path / "a.npz", **{"text.norm": spoilt, "vision.norm": small[2]["vision.norm"].astype(np.int32)})
    code, record = judged(tmp_path / "a.npz", small)
    rows = rows_of(record)
    assert code == 3 and rows["text.norm"]["worst"]["index"] == [0, 3, 5]
    assert rows["vision.norm"]["status"] == "incomparable" and "dtype int32" in rows["vision.norm"]["message"]


def test_few_tensors_are_judged_together_and_the_next_to_write_down_is_named(small, tmp_path, monkeypatch):
    """Only the residual was written down; between two of its tensors lies a whole block, and no cause is looked for."""
    monkeypatch.setattr(comparison, "MOST_DIAGNOSES", 0)
    right = small[2]
    names = ["text.spliced", *(f"text.blocks.{n}.out" for n in range(3))]
    np.savez(tmp_path / "a.npz", **{name: right[name] for name in names})
    assert judged(tmp_path / "a.npz", small)[0] == 0
    broken = {"text.blocks.1.out": round_bf16(right["text.blocks.1.out"] * np.float32(1.05))}
    np.savez(tmp_path / "b.npz", **{name: right[name] for name in names} | broken)
    code, record = judged(tmp_path / "b.npz", small)
    assert code == 3 and record["first"] == "text.blocks.1.out"
    assert "write down text.blocks.1." in record["advice"]


def test_expected_failures_pass_and_those_that_do_not_fail_are_told(wrong, tmp_path, capsys):
    (tmp_path / "expected").write_text("text.*norm   # RMSNorm is not done yet\nvision.norm\n")
    assert cli.main(["compare", str(wrong), *QUESTION, "--expect", str(tmp_path / "expected")]) == 0
    assert "'vision.norm' is expected to fail" in capsys.readouterr().err


def test_reports_for_ci_and_for_a_browser(wrong, tmp_path, capsys):
    files = [tmp_path / "a.xml", tmp_path / "a.html"]
    assert cli.main(["compare", str(wrong), *QUESTION, "--junit", str(files[0]), "--html", str(files[1])]) == 3
    suite = ElementTree.parse(files[0]).getroot()
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert (
        suite.get("tests") == "171"
        and failed[0] == "text.blocks.0.attn_norm"
        and int(suite.get("failures")) == len(failed)
    )
    page = files[1].read_text()
    assert "<script" not in page and "rms-norm-without-one" in page


def test_a_pack_stands_for_the_model(wrong, right, tmp_path, capsys):
    folder = tmp_path / "pack"
    assert cli.main(["pack", *QUESTION, "--tier", "residual", "-o", str(folder)]) == 0
    capsys.readouterr()
    code, record = compared(wrong, capsys, "--pack", str(folder), question=[])
    assert code == 3 and record["first"] == "text.blocks.0.attn_norm"
    alone = goldens.compare_with_pack(open_pack(folder), None, open_theirs(wrong), {}, False)
    assert alone.first.name == "text.blocks.0.out"  # the first that the pack holds
    np.savez(tmp_path / "a.npz", **{name: array for name, array in right.items() if name.endswith("out")})
    code, record = compared(tmp_path / "a.npz", capsys, "--pack", str(folder), question=[])
    assert code == 0


def test_a_pack_of_samples_judges_logits(right, tmp_path, capsys):
    folder, port = tmp_path / "pack", tmp_path / "a.npz"
    assert cli.main(["pack", *QUESTION, "--tier", "summary", "-o", str(folder)]) == 0
    capsys.readouterr()
    logits = right["text.logits"]
    for theirs, first in ((logits, None), (logits[..., ::-1], "text.logits")):
        np.savez(port, **{"text.blocks.0.out": right["text.blocks.0.out"], "text.logits": theirs})
        code, record = compared(port, capsys, "--pack", str(folder), question=[])
        assert (code, record["first"]) == (3 if first else 0, first)
    # Of the last token's logits alone a pack of samples says little: no word would be a pass.
    np.savez(port, **{"text.norm": right["text.norm"], "text.logits": logits[:, -1:, ::-1]})
    code, record = compared(port, capsys, "--pack", str(folder), question=[])
    assert code == 4 and "want all tokens' logits" in rows_of(record)["text.logits"]["message"]


def test_logits_that_a_pack_only_samples_are_made_again_where_the_model_is_there(tmp_path, capsys):
    question, folder = ["--no-image", "caption en"], tmp_path / "pack"
    words = ["--tier", "summary", "--recipe", "float32", "-o", str(folder)]
    assert cli.main(["pack", *question, *words]) == cli.main(["trace", *question, "-o", str(tmp_path / "t.npz")]) == 0
    capsys.readouterr()
    traced = np.load(tmp_path / "t.npz")
    for logits, first in ((traced["text.logits"], None), (traced["text.logits"][..., ::-1], "text.logits")):
        np.savez(tmp_path / "a.npz", **{"text.norm": traced["text.norm"], "text.logits": logits[:, -1:]})
        words = ["--pack", str(folder), "--model", str(ROOT / "npgemma" / "tiny")]
        code, record = compared(tmp_path / "a.npz", capsys, *words, question=[])
        assert (code, record["first"]) == (3 if first else 0, first)


def test_a_quantised_port_is_told_its_signal_to_noise(small, tmp_path):
    rng, right = np.random.default_rng(0), small[2]
    noisy = {
        name: right[name] * (1 + 0.01 * rng.standard_normal(right[name].shape)).astype(np.float32)
        for name in ("text.blocks.0.out", "text.blocks.1.out", "text.logits")
    }
    np.savez(tmp_path / "a.npz", **noisy)
    code, record = judged(tmp_path / "a.npz", small, quantised=True)
    assert code == 0
    assert all(35 < decibels < 45 for decibels in record["signal_to_noise"].values())  # 1 % is 40 dB
    assert 0 < record["logits"]["kl_mean"] < 0.1 and 0.5 < record["logits"]["same_top"] <= 1


def test_two_files_are_compared_without_a_model(small, tmp_path, capsys):
    """A trace stands for the pack; without float64 beside it the bound is that of two correct runs."""
    model, question, right = small
    ids, pixels = question.ids, question.pixels
    path = tmp_path / "ours.safetensors"
    trace_forward(model, ids, pixels, precision="float32", out=path)
    mine = dict(trace_forward(model, ids, pixels, precision="float32"))
    near = {name: array * np.float32(1 + 1e-6) if array.dtype == np.float32 else array for name, array in mine.items()}
    np.savez(tmp_path / "near.npz", **near)
    code, record = compared(tmp_path / "near.npz", capsys, "--pack", str(path), question=[])
    assert code == 0 and {row["status"] for row in record["rows"]} == {"ok"}
    near["text.blocks.1.out"] = near["text.blocks.1.out"] * np.float32(1.0001)
    np.savez(tmp_path / "far.npz", **near)
    code, record = compared(tmp_path / "far.npz", capsys, "--pack", str(path), question=[])
    assert code == 3 and record["first"] == "text.blocks.1.out"
    code, told = compared(tmp_path / "far.npz", capsys, "--pack", str(tmp_path / "near.npz"), question=[])
    assert code == 2 and len(told.splitlines()) == 1


def upside_down(name, array):
    return -array if name == "text.norm" else None


@pytest.mark.parametrize("chosen", [{"rows": [0, 2]}, {"observe": upside_down}])
def test_a_trace_that_is_not_plain_stands_for_nothing(small, tmp_path, chosen):
    model, question, _ = small
    run(plan(model, question, **chosen), tmp_path / "ours.safetensors")
    with pytest.raises(CheckpointError, match="holds changed tensors, or chosen rows; want a plain trace of whole"):
        open_run(tmp_path / "ours.safetensors")


def test_a_pack_of_other_weights_is_not_held_against_this_model(small, right, tmp_path):
    np.savez(tmp_path / "a.npz", **{"text.norm": right["text.norm"]})
    pack = open_pack(ROOT / "golden" / "pack-1")
    with pytest.raises(InputError, match="weights are not those that the pack was made with; leave --model out"):
        goldens.compare_with_pack(pack, small[0], open_theirs(tmp_path / "a.npz"), {}, False)


def test_a_pack_of_another_versions_box_is_held_against_whole_tensors_alone(capsys):
    """The weights in the box change from version to version; the pack is right all the same."""
    folder = ROOT / "golden" / "pack-1"
    assert cli.main(["compare", str(folder / "recipe.safetensors"), "--pack", str(folder)]) == 0
    told = capsys.readouterr()
    assert "the pack is of another version's model in the box: operations are not run again" in told.out
    assert told.err == ""


def test_weights_wider_than_bfloat16_are_said_to_be_rounded_first(small, tmp_path):
    """Their truth too is of the rounded weights, so that a port with those alone is not called wrong for it."""
    np.savez(tmp_path / "a.npz", **small[2])
    notes = judged(tmp_path / "a.npz", small)[1]["notes"]
    assert any("wider than bfloat16" in note for note in notes)
    assert not any("wider" in note for note in judged(tmp_path / "a.npz", small, "float32")[1]["notes"])
    model = small[0]
    narrow = {name: round_bf16(array) for name, array in model.weights.arrays.items()}
    rounded = replace(model, weights=replace(model.weights, arrays=narrow))
    truths = []
    for each in (model, rounded):
        kept: list = []
        run_beside(each, small[1], "bf16-hf-eager", lambda name, ours, truth, kept=kept: kept.append(truth))
        truths.append(kept)
    assert all(np.array_equal(*pair) for pair in zip(*truths, strict=True))


@pytest.mark.parametrize(
    ("words", "variables", "painted"),
    [
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color", "never"], {}, False),
        ([], {"TERM": "xterm"}, True),
        ([], {"TERM": "xterm", "NO_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
        ([], {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(words, variables, painted, tmp_path, monkeypatch, capsys):
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    folder = ROOT / "golden" / "pack-1"
    assert cli.main(["compare", str(folder / "recipe.safetensors"), "--pack", str(folder), *words]) == 0
    assert ("\x1b[" in capsys.readouterr().out) == painted


def test_no_colours_where_the_output_is_no_terminal(capsys):
    folder = ROOT / "golden" / "pack-1"
    assert cli.main(["compare", str(folder / "recipe.safetensors"), "--pack", str(folder)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_feed_gives_what_an_operation_reads(tmp_path, right, capsys):
    assert cli.main(["feed", "text.blocks.0.attn_norm", *QUESTION, "-o", str(tmp_path / "a.safetensors")]) == 0
    fed = open_theirs(tmp_path / "a.safetensors")
    assert list(fed.readers) == ["text.spliced", "text.blocks.0.attn_norm.weight", "want/text.blocks.0.attn_norm"]
    x, weight, want = (fed.read(name).astype(np.float64) for name in fed.readers)
    again = round_bf16((x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) * (1 + weight)).astype(np.float32))
    assert np.mean(again == want) > 0.999
    assert np.array_equal(want, right["text.blocks.0.attn_norm"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("ids", "'ids' is an input of the run; want"), ("text.blocks.*.out", "'text.blocks.*.out' is a pattern; want")],
)
def test_only_what_is_computed_can_be_fed(small, name, message):
    with pytest.raises(InputError) as caught:
        feeding.fed(*small[:2], "float32", name)
    assert message in str(caught.value)


def test_a_tensor_of_another_shape_cannot_be_gone_on_from(small, tmp_path):
    np.savez(tmp_path / "a.npz", **{"text.norm": small[2]["text.norm"][:, :5], "text.logits": small[2]["text.logits"]})
    with pytest.raises(InputError, match=r"text.norm: shape \(1, 5, 10\), want \(1, 9, 10\)"):
        feeding.injected(*small[:2], "bf16-hf-eager", open_theirs(tmp_path / "a.npz"), {}, "text.norm")


def test_a_file_of_tensors_is_whole_and_in_order(tmp_path):
    planned = {"a": ("float32", (2,)), "b": ("float32", (3,))}
    with pytest.raises(InputError, match="b: comes when \\['a'\\] is expected"):
        with tensor_file.writing(tmp_path / "x.safetensors", planned) as file:
            file.put("b", np.zeros(3))
    with pytest.raises(InputError, match="x.safetensors: 1 tensors did not come, b first"):
        with tensor_file.writing(tmp_path / "x.safetensors", planned) as file:
            file.put("a", np.zeros(2))
    assert list(tmp_path.iterdir()) == []


def test_inject_says_whether_what_comes_behind_is_right(right, wrong, tmp_path, capsys):
    broken = right | {"text.blocks.1.out": round_bf16(right["text.blocks.1.out"] * np.float32(1.5))}
    np.savez(tmp_path / "a.npz", **broken)
    assert cli.main(["inject", str(tmp_path / "a.npz"), *QUESTION, "--at", "text.blocks.2.out"]) == 0
    assert "everything behind is right" in capsys.readouterr().out
    assert cli.main(["inject", str(tmp_path / "a.npz"), *QUESTION, "--at", "text.blocks.1.mlp.out"]) == 3
    assert "text.blocks.1.out is the first that differs" in capsys.readouterr().out
    assert cli.main(["inject", str(tmp_path / "a.npz"), *QUESTION, "--at", "ids"]) == 1
    np.savez(tmp_path / "last.npz", **right | {"text.logits": right["text.logits"][:, -1:]})  # as generation scores
    assert cli.main(["inject", str(tmp_path / "last.npz"), *QUESTION, "--at", "text.blocks.2.out"]) == 0


def test_vectors_are_made_and_judged(tmp_path, capsys):
    folder = tmp_path / "ops"
    assert (
        cli.main(["vectors", "--box", "--op", "linear", "--op", "rms_norm", "--op", "angles", "-o", str(folder)]) == 0
    )
    assert cli.main(["compare", str(folder / "recipe.safetensors"), "--pack", str(folder)]) == 0
    inputs = open_theirs(folder / "inputs.safetensors")
    name = "linear.384.gaussian"
    x, weight = (inputs.read(f"{name}/{each}") for each in ("x", "weight"))
    for accumulate, code in ((accumulators.serial, 0), (accumulators.split_k_in_bf16, 3)):
        np.savez(tmp_path / f"{code}.npz", **{f"{name}.acc": accumulate(x, weight)})
        assert cli.main(["compare", str(tmp_path / f"{code}.npz"), "--pack", str(folder)]) == code
    norm = "rms_norm.128.gaussian"
    x, weight = (inputs.read(f"{norm}/{each}") for each in ("x", "weight"))
    np.savez(
        tmp_path / "llama.npz",
        **{
            norm: round_bf16(
                round_bf16(x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(1e-6))) * (1 + weight)
            )
        },
    )
    assert cli.main(["compare", str(tmp_path / "llama.npz"), "--pack", str(folder)]) == 3
    assert f"the first that differs is {norm}" in capsys.readouterr().out


def test_faults_are_listed(capsys):
    assert cli.main(["faults", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 140 and any(line.startswith("gelu-erf ") for line in lines)
