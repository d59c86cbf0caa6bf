"""What `import npgemma` gives, and what it leaves alone until it is asked for."""

import importlib
import subprocess
import sys

import pytest

import npgemma


def test_every_public_name_is_there_and_is_its_homes_own():
    assert set(npgemma.HOMES) == set(npgemma.__all__) <= set(dir(npgemma))
    for name, home in npgemma.HOMES.items():
        assert getattr(npgemma, name) is getattr(importlib.import_module(f"npgemma.{home}"), name)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'npgemma' has no attribute 'forwards'"):
        npgemma.forwards  # noqa: B018


def test_importing_brings_neither_numpy_nor_pillow_nor_a_debugger():
    code = "import sys, npgemma; print(sorted({'numpy', 'PIL', 'pdb', 'cupy'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
