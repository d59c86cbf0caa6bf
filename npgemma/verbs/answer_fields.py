"""An answer as the fields of a JSON object."""

from typing import Any

from npgemma.generation.answers import Answer
from npgemma.verbs.finder import Finder


def answer_fields(answer: Answer, image: Any, find: Finder) -> dict[str, Any]:
    """Give what is an answer's own; ``boxes``, ``unread`` and ``others`` only where there are any."""
    found: dict[str, Any] = {
        "text": answer.text,
        "ids": answer.ids,
        "finish_reason": answer.finish_reason,
        "logprobs": answer.logprobs,
        "score": answer.score,
    }
    places, unread = find(answer, image)
    if places:
        found["boxes"] = [each.as_object() for each in places]
    if unread:
        found["unread"] = [each.as_object() for each in unread]
    if answer.others:
        found["others"] = [answer_fields(each, image, find) for each in answer.others]
    return found
