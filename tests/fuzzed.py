"""What the fuzzer feeds: for each kind of file, valid examples and a function that reads one as npgemma does.

``run(folder, data)`` may give anything or raise an NpgemmaError; whatever else it raises is a finding, and so is an
assertion of its own: what is accepted must be right.  ``tools/fuzz.py`` mutates the examples; what it finds lies in
``tests/found`` and is read again by ``tests/test_found.py``.
"""

import gzip
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from generation_models import wordy_model
from made_checkpoints import config_json, file_bytes, tensors, write_folder
from PIL import Image
from random_models import GENERATIONS, random_model

from npgemma.base.elsewhere import keys
from npgemma.base.errors import NpgemmaError, OddWarning, SlowWarning
from npgemma.checkpoints.checkpoint import load_weights
from npgemma.checkpoints.hf_config import parse_config, read_config
from npgemma.config import Config
from npgemma.files.image import load_pixels
from npgemma.files.image_settings import ImageSettings, read_settings
from npgemma.files.writer import growing
from npgemma.generation.requests import prepare
from npgemma.judge import goldens
from npgemma.judge.read_pack import open_pack
from npgemma.judge.theirs import open_theirs
from npgemma.tracing.plan import given, plan
from npgemma.tracing.replacing import check_replacements, read_replacements
from npgemma.tracing.trace import read, run_to_file
from npgemma.verbs import batch_file
from npgemma.words.tokenizer import load_tokenizer

GOLDEN = Path(__file__).parent.parent / "golden"
NAME = "text.blocks.1.attn.out"


@dataclass(frozen=True)
class Target:
    """One kind of file.

    Parameters
    ----------
    examples : callable
        Gives valid files, as bytes.
    prepare : callable
        ``prepare(folder)`` writes what must lie beside the file.
    run : callable
        ``run(folder, data)`` writes the file there and reads it.
    kind : str
        What is known of its form: ``bytes``, ``json``, ``lines`` of JSON, ``safetensors``.
    """

    examples: Callable[[], list[bytes]]
    run: Callable[[Path, bytes], object]
    kind: str = "bytes"
    prepare: Callable[[Path], object] = lambda folder: None


def outcome(target: Target, folder: Path, data: bytes) -> str:
    """Say how one file ended: accepted, or refused; anything else goes on as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for kind in (OddWarning, SlowWarning):
                warnings.simplefilter("ignore", kind)
            target.run(folder, data)
    except NpgemmaError as error:
        message = str(error)
        assert 0 < len(message) < 2500, f"a message of {len(message)} characters: {message[:200]}"
        return "refused"
    return "accepted"


# --- checkpoints -----------------------------------------------------------------------------------------------------


def checkpoints():
    return [file_bytes(tensors(generation, dtype=dtype)) for generation in (1, 2) for dtype in ("F32", "BF16")]


def run_checkpoint(folder, data):
    (folder / "model.safetensors").write_bytes(data)
    generation = 2 if b"pre_feedforward" in data else 1
    (folder / "config.json").write_text(CONFIGS[generation])
    arrays = load_weights(folder, read_config(folder), allow_nonfinite=True)
    # Accepted: each byte of a weight stands in the file once, where its header says.
    header, body = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]), len(data) - 8
    spans = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    assert sum(end - start for start, end in spans) == body - int.from_bytes(data[:8], "little")
    assert len(arrays) <= len(spans) and all(not array.flags.writeable for array in arrays.values())


CONFIGS = {generation: json.dumps(config_json(generation)) for generation in (1, 2)}


def write_shards(folder):
    write_folder(folder, shards=2)


def run_index(folder, data):
    (folder / "model.safetensors.index.json").write_bytes(data)
    arrays = load_weights(folder, read_config(folder))
    assert [array.tobytes() for array in arrays.values()] == sharded_arrays()


@cache
def sharded_arrays():
    """The arrays of the sharded folder, as bytes in the schema's order; whatever index is accepted gives these."""
    named = tensors(1)
    return [named[key][1].tobytes() for key in keys(parse_config(config_json(1)), "A5").values()]


def indexes():
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), shards=2)
        return [(Path(folder) / "model.safetensors.index.json").read_bytes()]


def run_config(folder, data):
    (folder / "config.json").write_bytes(data)
    cfg = read_config(folder)
    assert isinstance(cfg, Config) and cfg.vision.num_patches >= 1 and cfg.text.num_heads % cfg.text.num_kv_heads == 0


def configs():
    released = [json.dumps(config_json(g, text={"rope_theta": 1e4, "layer_types": None})).encode() for g in (1, 2)]
    return [*released, (GOLDEN / "tiny-2" / "config.json").read_bytes()]


# --- words -----------------------------------------------------------------------------------------------------------

TEXTS = ("caption en", "a  b\n\n<loc0001>é🙂 ▁", "")


def run_tokenizer(name):
    def run(folder, data):
        (folder / name).write_bytes(data)
        tokenizer = load_tokenizer(folder)
        for text in TEXTS:
            ids = tokenizer.encode(text, "allow")
            assert all(0 <= token < tokenizer.vocab_size for token in ids)
            assert isinstance(tokenizer.decode(ids), str)

    return run


def tokenizer_models():
    return [(GOLDEN / "tokens" / "bare.model").read_bytes()]


@cache
def tokenizer_tables():
    """The smallest table that is a tokenizer: bytes, named tokens, a few merges."""
    root = json.loads(gzip.decompress((GOLDEN / "tokens" / "bare.tokenizer.json.gz").read_bytes()))
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{n:02X}>" for n in range(256)), "a", "b", "ab", "▁", "▁a"]
    root["model"]["vocab"] = {piece: number for number, piece in enumerate(pieces)}
    root["model"]["merges"] = [["a", "b"], ["▁", "a"]]
    root["added_tokens"] = [
        entry | {"id": pieces.index(entry["content"])} for entry in root["added_tokens"] if entry["content"] in pieces
    ]
    return [json.dumps(root, ensure_ascii=False).encode()]


def listed_tokens():
    entry = {"content": "<x>", "special": False, "normalized": False, "lstrip": False}
    return [json.dumps({"added_tokens_decoder": {"563": entry}, "model_max_length": 10**30}).encode()]


# --- pictures --------------------------------------------------------------------------------------------------------


def run_preprocessor(folder, data):
    (folder / "preprocessor_config.json").write_bytes(data)
    settings = read_settings(folder)
    pixels, _ = load_pixels([np.zeros((2, 3, 3), np.uint8)], settings.size or 8, settings)
    assert pixels.dtype == np.float32 and pixels.ndim == 4


def preprocessors():
    whole = {
        "size": {"height": 8, "width": 8}, "resample": 3, "rescale_factor": 0.00392156862745098, "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_normalize": True, "do_rescale": True,
    }
    return [json.dumps(whole).encode(), json.dumps({"size": 8}).encode()]


def run_picture(folder, data):
    (folder / "picture").write_bytes(data)
    for settings in (ImageSettings(exif=True), ImageSettings(frame=1, sixteen_bit="scale")):
        try:
            pixels, _ = load_pixels(folder / "picture", 14, settings)
        except NpgemmaError:
            continue
        assert pixels.shape == (1, 14, 14, 3) and pixels.min() >= -1 and pixels.max() <= 1


@cache
def pictures():
    numbers = np.arange(8 * 9 * 3, dtype=np.uint8).reshape(8, 9, 3) * 7
    rgb, exif = Image.fromarray(numbers), Image.Exif()
    exif[0x0112] = 6
    kinds = [
        (rgb, "png", {"exif": exif}), (rgb, "jpeg", {"exif": exif}), (rgb, "webp", {"exif": exif}), (rgb, "bmp", {}),
        (rgb.convert("P"), "gif", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgb.convert("RGBA"), "png", {"save_all": True, "append_images": [rgb.rotate(180).convert("RGBA")]}),
        (rgb.convert("L"), "jpeg", {"progressive": True}), (rgb.convert("CMYK"), "jpeg", {}),
        (rgb.convert("P"), "png", {"transparency": 3}), (Image.fromarray(numbers[..., 0].astype(np.uint16)), "png", {}),
        (rgb.convert("1"), "bmp", {}), (rgb, "webp", {"save_all": True, "append_images": [rgb], "lossless": True}),
    ]
    made = []
    for image, container, options in kinds:
        stream = io.BytesIO()
        image.save(stream, container, **options)
        made.append(stream.getvalue())
    return made


# --- runs ------------------------------------------------------------------------------------------------------------


@cache
def traces():
    cfg = GENERATIONS["paligemma-2"]
    model = random_model(cfg, "float32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.safetensors"
        run_to_file(plan(model, given(cfg, [[2, 5, 6]]), only="ids,text.norm,mask.*"), path)
        return [path.read_bytes()]


def run_trace(folder, data):
    (folder / "trace.safetensors").write_bytes(data)
    kept = read(folder / "trace.safetensors")
    assert repr(kept) and all(not kept[name].flags.writeable for name in kept)


def replacements():
    array = np.arange(30, dtype=np.float32).reshape(1, 3, 10)
    made = [file_bytes({NAME: ("F32", array)}), file_bytes({"x": ("F32", array), NAME: ("F32", array + 1)})]
    stream = io.BytesIO()
    np.save(stream, array)
    return [*made, stream.getvalue()]


def run_replacement(folder, data):
    (folder / "theirs").write_bytes(data)
    cfg = GENERATIONS["paligemma-2"]
    arrays = read_replacements([f"{NAME}={folder / 'theirs'}"])
    check_replacements(arrays, plan(small_model(), given(cfg, [[2, 5, 6]])).everything, np.float32)
    assert arrays[NAME].shape == (1, 3, 10) and arrays[NAME].dtype == np.float32


@cache
def small_model():
    return random_model(GENERATIONS["paligemma-2"], "float32")


QUESTIONS = (
    {"image": "a.png", "prompt": "caption en", "id": 1}, {"prompt": "detect cat"}, {"ids": [2, 30, 40]},
    {"image": ["a.png"], "prompt": "x", "more": {"a": [1, None, 2.5, True]}},
)
MARK = "0123456789ab"


def write_picture(folder):
    Image.new("RGB", (3, 4)).save(folder / "a.png")


def run_batch(folder, data):
    (folder / "q.jsonl").write_bytes(data.replace(b"a.png", str(folder / "a.png").encode()))
    model = wordy_model()
    for question in batch_file.read_questions(str(folder / "q.jsonl"), "refuse"):
        if question.request is not None:
            try:
                prepare(model, question.request)
            except NpgemmaError:
                pass
        batch_file.as_line({"question": question.fields, "error": question.error})


def batches():
    return [b"".join(json.dumps(each).encode() + b"\n" for each in QUESTIONS)]


def run_answers(folder, data):
    """Read answers that are there already: what is refused stays as it is, byte for byte."""
    path, questions = folder / "answers.jsonl", asked()
    path.write_bytes(data)
    try:
        with growing(path) as lines:
            found = batch_file.finished_lines(lines, questions, MARK)
            for line in found:
                batch_file.as_line(line)
    except NpgemmaError:
        assert path.read_bytes() == data
        raise
    if data:
        kept = path.read_bytes()
        assert data.startswith(kept) and data[len(kept) :].count(b"\n") == 0 and len(found) == kept.count(b"\n")


@cache
def asked():
    lines = batches()[0].splitlines()
    return [batch_file.read_question(number, line, "refuse") for number, line in enumerate(lines, start=1)]


def answers():
    lines = [
        {"run": MARK, "line": question.line, "question": question.fields, "text": "é", "ids": [1], "logprobs": [-0.5]}
        for question in asked()
    ]
    return [b"".join(map(batch_file.as_line, lines)), batch_file.as_line({"run": MARK, "line": 1, "error": "no"})]


def pack_manifests():
    return [(GOLDEN / "pack-1" / "manifest.json").read_bytes()]


def write_pack(folder):
    shutil.copytree(GOLDEN / "pack-1", folder, dirs_exist_ok=True)


def run_pack(folder, data):
    (folder / "manifest.json").write_bytes(data)
    pack = open_pack(folder)
    goldens.compare_with_pack(pack, None, open_theirs(folder / "recipe.safetensors"), {}, False)


def raw_lists():
    return [b"text.norm bf16 0000.bin 2 3 4\nids i64 0001.bin 3\n"]


def run_raw_list(folder, data):
    (folder / "0000.bin").write_bytes(bytes(48))
    (folder / "0001.bin").write_bytes(bytes(24))
    (folder / "list.txt").write_bytes(data)
    read_everything(folder)


def ports():
    file = io.BytesIO()
    np.savez(file, **{"text.norm": np.ones((2, 3), np.float32), "ids": np.arange(3)})
    return [file.getvalue()]


def run_port(folder, data):
    (folder / "port.npz").write_bytes(data)
    read_everything(folder / "port.npz")


def read_everything(path):
    theirs = open_theirs(path)
    for name in theirs.readers:
        assert theirs.read(name).dtype.kind in "fiub"


TARGETS = {
    "checkpoints": Target(checkpoints, run_checkpoint, "safetensors"),
    "indexes": Target(indexes, run_index, "json", write_shards),
    "configs": Target(configs, run_config, "json"),
    "generation_configs": Target(
        lambda: [b'{"bos_token_id": 2, "eos_token_id": [1, 3], "pad_token_id": 0}'],
        lambda folder, data: (folder / "generation_config.json").write_bytes(data) and read_config(folder),
        "json",
        write_folder,
    ),
    "tokenizer_models": Target(tokenizer_models, run_tokenizer("tokenizer.model")),
    "tokenizer_tables": Target(tokenizer_tables, run_tokenizer("tokenizer.json"), "json"),
    "listed_tokens": Target(
        listed_tokens,
        run_tokenizer("tokenizer_config.json"),
        "json",
        lambda folder: shutil.copy(GOLDEN / "tokens" / "bare.model", folder / "tokenizer.model"),
    ),
    "preprocessors": Target(preprocessors, run_preprocessor, "json"),
    "pictures": Target(pictures, run_picture),
    "traces": Target(traces, run_trace, "safetensors"),
    "replacements": Target(replacements, run_replacement, "safetensors"),
    "batches": Target(batches, run_batch, "lines", write_picture),
    "answers": Target(answers, run_answers, "lines"),
    "packs": Target(pack_manifests, run_pack, "json", write_pack),
    "raw_lists": Target(raw_lists, run_raw_list),
    "ports": Target(ports, run_port),
}
