"""What a model's folder is, and everything that is wrong with it: :func:`examine` goes on where loading would stop."""

import contextlib
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from npgemma.base import elsewhere
from npgemma.base.errors import NpgemmaError, OddWarning
from npgemma.base.tensors import schema
from npgemma.checkpoints import checkpoint, hf_config, hub_cache, memory, shards
from npgemma.checkpoints.checkpoint import nonfinite, set_of_files
from npgemma.config import VARIANTS, Config
from npgemma.files import image_settings
from npgemma.files.reader import is_there, read_json
from npgemma.files.safetensors_file import MappedFile, Source
from npgemma.show.costs import PROMPT_TOKENS, amount, peak_bytes
from npgemma.words import tokenizer

# Rows that mean something: 256,000 pieces, 1,024 places and 128 shapes; Hugging Face's files have 64 more.
ROWS_IN_USE = 257152
# Nothing of these is ever opened.
NEVER_RUN = (".py", ".bin", ".pt", ".pth", ".pkl", ".ckpt")


@dataclass(frozen=True)
class Finding:
    """One thing to know: ``level`` is ``fact``, ``note`` (odd, but no hindrance) or ``fault``."""

    level: str
    topic: str
    text: str


@dataclass(frozen=True)
class Report:
    """All findings about a folder."""

    folder: Path
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What keeps the model from being used."""
        return tuple(finding for finding in self.findings if finding.level == "fault")


def examine(name_or_folder: str | Path, progress: Callable[[int, int], None] | None = None) -> Report:
    """Look at everything in a folder, reading each weight once.

    Parameters
    ----------
    name_or_folder : str or Path
        A folder, or a hub id in the local cache.
    progress : callable, optional
        ``progress(done, total)`` in bytes, while weights are read.
    """
    folder = hub_cache.find_model(name_or_folder)
    findings: list[Finding] = []
    cfg, holders = None, {}
    with noting("config", findings):
        cfg = hf_config.read_config(folder)
        findings += describe_config(folder, cfg)
    with noting("weights", findings):
        holders = shards.open_weights(folder)
        findings += describe_files(holders)
    if cfg is not None and holders:
        findings += examine_weights(holders, cfg, progress)
    if cfg is not None:
        findings += examine_tokenizer(folder, cfg)
        findings += examine_preprocessor(folder, cfg)
    findings += describe_other_files(folder, holders)
    return Report(folder, tuple(findings))


@contextlib.contextmanager
def noting(topic: str, findings: list[Finding]) -> Iterator[None]:
    """Turn an error into a fault, and warnings into notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", OddWarning)
        try:
            yield
        except NpgemmaError as problem:
            findings.append(Finding("fault", topic, str(problem)))
    findings += [Finding("note", topic, str(warning.message)) for warning in caught]


def describe_config(folder: Path, cfg: Config) -> Iterator[Finding]:
    """Family, size, resolution; and what the configuration says that is not followed."""
    text, side = cfg.text, cfg.vision.image_size
    yield Finding("fact", "family", f"PaliGemma {2 if text.post_norms else 1}, {released_size(cfg)}")
    yield Finding("fact", "picture", f"{side} x {side} pixels, {cfg.vision.num_patches:,} image tokens")
    total = sum(math.prod(parameter.shape) for parameter in schema(cfg).values())
    yield Finding("fact", "parameters", f"{total:,}")
    extra = text.vocab_size - ROWS_IN_USE
    rows = f"{extra} of them behind the last token: Hugging Face's padding" if extra == 64 else "no padding"
    yield Finding("fact", "rows", f"{text.vocab_size:,} rows in the embedding table, {rows}")
    values = read_json(folder / hf_config.CONFIG, NpgemmaError)
    for key in ("auto_map", "trust_remote_code"):
        if key in values:
            yield Finding("note", "config", f"{key} is ignored: npgemma never runs code of a model's folder")


def released_size(cfg: Config) -> str:
    """Name the released variant of these sizes, whatever its number of rows."""
    sizes = {name: (variant.vision, shape_of(variant)) for name, variant in VARIANTS.items()}
    return next((name for name, one in sizes.items() if one == (cfg.vision, shape_of(cfg))), "no released size")


def shape_of(cfg: Config) -> dict:
    """Everything about the decoder but its rows."""
    return {key: value for key, value in vars(cfg.text).items() if key != "vocab_size"}


def describe_files(holders: dict[str, MappedFile]) -> Iterator[Finding]:
    """How many weight files, tensors and bytes, in which dtypes."""
    files = set_of_files(holders)
    size = sum(file.identity[2] for file in files)
    dtypes = Counter(file.tensors[key].dtype for key, file in holders.items())
    counted = ", ".join(f"{count} {dtype}" for dtype, count in dtypes.most_common())
    yield Finding("fact", "weights", f"{len(files)} file(s), {amount(size, 'B')}, tensors: {counted}")


def examine_weights(
    holders: dict[str, MappedFile], cfg: Config, progress: Callable[[int, int], None] | None
) -> Iterator[Finding]:
    """Names, shapes, head, numbers, memory."""
    layout = elsewhere.layout_of(holders, cfg)
    seen_in = elsewhere.LAYOUTS[layout].seen_in if layout else "keys of several layouts mixed"
    yield Finding("fact" if layout else "note", "layout", f"{layout}: {seen_in}" if layout else seen_in)
    sources, faults = checkpoint.pair(holders, cfg)
    for fault in faults:
        yield Finding("fault", "weights", fault)
    extras = sorted(filter(checkpoint.is_known_extra, holders))
    if extras:
        yield Finding("note", "weights", f"{len(extras)} that PaliGemma does not use: {shards.some(set(extras))}")
    if "text.embedded.weight" in sources:
        yield examine_head(holders, sources["text.embedded.weight"])
    yield from examine_numbers(sources, progress)
    if not faults:
        yield from describe_memory(sources, cfg)


def examine_head(holders: dict[str, MappedFile], table: Source) -> Finding:
    """Whether the output head is the embedding table."""
    try:
        checkpoint.check_head(holders, table)
    except NpgemmaError as problem:
        return Finding("fault", "head", str(problem))
    stored = checkpoint.HEADS & holders.keys()
    return Finding("fact", "head", "tied; stored too, equal to the table" if stored else "tied to the embedding table")


def examine_numbers(
    sources: dict[str, Source], progress: Callable[[int, int], None] | None
) -> Iterator[Finding]:
    """Look for NaN and infinities in every weight."""
    done, total = 0, sum(source.num_bytes for source in sources.values())
    bad = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for source in sources.values():
            fault = nonfinite(source.read(), pool) if source.tensor.dtype in checkpoint.FLOATS else None
            if fault:
                bad += 1
                yield Finding("fault", "numbers", f"{source.tensor.name!r} holds {fault}")
            source.file.let_go(source.tensor.name)
            done += source.num_bytes
            if progress is not None:
                progress(done, total)
    if not bad:
        yield Finding("fact", "numbers", "all finite")


def describe_memory(sources: dict[str, Source], cfg: Config) -> Iterator[Finding]:
    """What each mode allocates for the weights and for a picture with a short prompt, against what there is."""
    available = memory.available_memory()
    room = "" if available is None else f"; {amount(available, 'B')} are available"
    prefill = peak_bytes(cfg, cfg.vision.num_patches + PROMPT_TOKENS)
    for mode in checkpoint.DTYPES:
        weights = memory.memory_needed(sources, schema(cfg), mode)
        working = prefill * (2 if mode == "float64" else 1)
        mapped = memory.memory_mapped(sources, schema(cfg), mode)
        parts = f"{amount(weights, 'B')} for weights, {amount(working, 'B')} to read a picture"
        if mapped:
            parts += f", {amount(mapped, 'B')} mapped from the file"
        level = "note" if available is not None and weights + working + mapped > available else "fact"
        yield Finding(level, "memory", f"--dtype {mode}: {parts}{room}")


def examine_tokenizer(folder: Path, cfg: Config) -> Iterator[Finding]:
    """Whether there is a tokenizer, and whether it is this model's."""
    if not tokenizer.has_tokenizer(folder):
        yield Finding("note", "tokenizer", "none (tokenizer.model or tokenizer.json): only ids go in and come out")
        return
    try:
        found = tokenizer.load_tokenizer(folder, cfg)
        source = found.vocabulary.source
        yield Finding("fact", "tokenizer", f"{Path(source).name}, {found.vocab_size:,} pieces")
    except NpgemmaError as problem:
        yield Finding("fault", "tokenizer", str(problem))


def examine_preprocessor(folder: Path, cfg: Config) -> Iterator[Finding]:
    """Whether pictures are prepared as this model wants them."""
    try:
        settings = image_settings.read_settings(folder)
    except NpgemmaError as problem:
        yield Finding("fault", "preprocessor", str(problem))
        return
    names = [name for name in ("preprocessor_config.json", "processor_config.json") if is_there(folder / name)]
    side = cfg.vision.image_size
    if settings.size not in (None, side):
        text = f"{names[0]} resizes to {settings.size}, config.json wants {side}; one of them is another model's"
        yield Finding("fault", "preprocessor", text)
    elif names:
        yield Finding("fact", "preprocessor", f"{names[0]}: {settings.resample}, {settings.size or side} pixels")
    else:
        yield Finding("note", "preprocessor", f"none; pictures are resized to {side} pixels as the releases do")


def describe_other_files(folder: Path, holders: dict[str, MappedFile]) -> Iterator[Finding]:
    """Files that could be taken for a part of the model, and are not."""
    used = {file.path.name for file in set_of_files(holders)}
    for path in sorted(folder.iterdir()):
        if path.suffix in NEVER_RUN:
            yield Finding("note", "files", f"{path.name!r} is never opened: it could run code")
        elif path.suffix == ".safetensors" and holders and path.name not in used:
            yield Finding("note", "files", f"{path.name!r} is not a part of the model")


def as_text(report: Report) -> str:
    """Write a report for people, the verdict last."""
    marks = {"fact": " ", "note": "!", "fault": "X"}
    lines = [f"{report.folder}", *(f"{marks[one.level]} {one.topic:<13} {one.text}" for one in report.findings)]
    count = len(report.faults)
    verdict = f"{count} fault{'s' if count > 1 else ''} (X)" if count else "nothing is wrong with it"
    return "\n".join([*lines, verdict])
