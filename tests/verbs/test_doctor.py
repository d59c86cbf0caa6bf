"""npgemma doctor: a report, and an exit code that a script can trust."""

import json
import shutil

from generation_models import GOLDEN

from npgemma import cli

SOUND = GOLDEN / "generation" / "gen-2"


def test_a_sound_folder_is_described_and_exits_with_0(capsys):
    assert cli.main(["doctor", str(SOUND)]) == 0
    out, err = capsys.readouterr()
    assert "PaliGemma 2" in out
    assert err == ""


def test_a_folder_with_faults_exits_with_2_and_lists_them(tmp_path, capsys):
    shutil.copytree(SOUND, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert cli.main(["doctor", str(tmp_path / "cut"), "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["faults"] == len([each for each in report["findings"] if each["level"] == "fault"]) >= 1


def test_what_is_no_folder_is_wrong_input(capsys):
    assert cli.main(["doctor", "no/such/folder/at/all"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
