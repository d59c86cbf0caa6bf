"""PaliGemma you can step through: PaliGemma 1 and 2 in pure NumPy, an oracle for ports.

>>> model = npgemma.load()                                   # the small model in the box; or load("folder")
>>> npgemma.generate(model, "cat.png", "caption en").text
>>> npgemma.forward(model, ids, pixels)                      # logits of every position
>>> npgemma.trace(model, "cat.png", "caption en", only="text.*")

Read the model in this order: config, ops, rotary, masks, attention, vision, text, paligemma.
"""

import importlib
from typing import TYPE_CHECKING

# Imported when first asked for: the command sets how many threads BLAS has before NumPy is imported.
if TYPE_CHECKING:
    from npgemma.base.errors import NpgemmaError
    from npgemma.checkpoints.loading import load
    from npgemma.generation.generate import generate, generate_batch
    from npgemma.generation.scoring import score
    from npgemma.paligemma import Model, forward
    from npgemma.tracing.breaking import break_on
    from npgemma.tracing.trace import trace

PLACES = {
    "Model": "paligemma",
    "NpgemmaError": "base.errors",
    "break_on": "tracing.breaking",
    "forward": "paligemma",
    "generate": "generation.generate",
    "generate_batch": "generation.generate",
    "load": "checkpoints.loading",
    "score": "generation.scoring",
    "trace": "tracing.trace",
}

__all__ = ["Model", "NpgemmaError", "break_on", "forward", "generate", "generate_batch", "load", "score", "trace"]


def __getattr__(name: str) -> object:
    """Import a public name."""
    if name not in PLACES:
        raise AttributeError(f"module 'npgemma' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"npgemma.{PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
