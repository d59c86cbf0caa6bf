"""Answers token by token: the likeliest, or drawn.  Letters: B rows still growing, V vocabulary."""

import numpy as np

from npgemma import paligemma
from npgemma.base.cache import take_state
from npgemma.base.device import fetch
from npgemma.generation.answers import Growing
from npgemma.generation.choosing import Draws, draw, likeliest
from npgemma.generation.finite import check_finite, finite_rows
from npgemma.generation.processors import log_softmax, process
from npgemma.generation.requests import Prefilled
from npgemma.generation.settings import Settings


def grow(w, cfg, start: Prefilled, answers: list[Growing], draws: list[Draws], settings: Settings) -> None:
    """Let all answers grow to their end, side by side; one that has ended leaves the batch.

    Parameters
    ----------
    w : Weights
    cfg : Config
    start : Prefilled
        A row an answer.
    answers : list of B Growing
        Grow here.
    draws : list of B Draws
        Where the numbers of each answer come from, if tokens are drawn.
    settings : Settings
    """
    rows = [row for row, answer in enumerate(answers) if not answer.finish_reason]
    logits, state, positions = start.logits, start.state, start.positions
    while rows:
        growing = [answers[row] for row in rows]
        scores = process(logits, settings, [each.prompt_ids for each in growing], [each.ids for each in growing])
        chosen = draw(scores, w.beside([draws[row].next() for row in rows])) if settings.samples else likeliest(scores)
        logprobs = np.take_along_axis(log_softmax(logits), chosen[:, None], axis=-1)
        # The only wait of a step, where the model is on a card.
        tokens, likely, finite = fetch(chosen, logprobs, finite_rows(logits))
        check_finite(finite, rows, [each.ids for each in growing])
        for index, answer in enumerate(growing):
            answer.take(int(tokens[index]), float(likely[index]))
        staying = [index for index, answer in enumerate(growing) if not answer.finish_reason]
        if not staying:
            return
        if len(staying) < len(rows):
            rows = [rows[index] for index in staying]
            left = w.beside(staying)
            state, positions, chosen = take_state(state, left), positions[left], chosen[left]
        step_logits, state = paligemma.read_on(w, cfg, chosen[:, None], positions[:, None], state)
        logits, positions = step_logits[:, 0], positions + 1
