"""Errors carry what they are about, and survive a copy."""

import copy
import inspect
import pickle

import pytest

from npgemma.base import errors

CLASSES = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.NpgemmaError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_the_message_begins_with_the_argument_if_there_is_one(kind):
    assert str(kind("came as 0")) == "came as 0" and kind("came as 0").argument is None
    error = kind("came as 0", argument="top_p")
    assert str(error) == "top_p: came as 0" and error.argument == "top_p"
    assert error.naming("--top-p") == "--top-p: came as 0"


def test_a_message_of_megabytes_keeps_its_place_and_its_advice():
    said = str(errors.ConfigError(f"config.json: size is {'x' * 10**6}; want a number"))
    assert len(said) <= 2401 and said.startswith("config.json: size is x") and said.endswith("x; want a number")
    assert str(errors.ConfigError("x" * 2400)) == "x" * 2400


@pytest.mark.parametrize("kind", CLASSES)
def test_a_pickled_or_copied_error_is_the_same(kind):
    error = kind("came as 0", argument="top_p")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), str(again), again.argument) == (kind, str(error), "top_p")
