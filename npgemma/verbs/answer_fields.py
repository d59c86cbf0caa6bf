"""An answer as the fields of a JSON object."""

from typing import Any

from npgemma.generation.answers import Answer


def answer_fields(answer: Answer) -> dict[str, Any]:
    """Give what is an answer's own; ``boxes``, ``unread`` and ``others`` only where there are any."""
    found: dict[str, Any] = {
        "text": answer.text,
        "ids": answer.ids,
        "finish_reason": answer.finish_reason,
        "logprobs": answer.logprobs,
        "score": answer.score,
    }
    for name in ("boxes", "unread"):
        if getattr(answer, name):
            found[name] = [each.as_object() for each in getattr(answer, name)]
    if answer.others:
        found["others"] = [answer_fields(each) for each in answer.others]
    return found
