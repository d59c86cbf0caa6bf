"""npgemma names: the map of names, for people and for machines."""

import json
from pathlib import Path

from npgemma import cli

ROOT = Path(cli.__file__).parents[1]


def run(capsys, *words):
    code = cli.main(["names", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_all_names_are_a_line_each_and_blocks_stand_once(capsys):
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 50
    [scores] = [line for line in lines if line.startswith("text.blocks.N.attn.scores ")]
    assert "B K G T S" in scores and "npgemma/attention.py:" in scores and "q_rot @ k_rot^T" in scores


def test_a_glob_shows_all_that_is_known(capsys):
    code, out, _ = run(capsys, "text.blocks.3.attn.q")
    assert code == 0
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "text.blocks.3.attn.q  (B T N H)"
    assert lines[1] == "= attn_norm @ q.weight^T"
    assert "4.52-4.57 model.language_model.layers.3.self_attn.q_proj  [output]" in lines
    assert "big_vision  llm/layers/attn/q_einsum/w[3]" in lines
    assert "gguf        blk.3.attn_q  [the weight that makes it]" in lines
    assert "gemma.cpp   qkv_ein_3  [the weight that makes it]" in lines


def test_the_source_line_is_the_one_that_makes_it(capsys):
    _, out, _ = run(capsys, "text.blocks.0.mlp.opened", "--json")
    [item] = json.loads(out)
    file, line = item["source"].split(":")
    assert 'opened = w.keep("opened", ops.gelu(gate))' in (ROOT / file).read_text().splitlines()[int(line) - 1]


def test_other_variants_have_other_tensors(capsys):
    assert "attn_post_norm" not in run(capsys, "--variant", "paligemma-3b-224")[1]
    code, _, err = run(capsys, "--variant", "gemma-9b")
    assert code == 1 and "want one of paligemma-3b-224" in err


def test_a_glob_that_fits_nothing_lists_the_nearest(capsys):
    code, out, err = run(capsys, "text.blocks.3.atn.q")
    assert (code, out) == (1, "")
    assert "nearest: text.blocks.*.attn.q" in err
