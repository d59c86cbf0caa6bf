"""The vocabulary of a tokenizer, read from ``tokenizer.model`` (SentencePiece) or ``tokenizer.json`` (Hugging Face).

Both files describe the same thing: numbered pieces of text, which neighbouring pieces may merge and in what order,
and tokens that are cut out of the text before any merging. Only vocabularies built as Gemma's are supported: byte-pair
merges with byte fallback, spaces written as U+2581, no other normalisation, no space put in front.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npgemma.base.errors import TokenizerError
from npgemma.files import sniff
from npgemma.files.folder import model_file
from npgemma.files.reader import is_there, parse_json, read_file, read_json

SPACE = "\u2581"  # how a piece writes a space
IMAGE = "<image>"
LOCATIONS = tuple(f"<loc{n:04d}>" for n in range(1024))
SEGMENTS = tuple(f"<seg{n:03d}>" for n in range(128))
NAMED = ("<bos>", "<eos>", "<unk>", "<pad>", "<mask>")

# The largest released tokenizer.json has 35 MB; a file ten times that is no tokenizer.
MAX_BYTES = 350_000_000

# An id as a key of JSON is a text.
ID = re.compile("0|[1-9][0-9]{0,8}")

# SentencePiece's ModelProto: kinds of piece and of model.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BPE = 2
BYTES = tuple(f"<0x{n:02X}>" for n in range(256))


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of the text whole, before merging begins.

    ``special`` ones are left out of decoded text on request; ``normalized`` ones are looked for only after spaces
    have become U+2581, the others in the text as it was typed.
    """

    content: str
    special: bool
    normalized: bool


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """Pieces by id, ids by piece, the order of merges, and the added tokens.

    ``merges`` maps a pair of pieces to its rank. It is None for a SentencePiece model, where any two pieces merge
    whose union is a piece, unions of smaller id first.
    """

    source: Path
    pieces: tuple[str, ...]
    ids: Mapping[str, int]
    merges: Mapping[tuple[str, str], int] | None
    added: tuple[AddedToken, ...]

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self.pieces):,} pieces, {len(self.added):,} of them cut out whole, {self.source}"

    def rank(self, left: str, right: str) -> tuple[int, int] | None:
        """Give the rank of merging two neighbours (smaller merges earlier), or None where they do not merge."""
        if self.merges is not None:
            place = self.merges.get((left, right))
            return None if place is None else (place, 0)
        union = self.ids.get(left + right)
        return None if union is None else (union, len(left))


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary of a model folder, with PaliGemma's own tokens added where they are missing.

    ``tokenizer.model`` is preferred; ``tokenizer.json`` serves where there is no other.
    """
    names = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json")
    model, table, settings = (model_file(folder, name, TokenizerError) for name in names)
    if is_there(model):
        return _with_paligemma_tokens(_with_listed_tokens(from_sentencepiece(model), settings))
    if is_there(table):
        return _with_paligemma_tokens(from_tokenizer_json(table))
    raise TokenizerError(
        f"{folder}: has neither tokenizer.model nor tokenizer.json; "
        "copy one of them from the model's page, or give token ids instead of text"
    )


# --- tokenizer.model -------------------------------------------------------------------------------------------------


def from_sentencepiece(path: Path) -> Vocabulary:
    """Read a SentencePiece model file.

    Notes
    -----
    The file is one protobuf message: field 1 repeats (a piece: 1 text, 2 score, 3 kind), field 2 is how it was
    trained, field 3 how text is normalised. Reference: sentencepiece's src/sentencepiece_model.proto.
    """
    data = read_file(path, MAX_BYTES, TokenizerError)
    _refuse_other_kinds(path, data)
    pieces: list[str] = []
    kinds: list[int] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    try:
        for field, value in _fields(data):
            if field == 1:
                parts = dict(_fields(value))
                pieces.append(parts[1].decode("utf-8"))
                kinds.append(parts.get(3, NORMAL))
            elif field == 2:
                trainer = dict(_fields(value))
            elif field == 3:
                normalizer = dict(_fields(value))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as problem:
        raise TokenizerError(
            f"{path}: is no SentencePiece model, or a truncated one ({len(data):,} bytes, "
            f"{len(pieces):,} pieces read): {problem}; download it again"
        ) from problem
    if not trainer or not normalizer:
        raise TokenizerError(
            f"{path}: ends after {len(pieces):,} pieces, without the settings that follow them: "
            "a truncated download, or no SentencePiece model; download it again"
        )
    _check_settings(path, trainer, normalizer)
    cut_out = [(piece, kind) for piece, kind in zip(pieces, kinds) if kind in (CONTROL, USER_DEFINED)]
    added = [AddedToken(piece, special=kind == CONTROL, normalized=False) for piece, kind in cut_out]
    vocabulary = _vocabulary(path, pieces, None, added)
    _check_kinds(path, pieces, kinds)
    return vocabulary


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Walk a protobuf message: yields ``(field number, value)``, an int for numbers, bytes for all else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if key < 8:
            raise ValueError(f"byte {at}: a field has number 0, which protobuf has not")
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"byte {at}: wire type {kind} is none of protobuf's")
        if at + size > len(data):
            raise ValueError(f"byte {at}: a field of {size:,} bytes reaches past the end")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a base-128 number at ``at``; gives the number and the place after it."""
    # Nearly all are of one byte, and a vocabulary has a million.
    if at < len(data) and data[at] < 128:
        return data[at], at + 1
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"byte {at}: a number of more than ten bytes")


def _check_kinds(path: Path, pieces: Sequence[str], kinds: Sequence[int]) -> None:
    """Refuse what SentencePiece's own library does: a damaged piece or kind, which would change ids silently."""
    for number, (piece, kind) in enumerate(zip(pieces, kinds)):
        if kind not in range(NORMAL, BYTE + 1):
            fault = f"is of kind {kind}; want 1 to 6"
        elif "\0" in piece and len(piece) > 1:
            fault = "holds a null character"
        elif kind == BYTE and piece not in BYTES:
            fault = "is a byte by its kind and none by its name; want one of <0x00> to <0xFF>"
        else:
            continue
        raise TokenizerError(f"{path}: piece {number}, {piece!r:.80}, {fault}; download it again")
    if kinds.count(BYTE) != len(BYTES) or kinds.count(UNKNOWN) != 1:
        raise TokenizerError(
            f"{path}: {kinds.count(BYTE)} pieces are bytes by their kind and {kinds.count(UNKNOWN)} unknown; "
            f"want {len(BYTES)} and 1; download it again"
        )


def _check_settings(path: Path, trainer: Mapping[int, Any], normalizer: Mapping[int, Any]) -> None:
    """Refuse a SentencePiece model that splits text in another way than Gemma's: its ids would be wrong silently."""
    faults = []
    if trainer.get(3, 1) != BPE:
        faults.append("its algorithm is not byte-pair encoding")
    if not trainer.get(35, 0):
        faults.append("it has no byte fallback")
    if normalizer.get(2):
        faults.append(f"it normalises text ({normalizer.get(1, b'').decode('utf-8', 'replace')})")
    if normalizer.get(3, 1):
        faults.append("it puts a space in front of the text")
    if normalizer.get(4, 1):
        faults.append("it removes repeated spaces")
    if faults:
        raise TokenizerError(f"{path}: is the tokenizer of another model: {', '.join(faults)}; want Gemma's")


# --- tokenizer.json --------------------------------------------------------------------------------------------------


def from_tokenizer_json(path: Path) -> Vocabulary:
    """Read a Hugging Face ``tokenizer.json`` of Gemma's kind."""
    data = read_file(path, MAX_BYTES, TokenizerError)
    _refuse_other_kinds(path, data)
    root = parse_json(data, str(path), TokenizerError)
    model = root.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise TokenizerError(f"{path}: has no model.vocab of pieces and ids; want a byte-pair tokenizer like Gemma's")
    _check_json_settings(path, root, model)
    by_id: dict[int, str] = {}
    for piece, number in model["vocab"].items():
        _place(path, by_id, number, piece)
    listed = root.get("added_tokens") or []
    if not isinstance(listed, list):
        raise TokenizerError(f"{path}: added_tokens came as {type(listed).__name__}; want a list of objects")
    added = [_added_token(path, by_id, entry) for entry in listed]
    pieces = _dense(path, by_id)
    return _vocabulary(path, pieces, _merge_ranks(path, model.get("merges"), model["vocab"]), added)


def _check_json_settings(path: Path, root: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Refuse a tokenizer.json that splits text in another way than Gemma's."""
    faults = []
    if model.get("type", "BPE") != "BPE":
        faults.append(f"its algorithm is {model['type']!r}, not byte-pair encoding")
    if model.get("byte_fallback") is not True:
        faults.append("it has no byte fallback")
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges", "dropout"):
        if model.get(key):
            faults.append(f"it sets {key}")
    normalizer = root.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        steps = normalizer.get("normalizers")
        normalizer = steps[0] if isinstance(steps, list) and len(steps) == 1 else normalizer
    if normalizer != {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}:
        faults.append("it normalises text otherwise than by writing spaces as U+2581")
    if faults:
        raise TokenizerError(f"{path}: is the tokenizer of another model: {', '.join(faults)}; want Gemma's")


def _merge_ranks(path: Path, merges: Any, vocab: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Number the merges: each is ``["left", "right"]`` or, in older files, ``"left right"``."""
    if not isinstance(merges, list):
        raise TokenizerError(f"{path}: has no list model.merges; want the merges of a byte-pair tokenizer")
    ranks: dict[tuple[str, str], int] = {}
    for place, merge in enumerate(merges):
        pair = tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) if isinstance(merge, list) else ()
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair) or "".join(pair) not in vocab:
            raise TokenizerError(f"{path}: merge {place} is {merge!r:.80}; want two pieces whose union is a piece")
        ranks[pair] = place
    return ranks


# --- added tokens ----------------------------------------------------------------------------------------------------


def _with_listed_tokens(vocabulary: Vocabulary, path: Path) -> Vocabulary:
    """Add what ``tokenizer_config.json`` lists beside a tokenizer.model: tokens added after it was trained."""
    if not is_there(path):
        return vocabulary
    listed = read_json(path, TokenizerError).get("added_tokens_decoder") or {}
    if not isinstance(listed, dict) or not all(isinstance(entry, dict) for entry in listed.values()):
        raise TokenizerError(f"{path}: added_tokens_decoder is not an object of objects")
    by_id = dict(enumerate(vocabulary.pieces))
    added = {token.content: token for token in vocabulary.added}
    for number, entry in listed.items():
        token = _added_token(path, by_id, {**entry, "id": int(number) if ID.fullmatch(number) else number})
        added[token.content] = token
    return _vocabulary(vocabulary.source, _dense(path, by_id), vocabulary.merges, list(added.values()))


def _added_token(path: Path, by_id: dict[int, str], entry: Any) -> AddedToken:
    """Read one added token of a JSON file and give it its place among the pieces."""
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str) or not entry["content"]:
        raise TokenizerError(f"{path}: added token {entry!r:.80} has no content")
    for key in ("lstrip", "rstrip", "single_word"):
        if entry.get(key):
            token = f"added token {entry['content']!r:.80}"
            raise TokenizerError(f"{path}: {token} sets {key}, which npgemma does not follow")
    _place(path, by_id, entry.get("id"), entry["content"])
    return AddedToken(entry["content"], bool(entry.get("special")), bool(entry.get("normalized")))


def _place(path: Path, by_id: dict[int, str], number: Any, piece: str) -> None:
    if type(number) is not int or number < 0:
        raise TokenizerError(f"{path}: piece {piece!r:.80} has id {number!r:.80}; want a whole number from 0")
    if not piece:
        raise TokenizerError(f"{path}: the piece of id {number} is empty; download it again")
    if by_id.setdefault(number, piece) != piece:
        raise TokenizerError(f"{path}: id {number} is both {by_id[number]!r:.50} and {piece!r:.50}; want one")


def _dense(path: Path, by_id: Mapping[int, str]) -> list[str]:
    """Give the pieces in the order of their ids, which must have no holes."""
    missing = next((number for number in range(len(by_id)) if number not in by_id), None)
    if missing is not None:
        raise TokenizerError(
            f"{path}: no piece has id {missing}, though others have larger ids; want ids without holes"
        )
    return [by_id[number] for number in range(len(by_id))]


def _with_paligemma_tokens(vocabulary: Vocabulary) -> Vocabulary:
    """Add the tokens that transformers' PaliGemmaProcessor adds, in its order, where they are missing."""
    pieces = list(vocabulary.pieces)
    known = set(pieces)
    added = {token.content: token for token in vocabulary.added}
    wanted = [AddedToken(content, True, False) for content in (*NAMED, IMAGE)]
    wanted += [AddedToken(content, False, True) for content in (*LOCATIONS, *SEGMENTS)]
    for token in wanted:
        if token.content not in known:
            pieces.append(token.content)
        if token.special or token.content not in added:
            added[token.content] = token
    return _vocabulary(vocabulary.source, pieces, vocabulary.merges, list(added.values()))


def _vocabulary(
    path: Path, pieces: Sequence[str], merges: Mapping[tuple[str, str], int] | None, added: Sequence[AddedToken]
) -> Vocabulary:
    """Check what every Gemma vocabulary has, and make the record."""
    ids = {piece: number for number, piece in enumerate(pieces)}
    if len(ids) != len(pieces):
        twice = next(piece for number, piece in enumerate(pieces) if ids[piece] != number)
        raise TokenizerError(f"{path}: the piece {twice!r:.80} has two ids; want one")
    if "" in ids:
        raise TokenizerError(f"{path}: the piece of id {ids['']} is empty; download it again")
    absent = [piece for piece in ("<pad>", "<eos>", "<bos>", "<unk>") if piece not in ids]
    if absent:
        raise TokenizerError(f"{path}: is the tokenizer of another model: it has no {', '.join(absent)}; want Gemma's")
    # A byte needs no piece of its own where its character is a piece (some converters renamed <0x09> to a tab).
    bytes_absent = [name for n, name in enumerate(BYTES) if name not in ids and not (n < 128 and chr(n) in ids)]
    if bytes_absent:
        raise TokenizerError(f"{path}: lacks {len(bytes_absent)} of the 256 byte pieces, first {bytes_absent[0]}")
    return Vocabulary(path, tuple(pieces), ids, merges, tuple(added))


def _refuse_other_kinds(path: Path, data: bytes) -> None:
    kind = sniff.describe(data[:1024])
    if kind is not None:
        raise TokenizerError(f"{path}: is {kind}; want a tokenizer")
