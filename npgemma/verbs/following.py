"""How far a run is, told by the weights that were read: nothing of the run itself is touched.

Each product reads its matrix once for each pass, and takes as long as the matrix is large and its rows are many.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from npgemma.base.named import Named
from npgemma.base.tensors import schema
from npgemma.paligemma import Model

if TYPE_CHECKING:
    from npgemma.tracing.plan import Question

# A product of few rows takes as long as its matrix takes to come from memory; one of so many takes twice that.
FEWEST_ROWS = 16


class Counted(Named):
    """Weights that tell how much of the work is done when one of them is read.

    Parameters
    ----------
    arrays : mapping of str to array
    costs : tuple of two dicts of str to float
        Of a weight's first reading, and of each later one.
    total : float
        Of the whole work; nothing more is told when it is reached.
    tell : callable
        ``tell(done, total)``
    """

    def __init__(
        self, arrays: Mapping[str, Any], costs: tuple[dict[str, float], dict[str, float]], total: float,
        tell: Callable[[float, float], Any],
    ) -> None:
        super().__init__(arrays)
        self.costs, self.total, self.tell = costs, total, tell
        self.read: set[str] = set()
        self.done = 0.0

    def __getitem__(self, name: str) -> Any:
        if self.done < self.total:
            self.tell(self.done, self.total)
        self.done += self.costs[name in self.read].get(name, 0.0)
        self.read.add(name)
        return super().__getitem__(name)


def following(
    model: Model, tell: Callable[[float, float], Any], tokens: int, pictures: int, later: int = 0, *,
    rows: int = 1, again: int = 0, deeper: float = 1.0,
) -> Model:
    """Give the model with weights that tell how much of a prompt, and of what comes behind it, is done.

    Parameters
    ----------
    model : Model
    tell : callable
        ``tell(done, total)``
    tokens, pictures : int
        Of the prompt.
    later : int
        Passes of the decoder behind the prompt, each of ``rows`` rows.
    again : int
        Times that the whole prompt is read again, each as long as ``deeper`` first ones: a way back is two.
    """
    patches = model.config.vision.num_patches * pictures
    of_prompt = {"vision": patches, "connector": patches, "text": max(tokens, FEWEST_ROWS)}
    of_later: dict[str, float] = {"text": max(rows, FEWEST_ROWS)} if later else {}
    if again:
        of_later = {part: deeper * count for part, count in of_prompt.items()}
    sizes = {name: math.prod(one.shape) for name, one in schema(model.config).items() if one.matrix}
    sizes.pop("text.embedded.weight", None)  # some of its rows, and for the logits all, but of one token
    first, then = ({name: size * counts.get(name.split(".")[0], 0) for name, size in sizes.items()}
                   for counts in (of_prompt, of_later))
    total = sum(first.values()) + (later or again) * sum(then.values())
    arrays: Any = Counted(model.weights.arrays, (first, then), total, tell)
    return replace(model, weights=replace(model.weights, arrays=arrays))


def following_question(model: Model, tell: Callable[[float, float], Any], question: "Question", **more: Any) -> Model:
    """Give the model with weights that tell how much of a question is done, as :func:`following`."""
    pictures = 0 if question.pixels is None else question.pixels.shape[1]
    return following(model, tell, question.ids.size, pictures, **more)
