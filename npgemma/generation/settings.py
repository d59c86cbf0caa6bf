"""How an answer is chosen: every choice a caller has, checked when it is made."""

import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from npgemma.base.errors import InputError, InputTypeError
from npgemma.config import Config

# What a prompt is given when nobody says how long the answer may be; the model's own stop usually comes first.
DEFAULT_NEW_TOKENS = 256

# Beyond these, float32 overflows or nothing is left to compute with; no use is known of values near them.
MOST_ANSWERS = 1024
TEMPERATURES = (1e-4, 1e4)
PENALTIES = (1e-3, 1e3)
LENGTH_PENALTIES = (-10.0, 10.0)

Allowed = Collection[int] | Callable[[Sequence[int]], Any]


@dataclass(frozen=True)
class Settings:
    """How tokens are chosen, and when to stop.

    Parameters
    ----------
    max_new_tokens : int, optional
        Length of the longest answer.  Left out: 256, or what the trained context leaves.
    min_new_tokens : int
        No stop id is chosen before.
    temperature : float, optional
        Logits are divided by it before drawing.  Left out or 0: the likeliest token is taken, nothing is drawn (left
        out while ``top_k``, ``top_p`` or ``min_p`` is given: 1).  Else in 0.0001..10000.
    top_k : int, optional
        Draw among the k likeliest tokens.
    top_p : float, optional
        Draw among the likeliest tokens whose probabilities just reach ``top_p``, in (0, 1].
    min_p : float, optional
        Draw among tokens at least ``min_p`` times as likely as the likeliest, in [0, 1].
    repetition_penalty : float
        Divides the positive logits of tokens seen before, the prompt included, and multiplies the negative ones.
    seed : int, optional
        Of the draws.  The same seed draws the same; None draws a seed too, and the answer's notes tell it.
    num_beams : int
        Beams that are searched side by side; 1 is no beam search.
    length_penalty : float
        A finished beam counts as its log-likelihood over its length to this power.
    num_return : int
        How many answers: draws that share one prefill, or the best beams.
    stop : sequence of str
        The answer ends before the first of these strings.
    stop_ids : collection of int, optional
        The answer ends with one of these; the model's own end-of-text ids if left out.
    allowed : collection of int, or callable, optional
        The only ids that may be chosen, or ``allowed(ids so far)`` that gives them: see
        :mod:`npgemma.generation.constraints`.
    suppress_ids : collection of int
        Ids that are never chosen.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    num_return: int = 1
    stop: Sequence[str] = ()
    stop_ids: Collection[int] | None = None
    allowed: Allowed | None = None
    suppress_ids: Collection[int] = ()

    def __post_init__(self) -> None:
        check_whole("max_new_tokens", self.max_new_tokens, 0, optional=True)
        check_whole("min_new_tokens", self.min_new_tokens, 0)
        check_whole("top_k", self.top_k, 1, optional=True)
        check_whole("seed", self.seed, 0, optional=True)
        check_whole("num_beams", self.num_beams, 1, high=MOST_ANSWERS)
        check_whole("num_return", self.num_return, 1, high=MOST_ANSWERS)
        if self.temperature != 0 or isinstance(self.temperature, bool):
            check_number("temperature", self.temperature, *TEMPERATURES, "0, or 0.0001 to 10000", optional=True)
        check_number("top_p", self.top_p, 0.0, 1.0, "above 0, at most 1", optional=True)
        check_number("min_p", self.min_p, 0.0, 1.0, "0 to 1", optional=True)
        check_number("repetition_penalty", self.repetition_penalty, *PENALTIES, "0.001 to 1000")
        check_number("length_penalty", self.length_penalty, *LENGTH_PENALTIES, "-10 to 10")
        if self.top_p == 0:
            raise InputError("came as 0; want a number above 0", argument="top_p")
        check_listed("stop", self.stop, "strings, none of them empty")
        if not all(isinstance(text, str) and text for text in self.stop):
            raise InputError(f"came as {self.stop!r}; want a list of strings, none of them empty", argument="stop")
        check_listed("stop_ids", () if self.stop_ids is None else self.stop_ids, "ids")
        check_listed("suppress_ids", self.suppress_ids, "ids")
        if not callable(self.allowed):
            check_listed("allowed", () if self.allowed is None else self.allowed, "ids, or a callable")
        self.check_together()

    def check_together(self) -> None:
        """Refuse choices that exclude each other."""
        if self.num_beams > 1 and self.samples:
            raise InputError(
                "beams are searched, not drawn; leave out temperature, top_k, top_p and min_p",
                argument="num_beams",
            )
        if self.num_beams > 1 and self.num_return > self.num_beams:
            raise InputError(
                f"{self.num_return} answers from {self.num_beams} beams; want at most as many",
                argument="num_return",
            )
        if self.num_beams == 1 and self.num_return > 1 and not self.samples:
            raise InputError(
                f"{self.num_return} greedy answers are all the same; give a temperature or beams"
                " (how long an answer may be: max_new_tokens (--max-tokens))",
                argument="num_return",
            )
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise InputError(
                f"{self.min_new_tokens} is more than max_new_tokens, {self.max_new_tokens}", argument="min_new_tokens"
            )

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn."""
        if self.temperature is None:
            return any(limit is not None for limit in (self.top_k, self.top_p, self.min_p))
        return self.temperature > 0

    @property
    def heat(self) -> float:
        """The temperature of a drawn answer."""
        return 1.0 if self.temperature is None else float(self.temperature)


def for_model(settings: Settings, cfg: Config, longest_prompt: int) -> Settings:
    """Fill in what depends on the model, and refuse what it has no room for.

    Parameters
    ----------
    settings : Settings
    cfg : Config
    longest_prompt : int
        Its positions, image tokens included.

    Returns
    -------
    settings : Settings
        With ``max_new_tokens`` and ``stop_ids`` set.

    Raises
    ------
    InputError
        If an id is none of the vocabulary, or prompt and answer do not fit the trained context.
    """
    V, context = cfg.text.vocab_size, cfg.text.max_positions
    stop_ids = cfg.eos_ids if settings.stop_ids is None else tuple(settings.stop_ids)
    # Hugging Face's image token may lie beyond the vocabulary; forbidding what cannot come is no mistake.
    for name, ids in (("stop_ids", stop_ids), ("suppress_ids", settings.suppress_ids)):
        check_ids(name, ids, max(V, cfg.image_token_id + 1))
    if settings.allowed is not None and not callable(settings.allowed):
        check_ids("allowed", settings.allowed, V)
        if not len(settings.allowed):
            raise InputError("came empty; want at least one id", argument="allowed")
    if settings.top_k is not None and settings.top_k > V:
        raise InputError(f"came as {settings.top_k}; want at most {V}, the vocabulary", argument="top_k")
    room = context - longest_prompt
    wanted = settings.max_new_tokens
    if room < 0 or (wanted is not None and wanted > room):
        raise InputError(
            f"{longest_prompt:,} positions of prompt (image tokens included) and {wanted or 0:,} of answer;"
            f" the trained context is {context:,}. Shorten the prompt, or lower max_new_tokens (--max-tokens)"
        )
    return replace(
        settings, max_new_tokens=min(DEFAULT_NEW_TOKENS, room) if wanted is None else wanted, stop_ids=stop_ids
    )


def check_whole(name: str, value: Any, low: int, optional: bool = False, high: int | None = None) -> None:
    """Refuse all but whole numbers from ``low`` on, up to ``high`` if there is such an end."""
    if value is None and optional:
        return
    wanted = f"a whole number, {low} or more" if high is None else f"a whole number in {low}..{high}"
    try:
        number = operator.index(value)
    except TypeError:
        raise InputTypeError(f"came as {value!r:.80}; want {wanted}", argument=name) from None
    if isinstance(value, bool) or number < low or (high is not None and number > high):
        raise InputError(f"came as {value!r:.80}; want {wanted}", argument=name)


def check_listed(name: str, values: Any, what: str) -> None:
    """Refuse what is no list, set or other collection; a string is none."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable) or not hasattr(values, "__len__"):
        raise InputTypeError(f"came as {values!r:.80}; want a list of {what}", argument=name)


def check_callable(name: str, value: Any) -> None:
    """Refuse what cannot be called; None stands for nothing."""
    if value is not None and not callable(value):
        raise InputTypeError(f"came as {value!r:.80}; want a function", argument=name)


def check_number(name: str, value: Any, low: float, high: float, wanted: str, optional: bool = False) -> None:
    """Refuse all but finite numbers in [low, high]."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputTypeError(f"came as {value!r:.80}; want a number, {wanted}", argument=name)
    # Neither NaN nor infinity is within; a whole number may be too large for math.isfinite.
    if not low <= value <= high:
        raise InputError(f"came as {value!r:.80}; want {wanted}", argument=name)


def check_ids(name: str, ids: Any, vocab_size: int) -> None:
    """Refuse ids that are none."""
    for token in ids:
        check_whole(name, token, 0)
        if token >= vocab_size:
            raise InputError(f"came with id {token}; want ids in 0..{vocab_size - 1}", argument=name)
