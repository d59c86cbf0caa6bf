"""Text to token ids and back, exactly as transformers' GemmaTokenizer does it.

Encoding takes three steps. Added tokens (``<bos>``, ``<loc0001>``, runs of newlines) are cut out of the text, the
longest first. Spaces become U+2581. What is left is split into characters, which merge with their neighbours in the
vocabulary's order; a character that is no piece becomes its UTF-8 bytes, a piece each.

Not supported: tokenizers of other families; they are refused, since their ids would be wrong in silence.
"""

import difflib
import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from npgemma.base.errors import InputError, PromptError, PromptTypeError, TokenizerError
from npgemma.config import Config
from npgemma.files.reader import is_there
from npgemma.words.vocabulary import IMAGE, LOCATIONS, SEGMENTS, SPACE, Vocabulary, read_vocabulary

# Merging is done in plain Python, a second for so many; English of 8,192 tokens, the context, has 35,000.
MAX_CHARACTERS = 125_000

# Added tokens that steer the model, whatever a file's flags say. Typed by a user they are refused by default;
# the others (newlines, runs of spaces, HTML tags) are ordinary text.
COMMANDS = re.compile(
    r"<(?:pad|eos|bos|unk|mask|image|loc\d{4}|seg\d{3}|unused\d+|2mass|start_of_turn|end_of_turn)>|\[@BOS@\]"
)
BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True, repr=False)
class Tokenizer:
    """A vocabulary ready for use; made by :func:`load_tokenizer`.

    ``typed`` and ``spaced`` find added tokens: in the text as typed, and after spaces became U+2581.
    """

    vocabulary: Vocabulary
    typed: re.Pattern[str] | None
    spaced: re.Pattern[str] | None
    special_ids: frozenset[int]

    def __repr__(self) -> str:
        return f"Tokenizer with a {self.vocabulary!r}"

    @property
    def vocab_size(self) -> int:
        """Number of ids; a checkpoint's embedding may have more rows, which no text ever reaches."""
        return len(self.vocabulary.pieces)

    @property
    def bos(self) -> int:
        """Id of ``<bos>``, which stands between image and prompt."""
        return self.id("<bos>")

    @property
    def eos(self) -> int:
        """Id of ``<eos>``, which ends an answer."""
        return self.id("<eos>")

    @property
    def pad(self) -> int:
        """Id of ``<pad>``."""
        return self.id("<pad>")

    @property
    def image(self) -> int:
        """Id of ``<image>``, the place of one soft token of a picture."""
        return self.id(IMAGE)

    @property
    def newline(self) -> int:
        """Id of a newline, which ends the prompt."""
        return self.encode("\n")[0]

    def loc(self, n: int) -> int:
        """Id of ``<loc....>``: n / 1024 of the picture's height or width, n in 0..1023."""
        return self.id(_numbered(LOCATIONS, n, "location"))

    def seg(self, n: int) -> int:
        """Id of ``<seg...>``: word n of the mask code book, n in 0..127."""
        return self.id(_numbered(SEGMENTS, n, "segment"))

    def id(self, piece: str) -> int:
        """Id of a piece, spaces written as U+2581."""
        if piece not in self.vocabulary.ids:
            near = difflib.get_close_matches(str(piece), self.vocabulary.pieces, n=3)
            raise TokenizerError(f"{self.vocabulary.source}: has no piece {piece!r}; the nearest are {near}")
        return self.vocabulary.ids[piece]

    def piece(self, id: int) -> str:
        """Piece of an id, spaces written as U+2581."""
        if not 0 <= id < self.vocab_size:
            raise TokenizerError(f"{self.vocabulary.source}: has no id {id}; want 0..{self.vocab_size - 1}")
        return self.vocabulary.pieces[id]

    def encode(self, text: str, specials: str = "refuse") -> list[int]:
        """Give the token ids of a text, nothing added in front or behind.

        Parameters
        ----------
        text : str
        specials : {'refuse', 'allow'}
            Whether ``<image>``, ``<loc0001>`` and their like may stand in the text as tokens.
        """
        self.check(text, specials)
        return self.cut_and_merge(text)

    def check(self, text: str, specials: str = "refuse") -> None:
        """Refuse what may not be encoded: see :meth:`encode`."""
        check_text(text)
        if specials not in ("refuse", "allow"):
            raise InputError(f"specials is {specials!r}; want 'refuse' or 'allow'")
        if specials == "refuse":
            self._refuse_specials(text)

    def cut_and_merge(self, text: str) -> list[int]:
        """Give the token ids of a text that has been checked, or that is npgemma's own."""
        pieces: list[str] = []
        for part, is_token in _cut(text, self.typed):
            if is_token:
                pieces.append(part)
                continue
            for run, is_spaced_token in _cut(part.replace(" ", SPACE), self.spaced):
                pieces += [run] if is_spaced_token else merge(self._characters(run), self.vocabulary.rank)
        return [self.vocabulary.ids[piece] for piece in pieces]

    def decode(self, ids: Iterable[int], skip_specials: bool = True) -> str:
        """Give the text of token ids; special tokens are left out, or written out if not ``skip_specials``."""
        stream = TextStream(self, skip_specials)
        return "".join([stream.push(id) for id in ids]) + stream.finish()

    def _characters(self, text: str) -> list[str]:
        """Split a text into pieces of one character, those that are no piece into byte pieces."""
        symbols: list[str] = []
        for character in text:
            if character in self.vocabulary.ids:
                symbols.append(character)
            else:
                symbols.extend(f"<0x{byte:02X}>" for byte in character.encode("utf-8"))
        return symbols

    def _refuse_specials(self, text: str) -> None:
        for part, is_token in _cut(text, self.typed, self.spaced):
            is_space = not part.replace(SPACE, " ").strip()
            if is_token and not is_space and (COMMANDS.fullmatch(part) or self.id(part) in self.special_ids):
                raise PromptError(
                    f"the text has {part!r} at character {text.index(part)}, which is a token of its own (id "
                    f"{self.id(part)}) and no text to the model; take it out, or pass specials='allow' "
                    "(--allow-specials)"
                )


class TextStream:
    """Text of one answer as its ids come, in whole characters.

    Notes
    -----
    A run of byte pieces is judged when it ends, as transformers' decoder does: it is text if all of it is UTF-8, and
    one U+FFFD for each byte if not. So what the stream gives adds up to what :meth:`Tokenizer.decode` gives.
    """

    def __init__(self, tokenizer: Tokenizer, skip_specials: bool = True) -> None:
        self.tokenizer = tokenizer
        self.skip_specials = skip_specials
        self.run = bytearray()

    def push(self, id: int) -> str:
        """Take the next id; give the text that is complete with it, often none."""
        if id < 0:
            raise InputError(f"token id is {id}; want 0 or more")
        # Rows of the embedding beyond the vocabulary (a padded checkpoint) stand for no text.
        if id >= self.tokenizer.vocab_size or (self.skip_specials and id in self.tokenizer.special_ids):
            return ""
        piece = self.tokenizer.piece(id)
        if BYTE_PIECE.fullmatch(piece):
            self.run.append(int(piece[3:5], 16))
            return ""
        return self.finish() + piece.replace(SPACE, " ")

    def finish(self) -> str:
        """Give what was held back: the run of bytes that no other piece has ended."""
        try:
            text = self.run.decode("utf-8")
        except UnicodeDecodeError:
            text = "\ufffd" * len(self.run)
        self.run.clear()
        return text


def has_tokenizer(folder: str | Path) -> bool:
    """Say whether a model folder has a tokenizer file at all; without one, ids still go in and come out."""
    return any(is_there(Path(folder) / name) for name in ("tokenizer.model", "tokenizer.json"))


def load_tokenizer(folder: str | Path, config: Config | None = None) -> Tokenizer:
    """Load the tokenizer of a model folder: ``tokenizer.model``, or ``tokenizer.json`` where there is no other.

    With a ``config``, a tokenizer that belongs to another model is refused.
    """
    vocabulary = read_vocabulary(Path(folder))
    tokenizer = Tokenizer(
        vocabulary,
        typed=_longest_first(token.content for token in vocabulary.added if not token.normalized),
        spaced=_longest_first(token.content.replace(" ", SPACE) for token in vocabulary.added if token.normalized),
        special_ids=frozenset(vocabulary.ids[token.content] for token in vocabulary.added if token.special),
    )
    if config is not None:
        check_tokenizer(tokenizer, config)
    return tokenizer


def check_tokenizer(tokenizer: Tokenizer, config: Config) -> None:
    """Refuse a tokenizer whose ids mean something else to the model: its answers would be wrong in silence."""
    faults = []
    # The one id that may lie beyond the table is <image>: its row is never read, a soft token stands there.
    largest = max(id for id in range(tokenizer.vocab_size) if id != tokenizer.image)
    if largest >= config.text.vocab_size:
        faults.append(f"its ids reach {largest:,}, the model has {config.text.vocab_size:,} rows")
    for name, found, wanted in (
        (IMAGE, tokenizer.image, config.image_token_id),
        ("<bos>", tokenizer.bos, config.bos_id),
        ("<pad>", tokenizer.pad, config.pad_id),
    ):
        if found != wanted:
            faults.append(f"{name} is {found}, the model wants {wanted}")
    if tokenizer.eos not in config.eos_ids:
        faults.append(f"<eos> is {tokenizer.eos}, the model wants one of {config.eos_ids}")
    # Answers about places are read by arithmetic on ids, so both families must stand in a row.
    for names in (LOCATIONS, SEGMENTS):
        first = tokenizer.id(names[0])
        if [tokenizer.id(name) for name in names] != list(range(first, first + len(names))):
            faults.append(f"{names[0]} to {names[-1]} have no ids in a row")
    if faults:
        raise TokenizerError(
            f"{tokenizer.vocabulary.source}: is the tokenizer of another model: {'; '.join(faults)}; "
            "take the tokenizer from the model's own page"
        )


def check_text(text: object) -> None:
    """Refuse what is no text: other types, lone surrogates (broken UTF-8 in disguise), and very long strings."""
    if not isinstance(text, str):
        hint = "; decode it first: data.decode('utf-8')" if isinstance(text, bytes | bytearray) else ""
        raise PromptTypeError(f"the text came as {type(text).__name__}; want one str{hint}")
    if len(text) > MAX_CHARACTERS:
        raise PromptError(f"the text has {len(text):,} characters; want at most {MAX_CHARACTERS:,}; shorten it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise PromptError(
            f"character {problem.start} of the text is the lone surrogate U+{ord(text[problem.start]):04X}, "
            "which no UTF-8 text holds; read the text again with its right encoding"
        ) from None


def merge(symbols: Sequence[str], rank: Callable[[str, str], tuple[int, int] | None]) -> list[str]:
    """Merge neighbours, the pair of lowest rank first and the leftmost of equals, until none can merge.

    Parameters
    ----------
    symbols : sequence of str
        The characters to begin with.
    rank : function
        Rank of a pair of neighbours, or None where they never merge.

    Notes
    -----
    Sennrich et al. 2016, alg. 1. Pairs wait in a heap, so that a text of n characters takes n log n steps.
    Reference: tokenizers' models/bpe/word.rs, merge_all.
    """
    texts: list[str] = list(symbols)  # "" marks a symbol that has been merged into the one before it
    after = list(range(1, len(texts) + 1))
    before = list(range(-1, len(texts) - 1))
    heap: list[tuple[tuple[int, int], int, str]] = []

    def offer(left: int) -> None:
        if left >= 0 and after[left] < len(texts):
            place = rank(texts[left], texts[after[left]])
            if place is not None:
                heapq.heappush(heap, (place, left, texts[left] + texts[after[left]]))

    for position in range(len(texts)):
        offer(position)
    while heap:
        _, left, union = heapq.heappop(heap)
        right = after[left]
        # A pair may have gone since it was offered: one of the two has merged with its other neighbour.
        if not texts[left] or right >= len(texts) or texts[left] + texts[right] != union:
            continue
        texts[left], texts[right] = union, ""
        after[left] = after[right]
        if after[left] < len(texts):
            before[after[left]] = left
        offer(before[left])
        offer(left)
    return [text for text in texts if text]


def _cut(text: str, *patterns: re.Pattern[str] | None) -> Iterator[tuple[str, bool]]:
    """Cut a text at the added tokens of each pattern in turn: yields ``(part, whether it is a token)``."""
    if not patterns:
        if text:
            yield text, False
        return
    pattern, *others = patterns
    at = 0
    for found in pattern.finditer(text) if pattern else ():
        yield from _cut(text[at : found.start()], *others)
        yield found.group(), True
        at = found.end()
    yield from _cut(text[at:], *others)


def _longest_first(contents: Iterable[str]) -> re.Pattern[str] | None:
    """Make a pattern that finds the leftmost token, and of several there the longest."""
    ordered = sorted(contents, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def _numbered(names: Sequence[str], n: int, kind: str) -> str:
    if not 0 <= n < len(names):
        raise TokenizerError(f"{kind} token {n} does not exist; want 0..{len(names) - 1}")
    return names[n]
