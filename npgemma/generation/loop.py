"""Answers token by token: the likeliest, or drawn.  Letters: B rows still growing, V vocabulary."""

import numpy as np

from npgemma import paligemma
from npgemma.base.cache import take_state
from npgemma.generation.answers import Growing
from npgemma.generation.drawing import Draws, draw, likeliest
from npgemma.generation.finite import check_logits
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
        check_logits(logits, rows, [each.ids for each in growing])
        scores = process(logits, settings, [each.prompt_ids for each in growing], [each.ids for each in growing])
        logprobs = log_softmax(logits)
        for index, row in enumerate(rows):
            token = draw(scores[index], draws[row].next()) if settings.samples else likeliest(scores[index])
            answers[row].take(token, float(logprobs[index, token]))
        staying = [index for index, answer in enumerate(growing) if not answer.finish_reason]
        if not staying:
            return
        if len(staying) < len(rows):
            rows = [rows[index] for index in staying]
            state, positions = take_state(state, np.array(staying)), positions[staying]
        ids = np.array([[answers[row].ids[-1]] for row in rows])
        step_logits, state = paligemma.step(w, cfg, ids, positions[:, None], state)
        logits, positions = step_logits[:, 0], positions + 1
