"""The hover of VS Code and PyCharm; pydevd itself is not needed, only the two names that it hands out.

``tools/first_stop.py`` tries the real one.
"""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import npgemma
from npgemma.base.describe import describe

ROOT = Path(__file__).parents[2]


class StrPresentationProvider:
    """Pydevd's base class of what shows a value as text."""


@pytest.fixture
def providers(monkeypatch):
    """The list of providers that pydevd asks; npgemma has just been imported under it."""
    api = types.ModuleType("_pydevd_bundle.pydevd_extension_api")
    api.StrPresentationProvider = StrPresentationProvider
    utils = types.ModuleType("_pydevd_bundle.pydevd_extension_utils")
    found = {StrPresentationProvider: []}
    utils.extensions_of_type = found.__getitem__
    for module in (types.ModuleType("_pydevd_bundle"), api, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "npgemma.show.hover", raising=False)
    importlib.reload(npgemma)
    yield found[StrPresentationProvider]
    sys.modules.pop("npgemma.show.hover", None)


def test_importing_npgemma_under_a_debugger_registers_the_hover_once(providers):
    assert [type(provider).__name__ for provider in providers] == ["DescribedArray"]
    importlib.reload(npgemma)
    assert len(providers) == 1


def test_arrays_and_nothing_else_are_ours(providers):
    assert providers[0].can_provide(np.ndarray, "ndarray")
    assert not providers[0].can_provide(list, "list")


def test_a_hover_shows_the_line(providers):
    x = np.arange(12.0).reshape(3, 4)
    assert providers[0].get_str(x) == describe(x)


def test_large_arrays_are_sampled(providers):
    assert "every" in providers[0].get_str(np.zeros((3, 1 << 20), dtype=np.float32))


def test_what_is_no_number_has_numpys_own_text(providers):
    words = np.array(["a", "b"])
    assert providers[0].get_str(words) == repr(words)


def test_the_readme_installs_the_checkout_itself_so_that_breakpoints_set_in_it_fire():
    first = (ROOT / "README.md").read_text().split("<!-- ci: run -->")[1].split("```")[1]
    assert "pip install -q -e '.[test]'" in first
