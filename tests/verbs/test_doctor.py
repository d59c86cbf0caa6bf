"""npgemma doctor: a report, and an exit code that a script can trust."""

import json
import shutil

import pytest
from generation_models import GOLDEN
from made_checkpoints import write_folder

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


def only(*names):
    """A folder of such files and nothing else."""

    def make(folder):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes((SOUND / name).read_bytes() if (SOUND / name).exists() else b"GGUF")

    return make


def without_a_shard(folder):
    write_folder(folder, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()


UNFINISHED = {
    "GGUF": (only("model-Q4_K_M.gguf"), "it has 'model-Q4_K_M.gguf': GGUF is not read; get the Hugging Face release"),
    "GGUF beside a configuration": (only("config.json", "x.gguf"), "it has 'x.gguf': GGUF is not read"),
    "no configuration": (only("model.safetensors"), "has no config.json; the weights are there, so the download did"),
    "no weights": (only("config.json"), "has neither model.safetensors nor model.safetensors.index.json"),
    "half a file": (only("config.json", "model.safetensors.incomplete"), "the download did not finish"),
    "no shard": (without_a_shard, "shards that are missing: 'model-00002-of-00003.safetensors'; download the model"),
    "nothing": (only(), "has no config.json; give the folder of a checkpoint"),
}


@pytest.mark.parametrize("case", UNFINISHED)
def test_generate_names_a_folder_of_another_kind_or_half_of_one_as_the_doctor_does(tmp_path, capsys, case):
    make, wanted = UNFINISHED[case]
    make(tmp_path / "folder")
    assert cli.main(["generate", "--model", str(tmp_path / "folder"), "--no-image", "x"]) == 2
    said = capsys.readouterr().err.removeprefix("npgemma: ").strip()
    assert wanted in said
    assert cli.main(["doctor", str(tmp_path / "folder"), "--json"]) == 2
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert said in [" ".join(each["text"].split()) for each in findings if each["level"] == "fault"]


@pytest.mark.parametrize("verb", [["generate", "--no-image", "x", "--model"], ["doctor"]])
def test_a_gguf_file_is_named(tmp_path, capsys, verb):
    path = tmp_path / "paligemma.gguf"
    path.write_bytes(b"GGUF")
    assert cli.main([*verb, str(path)]) == 1
    told = f"{str(path)!r} is a file: GGUF is not read; get the Hugging Face release; want the folder that holds"
    assert told in capsys.readouterr().err
