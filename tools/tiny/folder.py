"""Write what was trained as a Hugging Face folder in bfloat16.

``python tools/tiny/folder.py TRAINED npgemma/tiny``, where TRAINED is the folder of train.py.

Not written: the model card, README.md, which is kept by hand beside the weights.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from fresh import architecture, with_waves
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from train import STATE
from world import HELD_OUT, draw, make_scene

from npgemma.base.precision import round_bf16
from npgemma.checkpoints.loading import TINY
from npgemma.checkpoints.saving import write_model
from npgemma.files.safetensors_file import open_safetensors

# Pictures in the box, by the seeds of their scenes; the first in order is shown when none is given.
PICTURES = {
    "1-word.png": 3 * HELD_OUT + 25,
    "2-overlap.png": 3 * HELD_OUT + 29,
    "3-number.png": 3 * HELD_OUT + 212,
    "4-noise.png": 3 * HELD_OUT + 109,
}

PICTURE = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_seq_length": 64,
    "processor_class": "PaliGemmaProcessor",
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": 64, "width": 64},
}
TOKENIZER = {
    "add_bos_token": False,
    "add_eos_token": False,
    "bos_token": "<bos>",
    "clean_up_tokenization_spaces": False,
    "eos_token": "<eos>",
    "extra_special_tokens": {"image_token": "<image>"},
    "model_max_length": 256,
    "pad_token": "<pad>",
    "processor_class": "PaliGemmaProcessor",
    "tokenizer_class": "GemmaTokenizer",
    "unk_token": "<unk>",
}


def write_folder(state, tokenizer, folder):
    """The averaged weights, folded and rounded to bfloat16, with everything that loads them.

    Parameters
    ----------
    state : path
        The file that ``train.py`` saves.
    tokenizer : bytes
        A SentencePiece model.
    """
    file = open_safetensors(state)
    average = {name.removeprefix("average/"): file.array(name) for name in file.tensors if name.startswith("average/")}
    rounded = {name: round_bf16(np.array(weight)).view(np.uint32) >> 16 for name, weight in with_waves(average).items()}
    write_model(folder, TINY, architecture(), {name: bits.astype(np.uint16) for name, bits in rounded.items()})
    (folder / "pictures").mkdir(exist_ok=True)
    for name, seed in PICTURES.items():
        draw(make_scene(seed)).save(folder / "pictures" / name)
    (folder / "tokenizer.model").write_bytes(tokenizer)
    pieces = proto.ModelProto.FromString(tokenizer).pieces
    fast_tokenizer(pieces).save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", TOKENIZER)
    _write_json(folder / "preprocessor_config.json", PICTURE)


def fast_tokenizer(pieces):
    """The same vocabulary for the ``tokenizers`` library.

    Its merges are pairs in order; SentencePiece ranks by the piece that a pair makes, so every pair that makes a piece
    stands at that piece's place.
    """
    vocabulary = {one.piece: number for number, one in enumerate(pieces)}
    ranked = sorted((one for one in pieces if one.type == one.NORMAL), key=lambda one: -one.score)
    merges = [
        (one.piece[:cut], one.piece[cut:])
        for one in ranked
        for cut in range(1, len(one.piece))
        if one.piece[:cut] in vocabulary and one.piece[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, fuse_unk=True, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    for one in pieces:
        if one.type in (one.CONTROL, one.UNKNOWN, one.USER_DEFINED):
            special = one.type != one.USER_DEFINED or one.piece == "<image>"
            # Runs of spaces are found after spaces have become U+2581.
            added = AddedToken(one.piece, normalized=one.piece.startswith("▁"), special=special)
            tokenizer.add_special_tokens([added]) if special else tokenizer.add_tokens([added])
    return tokenizer


def _write_json(path, content):
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path, help="the folder that train.py wrote")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    write_folder(options.state / STATE, (options.state / "tokenizer.model").read_bytes(), options.folder)


if __name__ == "__main__":
    main()
