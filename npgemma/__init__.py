"""PaliGemma you can step through: PaliGemma 1 and 2 in pure NumPy, an oracle for ports.

>>> model = npgemma.load()                                   # the small model in the box; or load("folder")
>>> npgemma.generate(model, "cat.png", "caption en").text
>>> npgemma.forward(model, ids, pixels)                      # logits of every position
>>> npgemma.trace(model, "cat.png", "caption en", only="text.*")
>>> npgemma.gradients(model, "cat.png", "caption en", "a cat")  # what each number had to do with the surprise

And in a debugger, of what is there:

>>> npgemma.describe(q)                                      # one line: shape, range, mean, histogram
>>> print(npgemma.draw_mask(mask))                           # who may look at whom
>>> npgemma.lens(model, out)                                 # what the model would say after this block

Read the model in this order: config, ops, rotary, masks, attention, vision, text, paligemma.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npgemma.base.describe import describe
    from npgemma.base.errors import NpgemmaError
    from npgemma.checkpoints.loading import load
    from npgemma.generation.generate import generate, generate_batch
    from npgemma.generation.scoring import score
    from npgemma.learn.teaching import gradients
    from npgemma.paligemma import Model, forward
    from npgemma.places.codec_file import load_codec
    from npgemma.places.evaluate import evaluate
    from npgemma.places.locate import locate
    from npgemma.places.segments import encode_mask
    from npgemma.show.breaking import break_on
    from npgemma.show.lens import lens
    from npgemma.show.mask_art import draw_mask
    from npgemma.tracing.trace import trace

__version__: str
__all__ = [
    "Model", "NpgemmaError", "break_on", "describe", "draw_mask", "encode_mask", "evaluate", "forward", "generate",
    "generate_batch", "gradients", "lens", "load", "load_codec", "locate", "score", "trace",
]

# Where each public name is defined: imported when it is first used, for none needs all the others.
HOMES = {
    "Model": "paligemma",
    "NpgemmaError": "base.errors",
    "break_on": "show.breaking",
    "describe": "base.describe",
    "draw_mask": "show.mask_art",
    "encode_mask": "places.segments",
    "evaluate": "places.evaluate",
    "forward": "paligemma",
    "generate": "generation.generate",
    "generate_batch": "generation.generate",
    "gradients": "learn.teaching",
    "lens": "show.lens",
    "load": "checkpoints.loading",
    "load_codec": "places.codec_file",
    "locate": "places.locate",
    "score": "generation.scoring",
    "trace": "tracing.trace",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = importlib.import_module("npgemma.base.version").version()
    elif name in HOMES:
        value = getattr(importlib.import_module(f"npgemma.{HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'npgemma' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "_pydevd_bundle.pydevd_extension_utils" in sys.modules:  # the debugger of VS Code and PyCharm
    importlib.import_module("npgemma.show.hover").register()
