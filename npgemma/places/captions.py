"""CIDEr: captions judged by how many of people's rare phrases they share (Vedantam et al. 2015), as CIDEr-D counts.

Not supported: Stanford's tokenizer, which the published evaluation runs in Java; :func:`caption_words` splits plain
captions as it does, and captions that it has split stay as they are.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

LONGEST = 4  # words of a phrase
SIGMA = 6.0  # how much a difference in length costs
# As the published evaluation leaves them out.  It means to leave out brackets too, and misses their lower-case names.
PUNCTUATION = {"''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"}
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
WORD = re.compile(
    r"-[lr][rsc]b-|\.\.\.|--|``|''|'n'"
    r"|(?:[a-z]\.){2,}"  # u.s.
    r"|\d+(?:[.,]\d+)+"
    r"|n't\b|'(?:s|m|d|re|ve|ll)\b"  # split off their words
    r"|(?:(?!n't)\w)+(?:[-&](?:(?!n't)\w)+)*"
    r"|\S"
)


def caption_words(text: str) -> list[str]:
    """Split a caption into lower-case words without punctuation."""
    return [BRACKETS.get(word, word) for word in WORD.findall(text.lower()) if word not in PUNCTUATION]


def cider(captions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> np.ndarray:
    """Score captions.

    Parameters
    ----------
    captions : sequence of list of str
        Words of one caption a picture.
    references : sequence of list of list of str
        Words of each of people's captions of that picture.

    Returns
    -------
    scores : (pictures,)
        From 0 to 10, whose mean is CIDEr (times 100 in papers that count to 1000 %).  What is rare is learned from the
        references: of a single picture, nothing is, and it scores 0.

    Notes
    -----
    Counts are clipped and lengths compared as in CIDEr-D.
    Reference: pycocoevalcap cider_scorer.py.
    """
    counted = [[phrases(words) for words in people] for people in references]
    seen = Counter(phrase for people in counted for phrase in set().union(*people))
    pictures = math.log(len(references)) if references else 0.0

    def rarity(phrase):
        return pictures - math.log(max(1, seen[phrase]))

    scores = []
    for words, people in zip(captions, counted, strict=True):
        ours = weighted(phrases(words), rarity)
        each = [agreement(ours, weighted(counts, rarity)) for counts in people]
        scores.append(10.0 * float(np.mean(each)) if each else 0.0)
    return np.array(scores)


def phrases(words: Sequence[str]) -> Counter:
    """Count the phrases of one to four words."""
    lengths = range(1, LONGEST + 1)
    return Counter(tuple(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1))


def weighted(counts: Counter, rarity) -> tuple[list[dict], int]:
    """Weigh phrases by their rarity, in a dictionary for each length; and count the words."""
    vectors: list[dict] = [{} for _ in range(LONGEST)]
    for phrase, count in counts.items():
        vectors[len(phrase) - 1][phrase] = count * rarity(phrase)
    return vectors, sum(count for phrase, count in counts.items() if len(phrase) == 1)


def agreement(ours: tuple[list[dict], int], theirs: tuple[list[dict], int]) -> float:
    """Give the mean cosine over the four lengths, ours clipped to theirs, lowered by the difference in length."""
    (our_vectors, our_length), (their_vectors, their_length) = ours, theirs
    cosines = []
    for one, two in zip(our_vectors, their_vectors, strict=True):
        shared = sum(min(weight, two.get(phrase, 0.0)) * two.get(phrase, 0.0) for phrase, weight in one.items())
        norms = math.sqrt(sum(w * w for w in one.values())) * math.sqrt(sum(w * w for w in two.values()))
        cosines.append(shared / norms if norms else 0.0)
    return math.exp(-((our_length - their_length) ** 2) / (2 * SIGMA**2)) * sum(cosines) / LONGEST
