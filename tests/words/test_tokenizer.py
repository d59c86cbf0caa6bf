"""Token ids against transformers' GemmaTokenizer: golden/tokens, made by tools/golden/export_tokens.py."""

import gzip
import hashlib
import json
import random
from functools import cache
from pathlib import Path

import pytest
import sentencepiece

from npgemma.words.tokenizer import TextStream, load_tokenizer, merge

FOLDER = Path(__file__).parents[2] / "golden" / "tokens"
MANIFEST = json.loads((FOLDER / "MANIFEST.json").read_text(encoding="utf-8"))
CASES = json.loads(gzip.decompress((FOLDER / "cases.json.gz").read_bytes()))
NAMES = ("gemma", "bare", "image")


def place(folder, name, kind):
    """Put one golden tokenizer into a folder, as a checkpoint would have it."""
    if kind == "model":
        (folder / "tokenizer.model").write_bytes((FOLDER / f"{name}.model").read_bytes())
    else:
        (folder / "tokenizer.json").write_bytes(gzip.decompress((FOLDER / f"{name}.tokenizer.json.gz").read_bytes()))
    return folder


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """A function that loads a golden tokenizer, each once."""

    @cache
    def loaded(name, kind):
        return load_tokenizer(place(tmp_path_factory.mktemp(f"{name}-{kind}"), name, kind))

    return loaded


both = pytest.mark.parametrize("kind", ["model", "json"])
each = pytest.mark.parametrize("name", NAMES)


def test_the_golden_has_enough_strings_and_its_files_are_whole():
    assert len(set(CASES["strings"])) >= 2000 and set(CASES["ids"]) == set(NAMES)
    for name, digest in MANIFEST["files"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, f"{name}: restore golden/tokens"


@both
@each
def test_ids_equal_those_of_transformers(load, name, kind):
    tokenizer = load(name, kind)
    for text, wanted in zip(CASES["strings"], CASES["ids"][name], strict=True):
        found = tokenizer.encode(text, specials="allow")
        assert found == wanted, f"{text!r}: {[tokenizer.piece(id) for id in found]}, want {wanted}"


@both
@each
def test_decoded_text_equals_that_of_transformers_even_for_broken_bytes(load, name, kind):
    tokenizer = load(name, kind)
    for ids, without_specials, with_specials in CASES["decoded"][name]:
        assert tokenizer.decode(ids) == without_specials
        assert tokenizer.decode(ids, skip_specials=False) == with_specials


@each
def test_ids_equal_those_of_sentencepiece_where_the_two_references_agree(load, name):
    tokenizer = load(name, "model")
    peer = sentencepiece.SentencePieceProcessor(model_file=str(FOLDER / f"{name}.model"))
    compared = 0
    for text in CASES["strings"]:
        # SentencePiece reads a long run of spaces as its longest piece and a rest, and knows no added tokens.
        if " " * 4 not in text and "\u2581" not in text and "<" not in text:
            compared += 1
            assert tokenizer.encode(text, "allow") == peer.encode(text), repr(text)
    assert compared > 1000


@each
def test_text_comes_back_from_its_ids(load, name):
    tokenizer = load(name, "model")
    for text in CASES["strings"]:
        if "\u2581" not in text:  # which stands for a space
            assert tokenizer.decode(tokenizer.encode(text, "allow"), skip_specials=False) == text


def test_older_files_with_merges_as_strings_give_the_same_ids(load, tmp_path):
    path = place(tmp_path, "gemma", "json") / "tokenizer.json"
    root = json.loads(path.read_text(encoding="utf-8"))
    root["model"]["merges"] = [" ".join(pair) for pair in root["model"]["merges"]]
    root["pre_tokenizer"] = None
    root["normalizer"] = {"type": "Sequence", "normalizers": [root["normalizer"]]}
    path.write_text(json.dumps(root), encoding="utf-8")
    older, newer = load_tokenizer(tmp_path), load("gemma", "json")
    assert all(older.encode(text, "allow") == newer.encode(text, "allow") for text in CASES["strings"][::7])


def test_tokens_listed_beside_a_sentencepiece_model_are_added(tmp_path):
    place(tmp_path, "gemma", "model")
    size = json.loads(gzip.decompress((FOLDER / "gemma.tokenizer.json.gz").read_bytes()))
    first = max(size["model"]["vocab"].values()) + 1
    listed = {first: "<image>", first + 1: "<fly to>"}
    entries = {
        str(id): {"content": text, "special": text == "<image>", "normalized": False} for id, text in listed.items()
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": entries}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == first + 2
    assert tokenizer.encode("<fly to><image>", "allow") == [first + 1, first]


@both
def test_named_ids_are_those_of_gemma(load, kind):
    tokenizer = load("gemma", kind)
    assert (tokenizer.pad, tokenizer.eos, tokenizer.bos) == (0, 1, 2)
    assert tokenizer.piece(tokenizer.newline) == "\n"
    assert [tokenizer.piece(tokenizer.loc(n)) for n in (0, 7, 1023)] == ["<loc0000>", "<loc0007>", "<loc1023>"]
    assert [tokenizer.piece(tokenizer.seg(n)) for n in (0, 7, 127)] == ["<seg000>", "<seg007>", "<seg127>"]
    assert tokenizer.image == tokenizer.vocab_size - 1 and tokenizer.piece(tokenizer.image) == "<image>"
    assert tokenizer.id("▁▁") == tokenizer.encode("  ")[0]


def test_a_newline_without_a_piece_of_its_own_is_its_byte(load):
    tokenizer = load("bare", "model")
    assert tokenizer.piece(tokenizer.newline) == "<0x0A>"


@each
def test_a_sentencepiece_model_ranks_its_merges_in_the_order_that_transformers_writes(load, name):
    root = json.loads(gzip.decompress((FOLDER / f"{name}.tokenizer.json.gz").read_bytes()))
    ranks = [load(name, "model").vocabulary.rank(*pair) for pair in root["model"]["merges"]]
    assert None not in ranks and ranks == sorted(set(ranks))


# --- merging ---------------------------------------------------------------------------------------------------------


def test_merging_takes_the_lowest_rank_first_and_the_leftmost_of_equals():
    ranks = {("b", "c"): (0, 0), ("a", "b"): (1, 0), ("a", "a"): (2, 0), ("aa", "a"): (3, 0)}

    def rank(left, right):
        return ranks.get((left, right))

    assert merge("abc", rank) == ["a", "bc"]
    assert merge("aaa", rank) == ["aaa"]
    assert merge("aaaa", rank) == ["aa", "aa"]
    assert merge("", rank) == []


def test_merging_by_heap_equals_merging_by_search(load):
    tokenizer = load("image", "model")
    rng = random.Random(5)

    def by_search(symbols):
        symbols = list(symbols)
        while True:
            pairs = [(tokenizer.vocabulary.rank(*pair), at) for at, pair in enumerate(zip(symbols, symbols[1:]))]
            ranked = [pair for pair in pairs if pair[0] is not None]
            if not ranked:
                return symbols
            _, at = min(ranked)
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]

    for _ in range(300):
        text = "".join(rng.choice("bakelomurnsvorti▁12") for _ in range(rng.randint(0, 40)))
        assert merge(text, tokenizer.vocabulary.rank) == by_search(text)


# --- streaming -------------------------------------------------------------------------------------------------------


@each
def test_a_stream_gives_whole_characters_and_adds_up_to_the_text(load, name):
    tokenizer = load(name, "model")
    for text in CASES["strings"][::5]:
        stream = TextStream(tokenizer, skip_specials=False)
        pieces = [stream.push(id) for id in tokenizer.encode(text, "allow")] + [stream.finish()]
        assert "".join(pieces) == text.replace("\u2581", " ")
        assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


def test_a_character_of_four_bytes_comes_at_once(load):
    tokenizer = load("bare", "model")
    ids = tokenizer.encode("a😀b")
    assert [tokenizer.piece(id) for id in ids] == ["a", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "b"]
    stream = TextStream(tokenizer)
    assert [stream.push(id) for id in ids] == ["a", "", "", "", "", "😀b"]
    assert stream.finish() == ""


def test_a_stream_that_ends_within_a_character_shows_its_bytes_as_replacements(load):
    tokenizer = load("bare", "model")
    stream = TextStream(tokenizer)
    assert [stream.push(tokenizer.id(piece)) for piece in ("<0xF0>", "<0x9F>")] == ["", ""]
    assert stream.finish() == "\ufffd\ufffd"
    assert stream.finish() == ""


def test_specials_are_left_out_of_text_and_ids_beyond_the_vocabulary_say_nothing(load):
    tokenizer = load("gemma", "model")
    ids = [tokenizer.bos, *tokenizer.encode("cat"), tokenizer.loc(5), tokenizer.vocab_size + 7, tokenizer.eos]
    assert tokenizer.decode(ids) == "cat<loc0005>"
    assert tokenizer.decode(ids, skip_specials=False) == "<bos>cat<loc0005><eos>"
