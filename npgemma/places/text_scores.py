"""Scores of short answers: VQA accuracy, ANLS, relaxed accuracy.  Each gives one answer's score, from 0 to 1."""

import re
from collections.abc import Sequence

import numpy as np

from npgemma.base.errors import InputError

ANNOTATORS = 10  # of VQAv2; also of TextVQA and OK-VQA
ENOUGH = 3  # annotators that must agree with an answer
THRESHOLD = 0.5  # of ANLS: what is further away than half of its length is wrong altogether
TOLERANCE = 0.05  # of ChartQA

ARTICLES = {"a", "an", "the"}
# Each is also meant where one of its apostrophes is missing.
CONTRACTIONS = """ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't
he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've""".split()
NUMBERS = "zero one two three four five six seven eight nine ten".split()
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def replacements() -> dict[str, str]:
    """Give the words that VQA's normalisation replaces, as its published table has them."""
    words = {"none": "0", **{word: str(number) for number, word in enumerate(NUMBERS)}}
    for word in CONTRACTIONS:
        for place, sign in enumerate(word):
            if sign == "'":
                words[word[:place] + word[place + 1 :]] = word
    # The table has this one the other way round.
    return words | {"somebody'd": "somebodyd"}


REPLACEMENTS = replacements()


def normalise_vqa(text: str) -> str:
    """Write an answer as VQA's judges compare it: no punctuation, no articles, digits, apostrophes, lower case.

    Notes
    -----
    A comma between digits anywhere makes all punctuation vanish instead of becoming spaces, as in the official code;
    so does a sign beside a space.  https://visualqa.org/evaluation.html; reference: big_vision evaluators/proj/
    paligemma/transfers/vqav2.py.
    """
    vanishes = re.search(r"\d,\d", text) is not None
    out = text
    for sign in PUNCTUATION:
        out = out.replace(sign, "" if vanishes or f"{sign} " in text or f" {sign}" in text else " ")
    out = re.sub(r"\.(?!\d)", "", out)
    words = [word for word in out.lower().split() if word not in ARTICLES]
    return " ".join(REPLACEMENTS.get(word, word) for word in words)


def vqa_accuracy(text: str, answers: Sequence[str]) -> float:
    """Judge an answer by ten people's: right as soon as three agree, averaged over all choices of nine.

    Raises
    ------
    InputError
        If there are not ten.

    Notes
    -----
    Normalisation comes into play only where the ten differ.  Antol et al. 2015; Goyal et al. 2017.
    """
    if len(answers) != ANNOTATORS:
        raise InputError(f"vqa: {len(answers)} answers came; the rule wants those of {ANNOTATORS} people")
    ours, *theirs = (one.replace("\n", " ").replace("\t", " ").strip() for one in (text, *answers))
    if len(set(theirs)) > 1:
        ours, *theirs = (normalise_vqa(one) for one in (ours, *theirs))
    matches = np.array([ours == one for one in theirs], float)
    return float(np.minimum((matches.sum() - matches) / ENOUGH, 1.0).mean())


def anls(text: str, answers: Sequence[str]) -> float:
    """Judge an answer by how few letters must change to make it one of those wanted: of the nearest, 1 - distance.

    Notes
    -----
    Average Normalised Levenshtein Similarity, of DocVQA and ST-VQA: Biten et al. 2019, eq. 1.  No letter case is
    folded here.
    """
    return max((similarity(text, answer) for answer in answers), default=0.0)


def similarity(text: str, answer: str) -> float:
    """Give 1 - distance over the longer length, and 0 from one half on."""
    if not answer:
        return float(not text)
    far = edit_distance(text, answer) / max(len(text), len(answer))
    return 1.0 - far if far < THRESHOLD else 0.0


def edit_distance(one: str, two: str) -> int:
    """Count the letters to add, take away or change (Levenshtein 1966)."""
    row = list(range(len(two) + 1))
    for number, letter in enumerate(one, start=1):
        before, row[0] = row[0], number
        for place, other in enumerate(two, start=1):
            before, row[place] = row[place], min(before + (letter != other), row[place] + 1, row[place - 1] + 1)
    return row[-1]


def relaxed(text: str, answer: str) -> float:
    """Judge a number by 5 % of the wanted one, anything else by equality (ChartQA; Masry et al. 2022, sec. 5.1)."""
    ours, wanted = as_number(text), as_number(answer)
    if ours is None or not wanted:  # of nothing, five per cent are nothing
        return float(text == answer)
    return float(abs(ours - wanted) / abs(wanted) <= TOLERANCE)


def as_number(text: str) -> float | None:
    """Read a number, or a number of per cent."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
