"""The weights of a Hugging Face folder, under npgemma's names: strict, memory-mapped, used as they are stored.

Every tensor is used once and every parameter filled once.  Left aside are only what is known to be no weight of the
model (:data:`KNOWN_EXTRAS`) and a copy of the embedding table as output head, which must equal it bit for bit.
"""

import difflib
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from npgemma.base import elsewhere, half
from npgemma.base.device import Card
from npgemma.base.errors import CheckpointError, InputError
from npgemma.base.precision import PRECISIONS, Precision
from npgemma.base.tensors import Parameter, schema
from npgemma.base.weights import read_only
from npgemma.checkpoints.memory import check_card, check_memory, stays_stored
from npgemma.checkpoints.shards import open_weights, some
from npgemma.config import Config
from npgemma.files.safetensors_file import FLOATS, MappedArrays, MappedFile, Source

DTYPES = ("float32", "bfloat16", "float64")

KNOWN_EXTRAS = (
    # Buffers that old versions of transformers saved; they follow from the configuration.
    r"(model\.)?language_model\.(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
    r"(model\.)?vision_tower\.(vision_model\.)?embeddings\.position_ids",
    # SigLIP's pooling head: transformers builds and saves it unless told otherwise, and PaliGemma never looks at it.
    r"(model\.)?vision_tower\.(vision_model\.)?head\.(probe|attention\.(in_proj_|out_proj\.)(weight|bias)"
    r"|(layernorm|mlp\.fc[12])\.(weight|bias))",
)
# What a key's end tells of a file that holds no plain weights.
FOREIGN = {
    "a LoRA adapter: merge it into its base model first": r"lora_(A|B|embedding_[AB])\b|lora_magnitude",
    "quantised by GPTQ or AWQ: get the unquantised release": r"\.(qweight|qzeros|g_idx)$",
    "quantised by bitsandbytes: get the unquantised release": r"\.(SCB|absmax|quant_map|quant_state\..*)$",
    "quantised to 8 bits: get the unquantised release": r"\.weight_scale(_inv)?$",
}
# The output head, which PaliGemma ties to the embedding table.
HEADS = {layout.head for layout in elsewhere.LAYOUTS.values()}
CHUNK = 1 << 20  # numbers widened at a time by one thread: a few MB stay in its cache
COMPARED = 1000  # names among which the nearest one is looked for
SMALL_FILE = 256 * 2**20  # bytes


def load_weights(
    folder: Path | str,
    cfg: Config,
    dtype: str = "float32",
    precision: Precision = PRECISIONS["float32"],
    progress: Callable[[int, int], None] | None = None,
    allow_nonfinite: bool = False,
    card: Card | None = None,
) -> MappedArrays:
    """Load a checkpoint.

    Parameters
    ----------
    folder : str or Path
        With ``model.safetensors``, or shards and their index.
    cfg : Config
    dtype : str
        ``float32``: matrices are widened once; what is stored as float32 stays in the file, mapped.
        ``bfloat16`` and ``float64``: every matrix stays as stored, mapped.
    precision : Precision
        One that emulates bfloat16 decides instead of ``dtype``: matrices stored as bfloat16 stay so, mapped; others
        become float32 rounded to bfloat16.  So does float64.
        Vectors and the small tables are always widened: to float64 in float64, else to float32.
    progress : callable, optional
        ``progress(done, total)`` in bytes of the files.
    allow_nonfinite : bool
        Accept NaN and infinities.
    card : Card, optional
        Where the weights go, each once and as it is stored; what the host would widen is widened there.

    Returns
    -------
    arrays : MappedArrays
        A dict by npgemma's names, as :func:`npgemma.base.tensors.schema`.  All read-only on the host.

    Raises
    ------
    CheckpointError
        If the files are damaged, do not fit ``cfg``, hold NaN or infinities, or need more memory than there is.

    Warns
    -----
    SlowWarning
        If the matrices that stay in the files do not fit into memory too: what runs is then read from disk each time.

    Notes
    -----
    NaN and infinities are looked for wherever numbers are read anyway, and in mapped matrices of files under 256 MB or
    stored as float32 and used so; a large mapped file would have to be read whole (``npgemma doctor`` does).
    A mapped file must not be written to or cut while the weights are in use: see :mod:`npgemma.files.safetensors_file`.
    """
    if dtype not in DTYPES:
        raise InputError(f"load_weights: dtype {dtype!r}; want one of {', '.join(DTYPES)}")
    mode = dtype if precision.name == "float32" else precision.name
    holders = open_weights(Path(folder))
    sources = match(folder, holders, cfg)
    parameters = schema(cfg)
    if card is None:
        check_memory(folder, sources, parameters, mode)
    else:
        check_card(folder, sources, parameters, mode, card)
    check_head(holders, sources["text.embedded.weight"])
    total, done, arrays = sum(source.num_bytes for source in sources.values()), 0, MappedArrays()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, source in sources.items():
            array = load_one(source, parameters[name], mode, pool, allow_nonfinite, card)
            shaped = read_only(array.reshape(parameters[name].shape))
            if card is None and stays_stored(source.tensor, parameters[name], mode):
                arrays.lay(name, shaped, source.file)
            else:
                arrays[name] = shaped
            done += source.num_bytes
            if progress is not None:
                progress(done, total)
    for file in set_of_files(holders):
        file.check()
    if card is not None:
        card.tidy()
    return arrays


def set_of_files(holders: dict[str, MappedFile]) -> list[MappedFile]:
    """Each file once."""
    return list({file.path: file for file in holders.values()}.values())


def match(folder: Path | str, holders: dict[str, MappedFile], cfg: Config) -> dict[str, Source]:
    """Find each parameter's tensor; raise the first fault if there is any."""
    sources, faults = pair(holders, cfg)
    if faults:
        more = f" (npgemma doctor lists {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise CheckpointError(f"{folder}: {faults[0]}{more}")
    return sources


def pair(holders: dict[str, MappedFile], cfg: Config) -> tuple[dict[str, Source], list[str]]:
    """Pair parameters with tensors, and list all that is wrong: foreign, double, missing, unknown, of another shape.

    Returns
    -------
    sources : dict of str to Source
        In the schema's order; whole if there is no fault.
    faults : list of str
    """
    faults = foreign(holders)
    ours, parameters = elsewhere.ours_by_key(cfg), schema(cfg)
    found: dict[str, Source] = {}
    unknown = set()
    for key, file in holders.items():
        name = ours.get(key)
        if name is not None and name in found:
            faults.append(f"{found[name].tensor.name!r} and {key!r} are one parameter; remove one")
        elif name is not None:
            found[name] = Source(file, file.tensors[key])
        elif key not in HEADS and not is_known_extra(key):
            unknown.add(key)
    keys = elsewhere.keys(cfg, elsewhere.layout_of(holders, cfg) or "A")
    missing = {keys[name] for name in parameters.keys() - found.keys()}
    faults += other_generation(missing, unknown, cfg)
    if missing or unknown:
        faults.append(f"tensors {faults_of_names(missing, unknown)}; does config.json belong to them?")
    sources = {name: found[name] for name in parameters if name in found}
    misfits = (misfit(name, parameters[name], source, cfg) for name, source in sources.items())
    return sources, faults + [fault for fault in misfits if fault]


def foreign(holders: dict[str, MappedFile]) -> list[str]:
    """Recognise adapters and quantised weights before they look like a list of missing names."""
    return [
        f"the weights are {kind} (tensor {key!r})"
        for kind, pattern in FOREIGN.items()
        for key in [next((key for key in holders if re.search(pattern, key)), None)]
        if key is not None
    ]


def other_generation(missing: set[str], unknown: set[str], cfg: Config) -> list[str]:
    """Recognise the weights of one PaliGemma under the configuration of the other, by the norms that only 2 has."""
    odd = missing if cfg.text.post_norms else unknown
    if not any(key.endswith(".pre_feedforward_layernorm.weight") for key in odd):
        return []
    said, found = (2, 1) if cfg.text.post_norms else (1, 2)
    kind = {1: "gemma", 2: "gemma2"}
    return [
        f"the weights are PaliGemma {found}'s, config.json says PaliGemma {said} "
        f"(text_config.model_type {kind[said]!r}, not {kind[found]!r}): one of them is another model's"
    ]


def is_known_extra(key: str) -> bool:
    """Tell a tensor that some version of transformers saved and the model does not use."""
    return any(re.fullmatch(pattern, key) for pattern in KNOWN_EXTRAS)


def faults_of_names(missing: set[str], extras: set[str]) -> str:
    """List what is missing and what is left over, with the left-over name that is nearest to the first missing one."""
    faults = []
    if missing:
        near = difflib.get_close_matches(min(missing), sorted(extras)[:COMPARED], n=1)
        faults.append(f"{len(missing)} missing: {some(missing)}" + (f" (nearest found: {near[0]!r})" if near else ""))
    if extras:
        faults.append(f"{len(extras)} unknown: {some(extras)}")
    return "; ".join(faults)


def misfit(name: str, parameter: Parameter, source: Source, cfg: Config) -> str | None:
    """Say how one stored tensor differs from what the configuration wants, if it does."""
    wanted, meanings = parameter.shape, [origin(letter, name) for letter in parameter.letters.split()]
    if name == "vision.patches.weight":
        side = cfg.vision.patch_size
        wanted = (cfg.vision.width, 3, side, side)
        meanings = [meanings[0], "3 colours", "vision_config.patch_size", "vision_config.patch_size"]
    found, dtype = source.tensor.shape, source.tensor.dtype
    place = f"{source.tensor.name!r} ({source.file.path.name}) is {found}"
    if dtype not in FLOATS:
        return f"{place} {dtype}; supported: {', '.join(FLOATS)}"
    if found == wanted:
        return None
    if found == wanted[::-1]:
        return f"{place}, config.json wants {wanted}: it looks transposed"
    differing = [
        f"{meaning} = {size}" for meaning, size, other in zip(meanings, wanted, found, strict=False) if size != other
    ]
    return f"{place}, config.json wants {wanted}; see {', '.join(differing) or 'the number of axes'}"


def origin(letter: str, name: str) -> str:
    """The key of ``config.json`` that a letter of a parameter's shape comes from."""
    tower = name.split(".")[0]
    return {
        "V": "text_config.vocab_size",
        "D": "text_config.hidden_size",
        "NH": "text_config.num_attention_heads x head_dim",
        "KH": "text_config.num_key_value_heads x head_dim",
        "C": "vision_config.hidden_size",
        "P": "(vision_config.image_size / patch_size)^2",
        "F": f"{tower}_config.intermediate_size",
    }.get(letter, letter)


def check_head(holders: dict[str, MappedFile], table: Source) -> None:
    """Refuse an output head that is not the embedding table."""
    for key in HEADS & holders.keys():
        head = Source(holders[key], holders[key].tensors[key])
        place = f"{head.file.path}: the output head {key!r}"
        if (head.tensor.dtype, head.tensor.shape) != (table.tensor.dtype, table.tensor.shape):
            raise CheckpointError(
                f"{place} is {head.tensor.dtype} {head.tensor.shape}, the embedding table {table.tensor.dtype} "
                f"{table.tensor.shape}; PaliGemma's head is tied to its table, an own head is not supported"
            )
        ours, theirs = table.read(), head.read()
        bits = f"u{ours.dtype.itemsize}"
        for start in range(0, len(ours), 4096):  # rows; a few MB at a time
            differs = ours[start : start + 4096].view(bits) != theirs[start : start + 4096].view(bits)
            if differs.any():
                row, column = np.argwhere(differs)[0] + (start, 0)
                values = half.widen(ours[row])[column], half.widen(theirs[row])[column]
                raise CheckpointError(
                    f"{place} differs from the embedding table, first at [{row}, {column}]: {values[1]:.8g} and "
                    f"{values[0]:.8g}; PaliGemma's head is tied to its table, an own head is not supported"
                )


def load_one(
    source: Source, parameter: Parameter, mode: str, pool: ThreadPoolExecutor, allow_nonfinite: bool,
    card: Card | None = None
):
    """Read one parameter: mapped, or widened by all threads; or onto a card."""
    array = source.read()
    if card is not None:
        return load_onto(card, source, array, parameter, mode, pool, allow_nonfinite)
    if stays_stored(source.tensor, parameter, mode):
        small = source.file.identity[2] < SMALL_FILE
        if (mode == "float32" or small) and not allow_nonfinite:
            refuse_nonfinite(source, array, pool)
        # Only a file of another writer is unaligned; products with such an array would copy it each time.
        return np.require(array, requirements="A").view()
    precision = precision_of(mode)
    wide: np.ndarray = np.empty(array.shape, precision.dtype)
    list(pool.map(lambda part: fill(wide.reshape(-1)[part], array.reshape(-1)[part], precision), parts(array.size)))
    if not allow_nonfinite:
        refuse_nonfinite(source, wide, pool)
    source.file.let_go(source.tensor.name)
    return wide


def load_onto(
    card: Card, source: Source, array: np.ndarray, parameter: Parameter, mode: str, pool: ThreadPoolExecutor,
    allow_nonfinite: bool
):
    """Copy one parameter to a card, look at it there, and widen it there if it does not stay as stored."""
    there = card.put(array)
    if not allow_nonfinite and count_nonfinite(there):
        refuse_nonfinite(source, array, pool)
    source.file.let_go(source.tensor.name)
    stays = stays_stored(source.tensor, parameter, mode)
    return there if stays else precision_of(mode).weight(half.widen(there))


def precision_of(mode: str) -> Precision:
    """The numbers of a mode: the mode bfloat16 computes in float32 too."""
    return PRECISIONS.get(mode, PRECISIONS["float32"])


def parts(count: int) -> list[slice]:
    """Cut ``count`` numbers into chunks."""
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]


def fill(wide: np.ndarray, narrow: np.ndarray, precision: Precision) -> None:
    """Widen one chunk to the precision's numbers."""
    if narrow.dtype == np.uint16 and wide.dtype == np.float32:  # in one pass over the memory
        np.left_shift(narrow, 16, out=wide.view(np.uint32), dtype=np.uint32)
    else:
        wide[...] = precision.weight(half.widen(narrow))


def refuse_nonfinite(source: Source, array: np.ndarray, pool: ThreadPoolExecutor) -> None:
    """Raise if an array holds NaN or infinities."""
    fault = nonfinite(array, pool)
    if fault:
        raise CheckpointError(
            f"{source.file.path}: {source.tensor.name!r} holds {fault}; the checkpoint is damaged "
            "(--allow-nonfinite loads it all the same)"
        )


def nonfinite(array: np.ndarray, pool: ThreadPoolExecutor) -> str | None:
    """Say how many NaN and infinities an array holds and where the first is, if there are any."""
    flat = array.reshape(-1)
    counts = list(pool.map(lambda part: count_nonfinite(flat[part]), parts(array.size)))
    if not any(counts):
        return None
    chunk = next(part for part, count in zip(parts(array.size), counts, strict=True) if count)
    first = chunk.start + int(np.argmax(~np.isfinite(half.widen(flat[chunk]))))
    index = tuple(int(i) for i in np.unravel_index(first, array.shape))
    return f"{sum(counts):,} NaN or infinite numbers, the first at {index}"


def count_nonfinite(chunk: np.ndarray) -> int:
    """Count NaN and infinities: in bfloat16 bits, an exponent of ones."""
    if chunk.dtype == np.uint16:
        return int(np.count_nonzero((chunk & 0x7F80) == 0x7F80))
    return chunk.size - int(np.count_nonzero(np.isfinite(chunk)))
