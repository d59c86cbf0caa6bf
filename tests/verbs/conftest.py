"""A picture to ask about, and a model in the place of the one that would be loaded."""

import numpy as np
import pytest
from PIL import Image

from npgemma.verbs import options


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "cat.png"
    Image.fromarray((np.arange(20 * 30 * 3).reshape(20, 30, 3) % 251).astype(np.uint8)).save(path)
    return str(path)


@pytest.fixture
def speak(monkeypatch):
    """Puts a model in place of the one that would be loaded; returns what load was called with."""

    def put(model):
        calls = []
        monkeypatch.setattr(options, "load", lambda *args, **kwargs: calls.append((args, kwargs)) or model)
        return calls

    return put
