"""What generation gives, and an answer that is still growing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from npgemma.generation.settings import Settings
from npgemma.generation.stopping import AnswerText
from npgemma.words.locations import Box, Unread


class Token(NamedTuple):
    """One step of an answer, as a caller is told of it: its id, the text certain with it, its log-probability."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Answer:
    """An answer to one prompt.

    Parameters
    ----------
    text : str
        Without special tokens, ended before a stop string; empty for a model without a tokenizer.
    ids : tuple of int
        All ids chosen, the stop id included.
    finish_reason : {'stop', 'length'}
        A stop id or string came, or ``max_new_tokens`` were reached.
    logprobs : tuple of float
        For each id, its log-probability by the model itself: the log-softmax of the logits, whatever settings shaped
        the choice.
    prompt_ids : tuple of int
        What was read, image tokens included.
    score : float
        What beams are ranked by: the summed log-probability, after penalties and restrictions, over the length to
        the power ``length_penalty``.  For other answers the plain sum of ``logprobs``.
    notes : tuple of str
        What was lost or ignored on the way, or is unusual.
    seconds : dict of str to float
        ``vision`` and ``prefill`` of the whole batch, and ``per_token``, the mean of the steps behind the prefill.
    boxes, unread : tuple of Box, tuple of Unread
        What the text places in the picture, in its pixels; and parts of such a text that are no boxes.
    others : tuple of Answer
        Where ``num_return`` asked for several: the second, the third, …
    picture : picture or None
        What the boxes are in, where there are any: for a notebook, which shows them there.
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: str
    logprobs: tuple[float, ...] = ()
    prompt_ids: tuple[int, ...] = field(default=(), repr=False)
    score: float = 0.0
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    unread: tuple[Unread, ...] = ()
    others: tuple["Answer", ...] = ()
    picture: Any = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        from npgemma.generation.notebook import answer_html  # nothing else of an answer writes HTML

        return answer_html(self)


class Growing:
    """An answer while its tokens come.

    Parameters
    ----------
    prompt_ids : sequence of int
    settings : Settings
    tokenizer : Tokenizer or None
    on_token : callable, optional
        Told of each :class:`Token`.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        settings: Settings,
        tokenizer: Any = None,
        on_token: Callable[[Token], Any] | None = None,
    ) -> None:
        self.prompt_ids = list(prompt_ids)
        self.longest = settings.max_new_tokens or 0
        self.stop_ids = frozenset(settings.stop_ids or ())
        self.on_token = on_token
        self.written = AnswerText(tokenizer, settings.stop)
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.finish_reason = "" if self.longest else "length"

    def take(self, token: int, logprob: float) -> None:
        """Add one chosen id, and see whether the answer ends with it."""
        self.ids.append(token)
        self.logprobs.append(logprob)
        text = self.written.push(token)
        if token in self.stop_ids or self.written.stopped:
            self.finish_reason = "stop"
        elif len(self.ids) >= self.longest:
            self.finish_reason = "length"
        if self.finish_reason:
            text += self.written.finish()
        if self.on_token is not None:
            self.on_token(Token(token, text, logprob))

    def answer(self, notes: Sequence[str], seconds: dict[str, float], score: float | None = None) -> Answer:
        """Give the finished answer."""
        total = sum(self.logprobs) if score is None else score
        return Answer(
            text=self.written.text,
            ids=tuple(self.ids),
            finish_reason=self.finish_reason,
            logprobs=tuple(self.logprobs),
            prompt_ids=tuple(self.prompt_ids),
            score=total,
            notes=tuple(notes),
            seconds=seconds,
        )


def why_cut(answer: Answer, context: int) -> str:
    """Say why an answer has no end, and what lets it go on, if anything does."""
    said, prompt = f"the answer was cut after {len(answer.ids)} tokens", len(answer.prompt_ids)
    if prompt + len(answer.ids) < context:
        return f"{said}; --max-tokens lets it go on"
    return f"{said}: with the {prompt} of the prompt they fill the model's context of {context:,}"
