"""The doctor says what a folder is, and goes on to everything that is wrong with it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_checkpoints import config_json, file_bytes, read_index, tensors, write_folder

from npgemma.base.errors import InputError
from npgemma.checkpoints import checkpoint, memory
from npgemma.checkpoints.hf_config import read_config
from npgemma.config import VARIANTS
from npgemma.show.doctor import as_text, examine, released_size

Q = "language_model.model.layers.1.self_attn.q_proj.weight"


def texts(report, level, topic=None):
    return [one.text for one in report.findings if one.level == level and topic in (None, one.topic)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_sound_folder_is_described(tmp_path):
    write_folder(tmp_path, 2, dtype="BF16", shards=2)
    before = contents(tmp_path)
    report = examine(tmp_path)
    assert report.faults == ()
    assert texts(report, "fact", "family") == ["PaliGemma 2, no released size"]
    assert texts(report, "fact", "picture") == ["8 x 8 pixels, 4 image tokens"]
    assert texts(report, "fact", "layout") == ["A5: files that transformers 5.x saves"]
    assert texts(report, "fact", "head") == ["tied to the embedding table"]
    assert texts(report, "fact", "numbers") == ["all finite"]
    counts = [array.size for _, array in tensors(2).values()]
    assert texts(report, "fact", "parameters") == [f"{sum(counts):,}"]
    assert texts(report, "fact", "weights")[0].startswith("2 file(s), ")
    assert texts(report, "fact", "weights")[0].endswith(f" kB, tensors: {len(counts)} BF16")
    assert [text.split(":")[0] for text in texts(report, "fact", "memory")] == [
        "--dtype float32", "--dtype bfloat16", "--dtype float64",
    ]
    assert any("only ids go in and come out" in text for text in texts(report, "note", "tokenizer"))
    assert as_text(report).splitlines()[0] == str(tmp_path)
    assert as_text(report).splitlines()[-1] == "nothing is wrong with it"
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["paligemma-3b-448", "paligemma2-28b-896"])
def test_released_sizes_are_known_with_and_without_padding(name):
    cfg = VARIANTS[name]
    assert released_size(cfg) == name
    assert released_size(replace(cfg, text=replace(cfg.text, vocab_size=257216))) == name


def test_all_faults_are_told_at_once(tmp_path):
    named = tensors()
    named[Q] = ("F32", np.ones((10, 24), np.float32))
    named["mystery"] = ("F32", np.ones(2, np.float32))
    named["language_model.model.norm.weight"][1][3] = np.nan
    del named["multi_modal_projector.linear.bias"]
    named["lm_head.weight"] = ("F32", named["language_model.model.embed_tokens.weight"][1] + 1)
    write_folder(tmp_path, named=named)
    (tmp_path / "tokenizer.model").write_bytes(b"")
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 448, "width": 448}}')
    report = examine(tmp_path)
    found = "\n".join(one.text for one in report.faults)
    for fault in (
        f"'{Q}' (model.safetensors) is (10, 24), config.json wants (24, 10): it looks transposed",
        "1 missing: 'multi_modal_projector.linear.bias'; 1 unknown: 'mystery'",
        "'language_model.model.norm.weight' holds 1 NaN or infinite numbers, the first at (3,)",
        "differs from the embedding table, first at [0, 0]",
        "an empty file",
        "preprocessor_config.json resizes to 448, config.json wants 8",
    ):
        assert fault in found
    assert as_text(report).endswith("6 faults (X)")


def test_loading_says_how_many_more_faults_there_are(tmp_path):
    named = tensors()
    for key in list(named)[:3]:
        named[key] = ("I64", np.ones(1, np.int64))
    write_folder(tmp_path, named=named)
    with pytest.raises(checkpoint.CheckpointError, match=r"\(npgemma doctor lists 2 more\)$"):
        checkpoint.load_weights(tmp_path, read_config(tmp_path))
    assert len(examine(tmp_path).faults) >= 3


def test_broken_config_does_not_hide_the_weights(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    report = examine(tmp_path)
    assert [one.topic for one in report.faults] == ["config"]
    assert texts(report, "fact", "weights")[0].startswith("1 file(s)")


def test_broken_weights_do_not_hide_the_config(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    report = examine(tmp_path)
    assert len(report.faults) == 1 and "Git-LFS pointer" in report.faults[0].text
    assert texts(report, "fact", "family") == ["PaliGemma 1, no released size"]


def test_row_38_code_of_a_folder_is_reported_and_never_run(tmp_path):
    write_folder(tmp_path, config=config_json(auto_map={"AutoModel": "modeling.Model"}))
    (tmp_path / "modeling.py").write_text("raise SystemExit")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    notes = texts(examine(tmp_path), "note")
    assert "auto_map is ignored: npgemma never runs code of a model's folder" in notes
    assert "'modeling.py' is never opened: it could run code" in notes
    assert "'pytorch_model.bin' is never opened: it could run code" in notes


def test_odd_but_harmless_things_are_notes(tmp_path):
    named = tensors() | {"vision_tower.head.probe": ("F32", np.ones((1, 1, 12), np.float32))}
    write_folder(tmp_path, named=named, shards=2)
    (tmp_path / "extra.safetensors").write_bytes(file_bytes({}))
    listed = {"metadata": {"total_size": 5}, "weight_map": read_index(tmp_path)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(listed))
    report = examine(tmp_path)
    assert report.faults == ()
    notes = texts(report, "note")
    assert "1 that PaliGemma does not use: 'vision_tower.head.probe'" in notes
    assert "'extra.safetensors' is not a part of the model" in notes
    assert any("the index says 5 bytes of tensors, the files hold" in text for text in notes)


def test_mixed_layouts_and_little_memory_are_notes(tmp_path, monkeypatch):
    first, other = tensors(layout="A"), tensors(layout="C")
    mixed = dict(list(first.items())[:9]) | dict(list(other.items())[9:])
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    report = examine(write_folder(tmp_path, named=mixed))
    assert texts(report, "note", "layout") == ["keys of several layouts mixed"]
    assert len(texts(report, "note", "memory")) == 3
    assert report.faults == ()


def test_stored_head_is_told(tmp_path):
    named = tensors(layout="A")
    named["language_model.lm_head.weight"] = named["language_model.model.embed_tokens.weight"]
    report = examine(write_folder(tmp_path, named=named))
    assert texts(report, "fact", "head") == ["tied; stored too, equal to the table"]


def test_row_76_tokenizer_of_another_model(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": {"a": 0}}}')
    assert [one.topic for one in examine(tmp_path).faults] == ["tokenizer"]


def test_progress_counts_all_bytes(tmp_path):
    seen = []
    examine(write_folder(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == sum(array.nbytes for _, array in tensors().values())


def test_what_is_no_folder(tmp_path):
    with pytest.raises(InputError, match="no hub id"):
        examine(tmp_path / "nothing")
