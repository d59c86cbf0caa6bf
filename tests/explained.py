"""Runs that the page is made of, and the same runs traced whole, from which the tests know what must be said."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from random_models import PALIGEMMA_1, PALIGEMMA_2, random_model

import npgemma
from npgemma.checkpoints.loading import TINY
from npgemma.explaining.page import engine, page, panels
from npgemma.explaining.run import Run, observed, prepared
from npgemma.generation.requests import Request
from npgemma.places.locate import locate
from npgemma.tracing.trace import Trace

MOST = 32
CASES = ("caption", "boxes", "gemma 1", "gemma 2", "words", "compared", "same")
RANDOM = {"gemma 1": PALIGEMMA_1, "gemma 2": PALIGEMMA_2}


@dataclass(frozen=True)
class Facts:
    """A run, its panels, and what a whole trace of the same question holds."""

    run: Run
    panels: dict[str, Any]
    whole: Trace
    answer: Any
    model: Any
    picture: Any
    case: str
    other: Any

    @property
    def cfg(self):
        return self.model.config

    @property
    def ids(self):
        return self.whole["ids"][0]

    @property
    def image(self):
        """Which tokens are of the picture."""
        return self.ids == self.cfg.image_token_id

    def steps(self, name):
        """A tensor at the last position of the prompt and of every token read later, each without B and T."""
        later = [f"step.{number}.{name}" for number in range(len(self.answer.ids) - 1)]
        return [self.whole[each][0, -1] for each in (name, *later)]


# Cases that are about the run of another one.
OF = {"compared": "caption", "same": "caption"}


@functools.cache
def facts(case):
    """One of the cases: of the box, of a random model of each generation without tokenizer, words alone; made once."""
    run, whole, answer, picture = ran(OF.get(case, case))
    other = other_run(case, run.model)
    made = {panel.key: panel for panel in panels(run, other)}
    return Facts(run, made, whole, answer, run.model, picture, case, other)


@functools.cache
def written(case):
    """The page of a case, made once."""
    return page(facts(case).run, facts(case).panels.values(), engine())


@functools.cache
def ran(case):
    """The run of a case as the page keeps it, and the same traced whole."""
    model, question, picture = asked(case)
    most = 6 if case == "words" else MOST
    image = None if picture is None else str(picture)
    run = observed(prepared(model, Request(image and [image], **question), most))
    if case == "boxes":
        run = replace(run, places=tuple(locate(model, run.answer, image)[0]))
    whole = npgemma.trace(model, image, max_new_tokens=most, **question)
    answer = npgemma.generate(model, image, max_new_tokens=most, **question)
    return run, whole, answer, picture


@functools.cache
def asked(case):
    """Model, question and picture of a case."""
    if case in RANDOM:
        return awkward(RANDOM[case])
    if case == "words":
        return the_box(), {"prompt": "caption <script>alert(1)</script>"}, None
    if case == "boxes":
        return the_box(), {"prompt": "detect circle ; square ; star"}, TINY / "pictures" / "2-overlap.png"
    return the_box(), {"prompt": "caption en"}, TINY / "pictures" / "1-word.png"


@functools.cache
def the_box():
    """The model in the box."""
    return npgemma.load()


def other_run(case, model):
    """A second run to compare with: another prompt about the picture, or the same once more."""
    if case not in OF:
        return None
    prompt = {"compared": "ocr", "same": "caption en"}[case]
    return observed(prepared(model, Request([str(asked(case)[2])], prompt), MOST))


def awkward(cfg):
    """A random model whose sizes are all different, without tokenizer, asked with ids."""
    model = random_model(cfg, "float32")
    P, R = model.config.vision.num_patches, model.config.vision.image_size
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, R, R, 3)).astype(np.float32)
    return model, {"ids": [model.config.image_token_id] * P + [2, 5, 7, 9], "pixels": pixels}, None
