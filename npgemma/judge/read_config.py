"""The configuration that a manifest holds, held against what a model can be."""

from dataclasses import fields

from npgemma.base.errors import CheckpointError
from npgemma.base.tensors import schema
from npgemma.config import Config, Conventions, TextConfig, VisionConfig

MOST_BLOCKS = 1000  # of a tower; the largest release has 46
LARGEST = 2**20  # of any size; the largest vocabulary has 257,216 rows


def config_in(said, place):
    """The configuration that a manifest holds."""
    try:
        held = said["config"]
        known = {each.name for each in fields(VisionConfig) if each.init}
        vision = VisionConfig(**{name: value for name, value in held["vision"].items() if name in known})
        text = TextConfig(**held["text"] | {"layer_windows": tuple(held["text"]["layer_windows"])})
        others = {name: held[name] for name in ("image_token_id", "pad_id", "bos_id")}
        ends, conventions = tuple(held["eos_ids"]), Conventions(**held["conventions"])
        found = Config(vision, text, **others, eos_ids=ends, conventions=conventions)
        check_numbers(found)
        schema(found)  # which computes with all sizes
        return found
    except (LookupError, TypeError, ValueError, NotImplementedError, AttributeError, ArithmeticError) as problem:
        raise CheckpointError(f"{place}: the manifest's configuration is damaged: {problem!r}") from None


def check_numbers(cfg):
    """Refuse a configuration whose numbers are none, or larger than any model's; raises ValueError."""
    for part in (cfg.vision, cfg.text):
        for each in fields(part):
            value = getattr(part, each.name)
            if not is_fit(value, each.type):
                raise ValueError(f"{each.name} is {value!r:.40}")
        if not 0 < part.depth <= MOST_BLOCKS:
            raise ValueError(f"{part.depth} blocks")
    ids = (cfg.image_token_id, cfg.pad_id, cfg.bos_id, *cfg.eos_ids)
    if not all(type(token) is int and 0 <= token < LARGEST for token in ids):
        raise ValueError(f"ids {ids!r:.40}")


def is_fit(value, kind):
    """Whether a value of a configuration is of its kind: a count, a finite number above zero, windows."""
    if kind is int:
        return type(value) is int and 1 <= value <= LARGEST
    if kind is bool:
        return type(value) is bool
    if isinstance(value, tuple):
        return all(window is None or is_fit(window, int) for window in value)
    return value is None and kind is not float or type(value) in (int, float) and 0 < value < 1e12
