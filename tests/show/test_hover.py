"""The hover of VS Code and PyCharm; pydevd itself is not needed, only the base class that it hands out."""

import configparser
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from npgemma.base.describe import describe

ROOT = Path(__file__).parents[2]
# An installed npgemma has it among pydevd's plugins, not among its own modules.
FILE = ROOT / "npgemma" / "show" / "hover" / "pydevd_plugin_npgemma.py"


@pytest.fixture
def provider(monkeypatch):
    """The provider as pydevd makes it."""
    api = types.ModuleType("_pydevd_bundle.pydevd_extension_api")
    api.StrPresentationProvider = type("StrPresentationProvider", (), {})
    monkeypatch.setitem(sys.modules, "_pydevd_bundle", types.ModuleType("_pydevd_bundle"))
    monkeypatch.setitem(sys.modules, "_pydevd_bundle.pydevd_extension_api", api)
    spec = importlib.util.spec_from_file_location("pydevd_plugin_npgemma", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    [found] = [item for item in vars(module).values() if isinstance(item, type) and item.__bases__[0] is not object]
    return found()


def test_arrays_and_nothing_else_are_ours(provider):
    assert provider.can_provide(np.ndarray, "ndarray")
    assert not provider.can_provide(list, "list")


def test_a_hover_shows_the_line(provider):
    x = np.arange(12.0).reshape(3, 4)
    assert provider.get_str(x) == describe(x)


def test_large_arrays_are_sampled(provider):
    assert "every" in provider.get_str(np.zeros((3, 1 << 20), dtype=np.float32))


def test_what_is_no_number_has_numpys_own_text(provider):
    words = np.array(["a", "b"])
    assert provider.get_str(words) == repr(words)


def test_a_program_that_does_not_use_npgemma_keeps_numpys_own_text(provider, monkeypatch):
    monkeypatch.delitem(sys.modules, "npgemma.base.describe")
    x = np.arange(3.0)
    assert provider.get_str(x) == repr(x)


def test_it_is_installed_where_pydevd_looks():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options"]["py_modules"] == f"pydevd_plugins.extensions.{FILE.stem}"
    assert setup["options"]["package_dir"].split() == ["pydevd_plugins.extensions", "=", "npgemma/show/hover"]
    assert (FILE.parents[3] / "npgemma/show/hover" / FILE.name).is_file()
