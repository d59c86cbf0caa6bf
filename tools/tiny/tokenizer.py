"""The vocabulary of the model in the box, made the way Gemma's is: BPE with byte fallback, places and masks at the end.

Not supported: any other size; the trained weights belong to these very ids.
"""

import io
import random
import string

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto
from world import TASKS, ask, make_scene

BASE = 639  # pieces before <loc0000>
SCENES = 3000
LETTERS = string.ascii_letters + string.digits + string.punctuation + "äöüÄÖÜß▁"


def train_tokenizer():
    """A serialized SentencePiece model of 1792 pieces.

    Words in pictures are left out of what it learns from: reading stays reading, letter by letter.
    """
    rng = random.Random(0)
    lines = []
    for seed in range(SCENES):
        scene = make_scene(seed)
        for task in TASKS[:-1]:
            lines += ask(task, scene, rng) or ()
    lines += ["ocr"] * SCENES
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for line in lines if "<loc" not in line),
        model_writer=model,
        model_type="bpe",
        vocab_size=BASE,
        hard_vocab_limit=False,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
        required_chars=LETTERS,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=["<mask>", *("\n" * n for n in (1, 2, 3)), *("▁" * n for n in range(2, 9))],
        minloglevel=2,
    )
    return _with_places(model.getvalue())


def _with_places(serialized):
    """Append the location, segment and picture pieces, which the trainer would put first."""
    model = proto.ModelProto.FromString(serialized)
    while len(model.pieces) < BASE:
        model.pieces.add(piece=f"<unused{len(model.pieces)}>", score=0.0, type=model.SentencePiece.USER_DEFINED)
    places = [f"<loc{n:04d}>" for n in range(1024)] + [f"<seg{n:03d}>" for n in range(128)] + ["<image>"]
    for piece in places:
        model.pieces.add(piece=piece, score=0.0, type=model.SentencePiece.USER_DEFINED)
    model.trainer_spec.vocab_size = len(model.pieces)
    return model.SerializeToString()
