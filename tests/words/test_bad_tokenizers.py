"""Rows 75 and 76 of the table of bad inputs: broken tokenizer files, and those of other models."""

import gzip
import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece

import npgemma
from npgemma.base.errors import NpgemmaError, TokenizerError
from npgemma.config import VARIANTS
from npgemma.files.reader import read_file
from npgemma.words.tokenizer import check_tokenizer, has_tokenizer, load_tokenizer

FOLDER = Path(__file__).parents[2] / "golden" / "tokens"
MODEL = (FOLDER / "bare.model").read_bytes()
TABLE = gzip.decompress((FOLDER / "bare.tokenizer.json.gz").read_bytes())


def refuse(folder, name, data, message):
    (folder / name).write_bytes(data)
    with pytest.raises(TokenizerError, match=message) as caught:
        load_tokenizer(folder)
    assert name in str(caught.value)


def changed(**changes):
    """tokenizer.json with some of its fields changed, ``model__merges`` being model.merges."""
    root = json.loads(TABLE)
    for key, value in changes.items():
        *way, last = key.split("__")
        place = root
        for step in way:
            place = place[step]
        place[last] = value
    return json.dumps(root).encode()


BROKEN = [
    (b"", r"is an empty file \(0 bytes\)"),
    (b"<!DOCTYPE html>\n<html>", "is an HTML page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git-LFS pointer.*git lfs pull"),
    (b"\x80\x02ctorch", "is a Python pickle"),
    (bytes(random.Random(0).randrange(256) for _ in range(500)), "no SentencePiece model|not UTF-8"),
]


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
@pytest.mark.parametrize("data, message", BROKEN)
def test_row_75_files_that_are_no_tokenizer_are_named(tmp_path, name, data, message):
    refuse(tmp_path, name, data, message)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_row_75_truncated_files_are_refused(tmp_path, share):
    refuse(tmp_path, "tokenizer.json", TABLE[: int(len(TABLE) * share)], "not JSON")
    refuse(tmp_path, "tokenizer.model", MODEL[: int(len(MODEL) * share)], "truncated")


@pytest.mark.parametrize(
    "data, message",
    [
        (b"\x0a\x07\x0a\x05<pad>", "ends after 1 pieces, without the settings that follow them"),
        (b"\x0a\x20\x0a\x05<pad>", "a field of 32 bytes reaches past the end; download it again"),
        (MODEL + b"\x0a\x07\x0a\x05<pad>", "the piece '<pad>' has two ids"),
    ],
)
def test_row_75_faults_within_a_sentencepiece_model_are_named(tmp_path, data, message):
    refuse(tmp_path, "tokenizer.model", data, message)


def test_row_75_a_byte_without_a_piece_is_refused(tmp_path):
    refuse(tmp_path, "tokenizer.model", MODEL.replace(b"<0xE2>", b"<OxE2>"), "lacks 1 of the 256 byte pieces.*<0xE2>")


# Text, score, kind: a byte, and a user-defined piece.
BYTE_0X41 = b"\x0a\x06<0x41>\x15\x00\x00\x00\x00\x18\x06"
PLACE = b"<loc0200>\x15\x00\x00\x00\x00\x18\x04"


@pytest.mark.parametrize(
    "old, new, message",
    [
        (BYTE_0X41, BYTE_0X41[:-1] + b"\x01", "255 pieces are bytes by their kind and 1 unknown; want 256 and 1"),
        (PLACE, PLACE[:-1] + b"\x02", "256 pieces are bytes by their kind and 2 unknown; want 256 and 1"),
        (BYTE_0X41, BYTE_0X41[:-1] + b"\x09", "piece [0-9]+, '<0x41>', is of kind 9; want 1 to 6"),
        (BYTE_0X41, BYTE_0X41[:-2] + b"\x00\x06", "a field has number 0"),
        (PLACE, PLACE[:-1] + b"\x06", "is a byte by its kind and none by its name"),
        (b"<loc0200>", b"<loc\x00200>", "holds a null character"),
    ],
)
def test_row_75_damaged_pieces_are_refused_as_by_sentencepiece_itself(tmp_path, old, new, message):
    model = (Path(npgemma.__file__).parent / "tiny" / "tokenizer.model").read_bytes()
    assert model.count(old) == 1
    damaged = model.replace(old, new)
    refuse(tmp_path, "tokenizer.model", damaged, message)
    with pytest.raises(RuntimeError):
        sentencepiece.SentencePieceProcessor(model_proto=damaged)


def test_row_75_damaged_files_load_or_end_in_our_own_error(tmp_path):
    rng = random.Random(1)
    for _ in range(60):
        data = bytearray(MODEL)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "tokenizer.model").write_bytes(bytes(data))
        try:
            load_tokenizer(tmp_path)
        except NpgemmaError as error:
            assert "tokenizer.model" in str(error)


def test_row_75_a_folder_without_a_tokenizer_says_what_it_lacks(tmp_path):
    assert not has_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match=r"has neither tokenizer.model nor tokenizer.json; .* or give token ids"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(TokenizerError, match="is a folder; want a regular file"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model__vocab": {"a": 0, "b": 0}}, "id 0 is both"),
        ({"model__vocab": {"<pad>": 0, "a": 20}}, "no piece has id"),
        ({"model__vocab": {"a": "0"}}, "piece 'a' has id '0'; want a whole number"),
        ({"model__vocab": {"a": -1}}, "has id -1"),
        ({"model__vocab": []}, "has no model.vocab"),
        ({"model": 3}, "has no model.vocab"),
        ({"model__merges": None}, "has no list model.merges"),
        ({"model__merges": ["a"]}, "merge 0 is 'a'; want two pieces whose union is a piece"),
        ({"model__merges": [["a", "no piece"]]}, "merge 0 is"),
        ({"model__merges": [3]}, "merge 0 is 3"),
        ({"added_tokens": 3}, "added_tokens came as int; want a list"),
        ({"added_tokens": [{"id": 3}]}, "has no content"),
        (
            {"added_tokens": [{"id": 0, "content": "<pad>", "lstrip": True}]},
            "sets lstrip, which npgemma does not follow",
        ),
    ],
)
def test_row_75_faults_within_a_tokenizer_json_are_named(tmp_path, changes, message):
    refuse(tmp_path, "tokenizer.json", changed(**changes), message)


def test_row_75_keys_that_stand_twice_are_refused(tmp_path):
    refuse(tmp_path, "tokenizer.json", b'{"model": {}, "model": {}}', "the key 'model' occurs twice")
    refuse(tmp_path, "tokenizer.json", b"[]", "holds a JSON list; want an object")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"normalizer": None}, "normalises text otherwise than by writing spaces"),
        ({"normalizer": {"type": "Prepend", "prepend": "▁"}}, "normalises text otherwise"),
        ({"model__type": "Unigram"}, "its algorithm is 'Unigram'"),
        ({"model__byte_fallback": False}, "it has no byte fallback"),
        ({"model__ignore_merges": True}, "it sets ignore_merges"),
        ({"model__end_of_word_suffix": "</w>"}, "it sets end_of_word_suffix"),
    ],
)
def test_row_76_a_tokenizer_json_of_another_kind_is_refused(tmp_path, changes, message):
    refuse(tmp_path, "tokenizer.json", changed(**changes), f"is the tokenizer of another model: .*{message}")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model_type": "unigram"}, "its algorithm is not byte-pair encoding"),
        ({"byte_fallback": False}, "it has no byte fallback"),
        ({"add_dummy_prefix": True}, "it puts a space in front of the text"),
        ({"remove_extra_whitespaces": True}, "it removes repeated spaces"),
        ({"normalization_rule_name": "nmt_nfkc"}, r"it normalises text \(nmt_nfkc\)"),
        ({"pad_id": -1}, "it has no <pad>"),
    ],
)
def test_row_76_a_sentencepiece_model_of_another_kind_is_refused(tmp_path, options, message):
    model = io.BytesIO()
    settings = {
        "model_type": "bpe", "byte_fallback": True, "add_dummy_prefix": False, "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity", "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "pad_piece": "<pad>",
        "eos_piece": "<eos>", "bos_piece": "<bos>", "vocab_size": 320, "hard_vocab_limit": False, "minloglevel": 2,
    }
    words = ("one two three four five six seven eight", "the cat sat on the mat") * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_writer=model, **{**settings, **options}
    )
    refuse(tmp_path, "tokenizer.model", model.getvalue(), f"is the tokenizer of another model: .*{message}")


def fitting(tokenizer):
    """A configuration that a tokenizer fits."""
    released = next(iter(VARIANTS.values()))
    text = replace(released.text, vocab_size=tokenizer.vocab_size)
    return replace(released, text=text, image_token_id=tokenizer.image)


def test_row_76_a_tokenizer_is_checked_against_the_configuration(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(MODEL)
    tokenizer = load_tokenizer(tmp_path)
    config = fitting(tokenizer)
    assert load_tokenizer(tmp_path, config) == tokenizer
    released = next(iter(VARIANTS.values()))
    with pytest.raises(
        TokenizerError, match="another model: <image> is .*, the model wants 257152; take the tokenizer"
    ):
        load_tokenizer(tmp_path, released)
    for fault, message in (
        ({"text": replace(config.text, vocab_size=500)}, "its ids reach .*, the model has 500 rows"),
        ({"bos_id": 5}, "<bos> is 2, the model wants 5"),
        ({"pad_id": 5}, "<pad> is 0, the model wants 5"),
        ({"eos_ids": (5, 6)}, r"<eos> is 1, the model wants one of \(5, 6\)"),
    ):
        with pytest.raises(TokenizerError, match=message):
            check_tokenizer(tokenizer, replace(config, **fault))


def test_row_76_the_image_token_alone_may_lie_beyond_the_table(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((FOLDER / "gemma.model").read_bytes())
    tokenizer = load_tokenizer(tmp_path)
    config = fitting(tokenizer)
    assert tokenizer.image == tokenizer.vocab_size - 1
    check_tokenizer(tokenizer, replace(config, text=replace(config.text, vocab_size=tokenizer.image)))


def test_row_76_places_out_of_order_are_refused(tmp_path):
    root = json.loads(TABLE)
    for entry in root["added_tokens"]:
        entry["id"] += {"<loc0003>": 1, "<loc0004>": -1}.get(entry["content"], 0)
    vocab = root["model"]["vocab"]
    if "<loc0003>" in vocab:
        vocab["<loc0003>"], vocab["<loc0004>"] = vocab["<loc0004>"], vocab["<loc0003>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(root))
    tokenizer = load_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="<loc0000> to <loc1023> have no ids in a row"):
        check_tokenizer(tokenizer, fitting(tokenizer))


def test_named_tokens_that_are_missing_come_last_in_the_order_of_transformers(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(MODEL.replace(b"<mask>", b"<mosk>"))
    tokenizer = load_tokenizer(tmp_path)
    # Its 563 pieces are followed as in transformers 5.23.0, asked by hand.
    named = ("<mask>", "<image>", "<loc0000>", "<seg127>")
    assert [tokenizer.id(name) for name in named] == [563, 564, 565, 1716]


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(MODEL)
    with pytest.raises(TokenizerError, match="has .* bytes, more than the 100 that npgemma reads here"):
        read_file(tmp_path / "tokenizer.model", 100, TokenizerError)


def test_pieces_and_numbers_that_do_not_exist_are_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(MODEL)
    tokenizer = load_tokenizer(tmp_path)
    for call, message in (
        (lambda: tokenizer.loc(1024), r"location token 1024 does not exist; want 0\.\.1023"),
        (lambda: tokenizer.seg(-1), r"segment token -1 does not exist; want 0\.\.127"),
        (lambda: tokenizer.id("<loc1024>"), "has no piece '<loc1024>'; the nearest are .*<loc1023>"),
        (lambda: tokenizer.piece(10**6), "has no id 1000000"),
        (lambda: tokenizer.piece(-1), "has no id -1"),
    ):
        with pytest.raises(TokenizerError, match=message):
            call()


def test_row_39_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "elsewhere.model").write_bytes(b"secret")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer.model").symlink_to(tmp_path / "elsewhere.model")
    with pytest.raises(TokenizerError, match="outside the model's folder"):
        load_tokenizer(folder)


def test_row_75_an_empty_piece_is_refused(tmp_path):
    refuse(tmp_path, "tokenizer.json", changed(model__vocab={"": 0}), "the piece of id 0 is empty")


def test_row_75_a_user_defined_piece_without_text_is_refused(tmp_path):
    # A piece: text "", kind 4 (user-defined).
    refuse(tmp_path, "tokenizer.model", MODEL + b"\x0a\x04\x0a\x00\x18\x04", "the piece of id [0-9]+ is empty")


@pytest.mark.parametrize("key", ["9" * 5000, "٣", "01", "-1", "1.0", ""])
def test_row_75_ids_of_listed_tokens_are_plain_numbers(tmp_path, key):
    (tmp_path / "tokenizer.model").write_bytes(MODEL)
    listed = {"added_tokens_decoder": {key: {"content": "<x>"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(listed))
    with pytest.raises(TokenizerError, match="piece '<x>' has id '.*; want a whole number") as caught:
        load_tokenizer(tmp_path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("listed", [3, [], "x", {"563": 3}])
def test_row_75_listed_tokens_that_are_no_objects(tmp_path, listed):
    (tmp_path / "tokenizer.model").write_bytes(MODEL)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed or [3]}))
    with pytest.raises(TokenizerError, match="added_tokens_decoder is not an object of objects"):
        load_tokenizer(tmp_path)


def test_row_75_a_number_of_too_many_bytes(tmp_path):
    refuse(tmp_path, "tokenizer.model", b"\x0a\x0c\x18" + b"\xff" * 11, "a number of more than ten bytes")
