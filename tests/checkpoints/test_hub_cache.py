"""Finding a model on this machine; nothing is ever downloaded."""

import pytest

from npgemma.base.errors import CheckpointError, InputError
from npgemma.checkpoints.hub_cache import cache_folder, find_model

NAME = "google/paligemma2-3b-mix-224"
VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and an empty working folder."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "hub"


def put(cache, revision="abc123", refs=True, config=True):
    home = cache / "models--google--paligemma2-3b-mix-224"
    snapshot = home / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    if refs:
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text(revision + "\n")
    if config:
        (home / "blobs" / "c0ffee").write_text("{}")
        (snapshot / "config.json").symlink_to("../../blobs/c0ffee")
    return snapshot


def test_folder_is_itself(tmp_path):
    assert find_model(tmp_path) == tmp_path
    assert find_model(str(tmp_path)) == tmp_path


def test_hub_id_is_the_snapshot_of_main(cache):
    snapshot = put(cache)
    assert find_model(NAME) == snapshot


def test_folder_of_that_name_goes_first(cache, tmp_path):
    put(cache)
    (tmp_path / "here" / NAME).mkdir(parents=True)
    assert str(find_model(NAME)) == NAME


def test_absent_model_says_which_command_downloads_it(cache):
    said = rf"check the path.*no model of that name in .*; to download it: hf download {NAME}$"
    with pytest.raises(InputError, match=said):
        find_model(NAME)


def test_unfinished_downloads(cache):
    snapshot = put(cache, config=False)
    with pytest.raises(CheckpointError, match="has no config.json: the download did not finish; to download it: hf"):
        find_model(NAME)
    (snapshot / "config.json").symlink_to("../../blobs/missing")
    with pytest.raises(CheckpointError, match="the download did not finish"):
        find_model(NAME)


def test_cache_without_a_branch_lists_the_snapshots(cache):
    snapshot = put(cache, refs=False)
    with pytest.raises(CheckpointError, match=f"refs/main names no revision.* or give one of {snapshot}"):
        find_model(NAME)


def test_branch_that_leads_elsewhere_is_no_revision(cache):
    put(cache)
    (cache / "models--google--paligemma2-3b-mix-224" / "refs" / "main").write_text("../../../..")
    with pytest.raises(CheckpointError, match="refs/main names no revision"):
        find_model(NAME)


@pytest.mark.parametrize("name", ["../up", "a/b/c", "\0", "a/..", "x--y/z", "/nowhere/at/all", "what?"])
def test_what_is_neither_folder_nor_hub_id(cache, name):
    with pytest.raises(InputError, match="it is no hub id"):
        find_model(name)


def test_file_and_other_types(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="is a file; want the folder that holds config.json"):
        find_model(tmp_path / "x")
    with pytest.raises(InputError, match="the name is empty"):
        find_model("")
    with pytest.raises(InputError, match="came as int; want a folder or a hub id"):
        find_model(3)


@pytest.mark.parametrize(
    "setting, wanted",
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/c", "HF_HOME": "/b"}, "/c"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/d"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
        ({"HOME": "/home/me"}, "/home/me/.cache/huggingface/hub"),
    ],
)
def test_places_of_the_cache(monkeypatch, setting, wanted):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in setting.items():
        monkeypatch.setenv(variable, value)
    assert str(cache_folder()) == wanted


def test_a_name_too_long_for_the_system_is_refused():
    with pytest.raises(InputError, match="model: a{80}: .*want a folder or a hub id"):
        find_model("a" * 5000)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a" * 2000, b"../../etc", b""])
def test_a_branch_that_names_no_revision_is_refused(tmp_path, monkeypatch, data):
    home = tmp_path / "models--x--y"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_bytes(data)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="refs/main names no revision|bytes, more than the 1,024"):
        find_model("x/y")
