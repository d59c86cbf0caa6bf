"""What `import npgemma` gives, and what it leaves alone until it is asked for."""

import importlib.metadata
import importlib.resources
import inspect
import subprocess
import sys

import pytest

import npgemma
from npgemma.base.version import UNKNOWN


def test_every_public_name_is_there_and_is_its_homes_own():
    assert set(npgemma.HOMES) == set(npgemma.__all__) <= set(dir(npgemma))
    for name, home in npgemma.HOMES.items():
        assert getattr(npgemma, name) is getattr(importlib.import_module(f"npgemma.{home}"), name)


def test_the_version_is_the_installed_one_s():
    try:
        wanted = importlib.metadata.version("npgemma")
    except importlib.metadata.PackageNotFoundError:
        wanted = UNKNOWN
    assert npgemma.__version__ == wanted


def test_types_are_there_for_whoever_uses_the_package():
    assert importlib.resources.files("npgemma").joinpath("py.typed").is_file()
    for name in npgemma.__all__:
        function = getattr(npgemma, name)
        if not inspect.isfunction(function):
            continue
        signature = inspect.signature(function)
        bare = [each.name for each in signature.parameters.values() if each.annotation is each.empty]
        assert not bare and signature.return_annotation is not signature.empty, (name, bare)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'npgemma' has no attribute 'forwards'"):
        npgemma.forwards  # noqa: B018


def test_importing_brings_neither_numpy_nor_pillow_nor_a_debugger():
    code = "import sys, npgemma; print(sorted({'numpy', 'PIL', 'pdb', 'cupy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_what_a_debugger_shows_of_a_model_fits_a_screen_and_of_a_tokenizer_a_line():
    model = npgemma.load()
    first, *lines = repr(model).splitlines()
    assert first == "Model 'the model in the box': vision 5 blocks of 192, 6 heads; text 4 blocks of 128, 4 heads"
    assert any("blocks x 5: 80 arrays" in line for line in lines) and repr(model.tokenizer) in lines
    assert len(lines) < 24 and len(repr(model)) < 2000
    for each in (model.tokenizer, model.tokenizer.vocabulary):
        assert "of 1,792 pieces, 1,168 of them cut out whole, " in repr(each) and "\n" not in repr(each)
