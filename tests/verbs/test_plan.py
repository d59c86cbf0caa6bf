"""npgemma plan: the same figures as text and as JSON."""

import json

import pytest

from npgemma import cli


def test_a_released_variant_has_its_published_parameter_count(capsys):
    assert cli.main(["plan", "paligemma-3b-224"]) == 0
    out = capsys.readouterr().out
    assert "2,923,335,408" in out
    assert "text.blocks.*.attn.q" in out


def test_json_and_brief(capsys):
    assert cli.main(["plan", "paligemma2-3b-448", "--json", "--brief", "--prompt-tokens", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"] == 3_032_979_696
    assert found["positions"] == 1024 + 20
    assert "tensors" not in found


@pytest.mark.parametrize("words", (["paligemma3"], ["paligemma-3b-224", "--prompt-tokens", "0"]))
def test_what_is_no_model_exits_with_1(capsys, words):
    assert cli.main(["plan", *words]) == 1
    assert capsys.readouterr().err.count("\n") == 1
