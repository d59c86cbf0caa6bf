"""npgemma names: the map of names, for people and for machines."""

import json
from dataclasses import replace
from pathlib import Path

from npgemma import cli
from npgemma.base import elsewhere, table
from npgemma.base.tensors import tensors
from npgemma.config import VARIANTS

ROOT = Path(cli.__file__).parents[1]


def run(capsys, *words):
    code = cli.main(["names", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_all_names_are_a_line_each_and_blocks_stand_once(capsys):
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 52
    [scores] = [line for line in lines if line.startswith("text.blocks.N.attn.scores ")]
    assert "B K G T S" in scores and "npgemma/attention.py:" in scores
    assert "group_heads(q_rot, K) @ group_heads(earlier(k_rot), K)^T" in scores


def test_a_glob_shows_all_that_is_known(capsys):
    code, out, _ = run(capsys, "text.blocks.3.attn.q")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert "made of     text.blocks.3.attn_norm, text.blocks.3.attn.q.weight" in lines
    assert "llama.cpp   Qcur-3  [in its graph]" in lines
    assert lines[0] == "text.blocks.3.attn.q  (B T N H)"
    assert lines[1] == "= split_heads(attn_norm @ q.weight^T, N)"
    assert "4.52-4.57 model.language_model.layers.3.self_attn.q_proj  [output]" in lines
    assert "big_vision  llm/layers/attn/q_einsum/w[3]" in lines
    assert "gguf        blk.3.attn_q  [the weight that makes it]" in lines
    assert "gemma.cpp   qkv_ein_3  [the weight that makes it]" in lines


def test_the_source_line_is_the_one_that_makes_it(capsys):
    _, out, _ = run(capsys, "text.blocks.0.mlp.opened", "--json")
    [item] = json.loads(out)
    file, line = item["source"].split(":")
    source = (ROOT / file).read_text().splitlines()[int(line) - 1]
    assert source.strip() == 'opened = w.keep("opened", blocks.in_cache(ops.gelu, gate, whole_rows=False))'


def test_other_variants_have_other_tensors(capsys):
    assert "attn_post_norm" not in run(capsys, "--variant", "paligemma-3b-224")[1]
    code, _, err = run(capsys, "--variant", "gemma-9b")
    assert code == 1 and "want one of paligemma-3b-224" in err


def test_a_glob_that_fits_nothing_lists_the_nearest(capsys):
    code, out, err = run(capsys, "text.blocks.3.atn.q")
    assert (code, out) == (1, "")
    assert "nearest: text.blocks.*.attn.q" in err


def test_any_of_its_names_finds_a_tensor(capsys):
    for theirs in ("language_model.layers.0.self_attn.q_proj", "blk.0.attn_q", "llm/layers/attn/q_einsum/w[0]"):
        assert run(capsys, theirs)[1].startswith("text.blocks.0.attn.q  (B T N H)"), theirs
    _, out, _ = run(capsys, "Qcur-0")
    assert "text.blocks.0.attn.q  (" in out and "text.blocks.0.attn.q_rot  (" in out


def test_one_fact_changed_in_the_table_changes_every_place_that_shows_it(capsys, monkeypatch):
    """A row's axes, formula and foreign name stand nowhere else."""
    place = "text.blocks.{n}.mlp.hidden"
    rows = tuple(
        replace(row, axes="B F T", expression="opened + up", graph="other-{n}", torch="text layers.{n}.mine: input")
        if row.name == place else row
        for row in table.ROWS
    )
    for module in ("npgemma.base.tensors", "npgemma.base.elsewhere"):
        monkeypatch.setattr(f"{module}.ROWS", rows)
    elsewhere.rows_of.cache_clear(), elsewhere.all_names.cache_clear()
    try:
        name = place.format(n=0)
        [item] = json.loads(run(capsys, name, "--json")[1])
        assert (item["axes"], item["formula"]) == ("B F T", "opened + up")
        assert item["pytorch"]["5.x"] == "model.language_model.layers.0.mine" and item["llama.cpp"] == "other-0"
        assert run(capsys, "other-0")[1].startswith(f"{name}  (B F T)")
        cfg = VARIANTS["paligemma2-3b-224"]
        assert tensors(cfg, length=5)[name].shape == (1, cfg.text.mlp_width, 5)
        cli.main(["plan", "paligemma2-3b-224"])
        assert "B F T" in capsys.readouterr().out
    finally:
        elsewhere.rows_of.cache_clear(), elsewhere.all_names.cache_clear()
