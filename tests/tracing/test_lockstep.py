"""Two precisions side by side."""

import threading

import numpy as np
import pytest
from random_models import GENERATIONS, random_model, random_prompt

from npgemma.base.errors import InputError
from npgemma.tracing.lockstep import Partner, distance
from npgemma.tracing.plan import given, plan
from npgemma.tracing.trace import Watch, carry_out, trace_forward

CFG = GENERATIONS["paligemma-2"]


@pytest.fixture(scope="module")
def model():
    return random_model(CFG, "float32")


def test_the_partner_gives_each_tensor_of_its_own_run(model):
    prompt = random_prompt(CFG)
    planned = plan(model, given(CFG, **prompt), only="text.*", rows="0,-1")
    exact = trace_forward(model, **prompt, only="text.*", rows="0,-1", precision="float64")
    with Partner(planned, "float64") as partner:

        def compare(name, array):
            theirs = partner.tensor(name)
            assert np.array_equal(theirs, exact[name])
            assert theirs.dtype == np.float64
            assert distance(array, theirs)[0] < 1e-4

        carry_out(planned, Watch(planned, compare))


def test_leaving_early_ends_the_partner_too(model):
    planned = plan(model, given(CFG, **random_prompt(CFG)))
    before = threading.active_count()
    with Partner(planned, "float64") as partner:
        partner.tensor("pixels")
    assert threading.active_count() == before


def test_what_goes_wrong_in_the_partner_is_raised_here(model):
    question = given(CFG, [[2, 999]])
    planned = plan(model, question)
    with Partner(planned, "float64") as partner, pytest.raises(InputError, match="ids: came in"):
        partner.tensor("ids")


def test_generations_are_not_compared(model):
    with pytest.raises(InputError, match="may choose different tokens"):
        Partner(plan(model, given(CFG, [[2, 5]]), max_new_tokens=2), "float64")


def test_distance_is_relative_and_largest():
    relative, largest = distance(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
    assert (relative, largest) == (0.1, 0.5)
    assert distance(np.zeros(2), np.zeros(2)) == (0.0, 0.0)
