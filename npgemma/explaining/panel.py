"""What a panel is made of: sentences whose numbers come from the run, formulas, code as installed, drawn tensors."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from npgemma.explaining.code import Code, statements
from npgemma.explaining.mathml import equation
from npgemma.explaining.run import Run


@dataclass(frozen=True)
class Sentence:
    """Text with a place for each number that comes from the run.

    Parameters
    ----------
    template : str
        As for :meth:`str.format`; code between backticks.
    numbers : dict of str to value
    """

    template: str
    numbers: dict[str, Any]

    def __str__(self) -> str:
        return "".join(text for _, text in self.parts())

    def parts(self) -> Iterator[tuple[bool, str]]:
        """The text in pieces, each with whether it is code."""
        for number, piece in enumerate(self.template.split("`")):
            yield number % 2 == 1, piece.format(**self.numbers)


@dataclass(frozen=True)
class Figure:
    """Something drawn.

    Parameters
    ----------
    drawing : str
        HTML: an SVG, or an ``img`` with its data.
    caption : Sentence
    line : str
        The one-line summary of the tensor that is drawn.
    """

    drawing: str
    caption: Sentence
    line: str = ""


@dataclass(frozen=True)
class Panel:
    """One component on this run.

    Parameters
    ----------
    key, title : str
    text : tuple of Sentence
    paper : str
        Where it is described.
    formulas : tuple of str
        MathML.
    code : tuple of Code
    figures : tuple of Figure
    table : dict, optional
        ``{"head": [...], "rows": [[...], ...]}``.
    steps : list, optional
        A table for each token of the answer, of which the reader chooses one: ``{"name", "head", "rows"}``.
    look : dict, optional
        What the script needs to show where a head looks.
    picture : str
        The address of the picture that it paints on; nothing where there is none.
    """

    key: str
    title: str
    text: tuple[Sentence, ...]
    paper: str
    formulas: tuple[str, ...] = ()
    code: tuple[Code, ...] = ()
    figures: tuple[Figure, ...] = ()
    table: dict[str, Any] | None = None
    steps: list[dict[str, Any]] = field(default_factory=list)
    look: dict[str, Any] | None = None
    picture: str = ""

    def sentences(self) -> Iterator[Sentence]:
        """All that is said in words."""
        yield from self.text
        yield from (figure.caption for figure in self.figures)


def say(template: str, **numbers: Any) -> Sentence:
    """A sentence."""
    return Sentence(template, numbers)


def formulas(run: Run, *names: str) -> tuple[str, ...]:
    """The formulas of tensors, from the table."""
    return tuple(equation(name, run.model.config, run.call) for name in names)


def code(run: Run, *names: str) -> tuple[Code, ...]:
    """The statements that make tensors, each once, in order."""
    return statements([(run.tensor(name).row.kept_in, name) for name in names])
