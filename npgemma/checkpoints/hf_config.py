"""A Hugging Face ``config.json`` of any transformers version since 4.41, as npgemma's configuration.

transformers leaves out what equals its own defaults, so a missing key means a default of its classes
(``SiglipVisionConfig``, ``GemmaConfig``, ``Gemma2Config``): the same in 4.41, 4.49, 4.55 and 5.23.  Every field is
checked here, with bounds, before anything is allocated.  Code that a configuration names (``auto_map``) is never run.
"""

import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npgemma.base.errors import ConfigError, OddWarning
from npgemma.checkpoints.shards import what_else
from npgemma.config import Config, TextConfig, VisionConfig, alternating_windows
from npgemma.files.folder import model_file
from npgemma.files.reader import is_there, read_json

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"

SIGLIP_DEFAULTS = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 16,
}
GEMMA_DEFAULTS = {
    "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256,
}
GEMMA_2_DEFAULTS = {
    "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
}
MOST = {
    "vocab_size": 2**24, "hidden_size": 2**17, "intermediate_size": 2**20, "num_hidden_layers": 1000,
    "num_attention_heads": 4096, "num_key_value_heads": 4096, "head_dim": 2**14, "image_size": 2**14,
    "patch_size": 2**10, "sliding_window": 2**31, "max_position_embeddings": 2**31,
}
# The id that releases give to `<image>`; transformers' own default, 256000, is `<loc0000>` in every release.
IMAGE_TOKEN = 257152
TANH_GELU = "gelu_pytorch_tanh"


@dataclass(frozen=True)
class Section:
    """One JSON object of a configuration, and what error messages call it."""

    place: str
    values: dict[str, Any]
    defaults: dict[str, int]

    def fault(self, key: str, came: Any, wanted: str) -> ConfigError:
        return ConfigError(f"{self.place}{key} is {came!r:.80}; want {wanted}")

    def get(self, key: str, default: Any = None) -> Any:
        """A value; JSON's null counts as missing, as it does in transformers."""
        value = self.values.get(key)
        return default if value is None else value

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number from 1 to the bound of its key."""
        value = self.get(key, self.defaults.get(key) if default is None else default)
        if type(value) is not int or not 1 <= value <= MOST[key]:
            raise self.fault(key, value, f"a whole number from 1 to {MOST[key]:,}")
        return value

    def side(self, key: str) -> int:
        """A side in pixels; transformers 5 allows [side, side]."""
        value = self.get(key)
        if isinstance(value, list):
            if len(value) != 2 or value[0] != value[1]:
                raise self.fault(key, value, "one side, or two equal ones")
            return Section(self.place, {key: value[0]}, self.defaults).count(key)
        return self.count(key)

    def positive(self, key: str, default: float) -> float:
        """A number above zero."""
        value = self.get(key, default)
        if type(value) not in (int, float) or not 0 < value < math.inf or value > 1e30:
            raise self.fault(key, value, "a number above 0")
        return value

    def cap(self, key: str, default: float) -> float | None:
        """A soft-cap: the default where the key is missing, none where it is null."""
        if key in self.values and self.values[key] is None:
            return None
        return float(self.positive(key, default))

    def require(self, key: str, allowed: Iterable[Any], why: str) -> None:
        """Refuse what is not implemented; a missing key is allowed."""
        value = self.get(key)
        if value is not None and not any(value == one and type(value) is type(one) for one in allowed):
            raise self.fault(key, value, f"{' or '.join(map(repr, allowed))}: {why}")

    def child(self, key: str, defaults: dict[str, int]) -> "Section":
        """A nested object."""
        value = self.get(key)
        if not isinstance(value, dict):
            raise self.fault(key, value, "an object")
        return Section(f"{self.place}{key}.", value, defaults)


def read_config(folder: Path) -> Config:
    """Read a folder's ``config.json`` and, for the ids around a prompt, ``generation_config.json``.

    Raises
    ------
    ConfigError
        If it is broken, of another family, out of bounds, or asks for what npgemma does not implement.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; want one with {CONFIG}")
    path = model_file(folder, CONFIG, ConfigError)
    if not is_there(path):
        raise ConfigError(f"{folder}: has no {CONFIG}; {what_else(folder)}")
    generation_path = model_file(folder, GENERATION_CONFIG, ConfigError)
    generation = read_json(generation_path, ConfigError) if is_there(generation_path) else {}
    return parse_config(read_json(path, ConfigError), generation, str(path))


def parse_config(values: dict[str, Any], generation: dict[str, Any] | None = None, place: str = CONFIG) -> Config:
    """Make a configuration of the objects of ``config.json`` and ``generation_config.json``.

    Notes
    -----
    ``auto_map`` and unknown keys are ignored; :mod:`npgemma.show.doctor` reports them.
    """
    whole = Section(f"{place}: ", values, {})
    if values.get("model_type") != "paligemma":
        raise ConfigError(f"{place}: model_type={values.get('model_type')!r} is not PaliGemma; want 'paligemma'")
    if whole.get("quantization_config") is not None:
        raise whole.fault("quantization_config", values["quantization_config"], "none: get the unquantised release")
    whole.require("tie_word_embeddings", [True], "the output head is the embedding table")
    vision = parse_vision(whole.child("vision_config", SIGLIP_DEFAULTS))
    text_section = whole.child("text_config", {})
    text = parse_text(text_section)
    projection = whole.get("projection_dim", 2048)
    if projection != text.width:
        raise whole.fault("projection_dim", projection, f"text_config.hidden_size, {text.width}")
    image_token = image_token_of(whole)
    sources = [Section(f"{GENERATION_CONFIG}: ", generation or {}, {}), whole, text_section]
    return Config(
        vision, text, image_token,
        pad_id=special_ids("pad_token_id", 0, sources, text.vocab_size)[0],
        bos_id=special_ids("bos_token_id", 2, sources, text.vocab_size)[0],
        eos_ids=special_ids("eos_token_id", 1, sources, text.vocab_size),
    )


def parse_vision(section: Section) -> VisionConfig:
    """Read ``vision_config``."""
    section.require("model_type", ["siglip_vision_model"], "PaliGemma's tower is SigLIP")
    section.require("hidden_act", [TANH_GELU], "other activations are not implemented")
    section.require("num_channels", [3], "pictures are RGB")
    vision = VisionConfig(
        image_size=section.side("image_size"),
        patch_size=section.side("patch_size"),
        width=section.count("hidden_size"),
        depth=section.count("num_hidden_layers"),
        num_heads=section.count("num_attention_heads"),
        mlp_width=section.count("intermediate_size"),
        norm_eps=float(section.positive("layer_norm_eps", 1e-6)),
    )
    if vision.image_size < vision.patch_size:
        raise section.fault("image_size", vision.image_size, f"at least patch_size, {vision.patch_size}")
    if vision.image_size % vision.patch_size:
        odd = f"is {vision.image_size}, no multiple of patch_size, {vision.patch_size}"
        unseen = "the right and lower margins of a picture are not seen"
        warnings.warn(f"{section.place}image_size {odd}: {unseen}", OddWarning, stacklevel=5)
    if vision.width % vision.num_heads:
        raise section.fault("hidden_size", vision.width, f"a multiple of num_attention_heads, {vision.num_heads}")
    return vision


def parse_text(section: Section) -> TextConfig:
    """Read ``text_config`` of either generation."""
    kind = section.get("model_type", "gemma")
    if kind not in ("gemma", "gemma2"):
        raise section.fault("model_type", kind, "'gemma' (PaliGemma 1) or 'gemma2' (PaliGemma 2)")
    gemma_2 = kind == "gemma2"
    section = Section(section.place, section.values, GEMMA_2_DEFAULTS if gemma_2 else GEMMA_DEFAULTS)
    check_text(section, gemma_2)
    depth = section.count("num_hidden_layers")
    head_dim = section.count("head_dim")
    heads, kv_heads = section.count("num_attention_heads"), section.count("num_key_value_heads")
    if heads % kv_heads:
        raise section.fault("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads, {heads}")
    if head_dim % 2:
        raise section.fault("head_dim", head_dim, "an even number: rotation turns pairs")
    return TextConfig(
        vocab_size=section.count("vocab_size"),
        width=section.count("hidden_size"),
        depth=depth,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_width=section.count("intermediate_size"),
        norm_eps=float(section.positive("rms_norm_eps", 1e-6)),
        rope_theta=rope_theta(section),
        query_pre_attn_scalar=section.positive("query_pre_attn_scalar", 256) if gemma_2 else head_dim,
        attn_softcap=section.cap("attn_logit_softcapping", 50.0) if gemma_2 else None,
        final_softcap=section.cap("final_logit_softcapping", 30.0) if gemma_2 else None,
        layer_windows=layer_windows(section, depth) if gemma_2 else (None,) * depth,
        post_norms=gemma_2,
        max_positions=section.count("max_position_embeddings", 8192),
    )


def check_text(section: Section, gemma_2: bool) -> None:
    """Refuse what the decoder does not implement."""
    # Gemma's `hidden_act` was "gelu" in early releases and always meant the tanh form; Gemma 2 does not read it.
    if not gemma_2:
        section.require("hidden_act", [TANH_GELU, "gelu"], "other activations are not implemented")
    section.require("hidden_activation", [TANH_GELU], "other activations are not implemented")
    section.require("attention_bias", [False], "attention biases are not implemented")
    section.require("tie_word_embeddings", [True], "the output head is the embedding table")
    section.require("use_bidirectional_attention", [True], "a causal prefix is not implemented")
    section.require("use_adarms", [False], "adaptive norms (pi0.5) are not implemented")


def rope_theta(section: Section) -> float:
    """The base of the rotary frequencies: ``rope_parameters`` in transformers 5, ``rope_theta`` before."""
    for key in ("rope_parameters", "rope_scaling"):
        value = section.get(key)
        if value is None:
            continue
        inner = section.child(key, {})
        # The older spelling of `rope_type` is `type`.
        for kind in ("rope_type", "type"):
            inner.require(kind, ["default"], "scaled rotation is not implemented")
        nested = [name for name, one in value.items() if isinstance(one, dict)]
        if nested:
            raise inner.fault(nested[0], value[nested[0]], "one rope_theta for all blocks")
        if "rope_theta" in value:
            return float(inner.positive("rope_theta", 10000.0))
    return float(section.positive("rope_theta", 10000.0))


def layer_windows(section: Section, depth: int) -> tuple[int | None, ...]:
    """How far back each block of Gemma 2 looks: as ``layer_types`` says, else even blocks slide."""
    null = "sliding_window" in section.values and section.values["sliding_window"] is None
    window = None if null else section.count("sliding_window", 4096)
    types = section.get("layer_types")
    if types is None:
        windows = alternating_windows(depth, window) if window else None
    else:
        known = {"sliding_attention": window, "full_attention": None}
        if not isinstance(types, list) or len(types) != depth:
            raise section.fault("layer_types", types, f"a list of {depth}, one a block")
        for n, kind in enumerate(types):
            if not isinstance(kind, str) or kind not in known:
                raise section.fault(f"layer_types[{n}]", kind, " or ".join(map(repr, known)))
        windows = tuple(known[kind] for kind in types)
        if window is None and "sliding_attention" in types:
            windows = None
    if windows is None:
        raise section.fault("sliding_window", None, "a number of tokens: there are sliding blocks")
    return windows


def image_token_of(section: Section) -> int:
    """The id that stands for a soft token; transformers 5 accepts both names of the key."""
    given = {key: section.get(key) for key in ("image_token_index", "image_token_id")}
    found = {key: value for key, value in given.items() if value is not None}
    for key, value in found.items():
        if type(value) is not int or not 0 <= value < MOST["vocab_size"]:
            raise section.fault(key, value, f"a token id from 0 to {MOST['vocab_size'] - 1:,}")
    if len(set(found.values())) > 1:
        other = found["image_token_index"]
        raise section.fault("image_token_id", found["image_token_id"], f"{other}, as image_token_index")
    return next(iter(found.values()), IMAGE_TOKEN)


def special_ids(key: str, default: int, sources: list[Section], vocab_size: int) -> tuple[int, ...]:
    """The ids of a special token, from the first section that has the key, as transformers' generate does.

    Only ``eos_token_id`` may be a list.
    """
    section = next((source for source in sources if source.get(key) is not None), None)
    if section is None:
        return (default,)
    value = section.get(key)
    ids = value if isinstance(value, list) and key == "eos_token_id" else [value]
    if not ids or not all(type(one) is int and 0 <= one < vocab_size for one in ids):
        raise section.fault(key, value, f"an id from 0 to vocab_size - 1 = {vocab_size - 1:,}")
    return tuple(ids)
