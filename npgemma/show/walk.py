"""Walking through the model in a terminal: on to the next tensor, to one by name, back, and over again.

A run goes forward only; who wants to go back runs it again, up to there.  The same machine computes the same numbers.
"""

import bdb
from collections.abc import Callable, Mapping

import numpy as np

from npgemma.base import printer
from npgemma.base.device import to_host
from npgemma.base.errors import InputError
from npgemma.base.tensors import Call, Tensor
from npgemma.generation.answers import Answer, Token, why_cut
from npgemma.generation.generate import generate
from npgemma.paligemma import Model, forward
from npgemma.show import stop
from npgemma.show.breaking import layer_frame, stop_in
from npgemma.show.token_table import pieces_of
from npgemma.tracing.plan import Question
from npgemma.tracing.selection import as_patterns, check_patterns, matches
from npgemma.tracing.trace import Numbering, Stopped

HELP = """  Enter       go on to the next tensor
  n GLOB      run to a tensor, such as n text.blocks.3.attn.scores or n *.out
  back        to the stop before this one; back GLOB to the last such tensor before this one
  restart     from the pixels again
  p           print the values; p EXPRESSION of any of the layer's variables: p q.shape, p np.abs(scores).max()
  m           draw the mask; at attention weights: where the last position looks (m ROW, m ROW HEAD, m ROW all)
  t           the table of tokens
  l           the likeliest next tokens at this point, inside the decoder
  d           pdb right here, with the layer's variables; c goes on
  h           these lines
  q           leave"""
END = "the end"


class Again(Exception):
    """The run begins again."""


class Walk:
    """An observer that shows each tensor and asks what to do.

    Parameters
    ----------
    model : Model
    question : Question
        Of one row.
    tensors : mapping of str to Tensor
        Of the run, by name, in order.
    max_new_tokens : int
        How many tokens to generate, greedily; 0 reads the prompt only and scores all its positions.
    read : callable
        ``read(prompt)`` gives a line; EOFError ends the walk.
    write : callable
        ``write(text, style=...)``.
    """

    def __init__(
        self,
        model: Model,
        question: Question,
        tensors: Mapping[str, Tensor],
        max_new_tokens: int = 0,
        read: Callable[[str], str] = input,
        write: Callable[..., object] = printer.say,
    ) -> None:
        self.model = model
        self.question = question
        self.tensors = tensors
        self.max_new_tokens = max_new_tokens
        self.read = read
        self.write = write
        self.until: tuple[str, ...] = ("*",)
        # The one tensor that a run which began again goes to, in silence; and the stops on the way here.
        self.goal = ""
        self.visited: list[str] = []
        # Of this run: the tensors so far, the ids of the answer, and the masks.
        self.name_of = Numbering()
        self.passed: list[str] = []
        self.said: list[int] = []
        self.masks: dict[str, np.ndarray] = {}

    def go(self, until: tuple[str, ...] = ("*",)) -> None:
        """Run, as often as it is wished, until the user leaves."""
        self.until = until
        while True:
            self.name_of, self.passed, self.said, self.masks = Numbering(), [], [], {}
            try:
                answer = self.run()
                self.the_end(answer)
            except Again:
                continue
            except (Stopped, bdb.BdbQuit):
                return

    def run(self) -> Answer | None:
        """Read the prompt, and let the answer grow."""
        q, model = self.question, self.model
        if not self.max_new_tokens:
            forward(model, q.ids, q.pixels, q.token_types, q.attention_mask, q.positions, observe=self)
            return None
        pixels = None if q.pixels is None else q.pixels[0]
        [ids] = q.ids.tolist()
        longest = self.max_new_tokens
        return generate(model, ids=ids, pixels=pixels, max_new_tokens=longest, observe=self, on_token=self.hear)

    def __call__(self, short: str, x) -> None:
        name = self.name_of(short)
        self.passed.append(name)
        if short.startswith("mask."):
            self.masks[short] = to_host(x)[0]
        if name != self.goal if self.goal else not matches(name, self.until):
            return
        self.goal, self.until = "", ("*",)
        self.visited.append(name)
        first = Call(last_only=self.max_new_tokens > 0)
        call = first if name == short else Call(pictures=0, past=self.question.ids.shape[1] + len(self.said) - 1)
        rest = self.tensors[name], call, self.model, self.question, tuple(self.said), dict(self.masks)
        here = stop.Stop(name, x, layer_frame(), *rest)
        for line, style in stop.page(here):
            self.write(line, style=style)
        while not self.done(here):
            pass

    def hear(self, token: Token) -> None:
        """Show a token of the answer when it is chosen."""
        self.said.append(token.id)
        if not self.goal:
            [piece] = pieces_of(self.model.config, self.model.tokenizer, [token.id])
            line = f"\ntoken {len(self.said) - 1} of the answer: {piece}, probability {np.exp(token.logprob):.3f}"
            self.write(line, style="green")

    def done(self, here: stop.Stop) -> bool:
        """Ask for a command and do it; True when the run is to go on."""
        command, rest = self.ask(here.name)
        if command == "d":
            stop_in(here.frame)
        elif command == "n":
            return self.runs_to(rest, here.name)
        elif command and command != "back":  # from here it leads nowhere, which has been said
            self.write(self.answer(command, rest, here))
        return command in ("", "d")

    def ask(self, where: str) -> tuple[str, str]:
        """Read a command and what stands behind it; going back, over again and leaving are done at once."""
        command, rest = stop.command_of(self.read, where)
        if command == "restart":
            self.visited.clear()
            raise Again
        if command == "back":
            self.back(rest, self.passed if where == END else self.passed[:-1])
        return command, rest

    def answer(self, command: str, rest: str, here: stop.Stop) -> str:
        """What a command prints."""
        if command == "p":
            return stop.values(here, rest)
        if command == "m":
            return stop.drawing(here, rest.split())
        if command == "t":
            return stop.table(here)
        if command == "l":
            return stop.likeliest(here)
        if command == "h":
            return HELP
        return f"  there is no command {command!r}; there are\n{HELP}"

    def back(self, pattern: str, before: list[str]) -> None:
        """Begin again and go to an earlier tensor: the stop before this one, or the last that fits."""
        patterns = as_patterns(pattern) if pattern else self.visited
        fitting = [name for name in before if (matches(name, patterns) if pattern else name in patterns)]
        if not (fitting or (before and not pattern)):
            what = f"no tensor before this one fits {pattern!r}" if pattern else "this is the first tensor"
            self.write(f"  {what}")
            return
        self.goal = (fitting or before)[-1]
        earlier = set(before[: before.index(self.goal)])
        self.visited = [name for name in self.visited if name in earlier]
        raise Again

    def runs_to(self, pattern: str, name: str) -> bool:
        """Run to the next tensor that fits, if there is one ahead."""
        if not pattern:
            self.write("  n wants a name: n text.blocks.3.attn.scores, n *.out; Enter goes on by one")
            return False
        patterns = as_patterns(pattern)
        try:
            check_patterns(patterns, list(self.tensors)[len(self.passed) :])
        except InputError as problem:
            if any(matches(each, patterns) for each in self.passed[:-1]):
                self.write(f"  {pattern} has been passed already: back {pattern} goes there")
            else:
                self.write(f"  you stand at {name}" if matches(name, patterns) else f"  ahead of here, {problem}")
            return False
        self.until = patterns
        return True

    def the_end(self, answer: Answer | None) -> None:
        """Show the answer, and ask whether to look again; returns when the user leaves by Enter."""
        if self.until != ("*",):
            self.write(f"\nNo tensor that fits {', '.join(self.until)} came before the end.")
        self.until = ("*",)
        context = self.model.config.text.max_positions
        last = "That was the last tensor." if answer is None else f"The answer: {text_of(answer, context)}"
        self.write(f"\n{last}", style="bold")
        while True:
            command, _ = self.ask(END)
            if not command:
                raise Stopped
            if command != "back":
                self.write("  the run is over: back, back GLOB and restart go to its tensors; Enter or q leaves")


def text_of(answer: Answer, context: int) -> str:
    """An answer as text, or as ids for a model without a tokenizer; and why it was cut, if it was."""
    cut = f"  ({why_cut(answer, context)})" if answer.finish_reason == "length" else ""
    return (answer.text or " ".join(map(str, answer.ids))) + cut
