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


@pytest.mark.parametrize("kind", CLASSES)
def test_a_pickled_or_copied_error_is_the_same(kind):
    error = kind("came as 0", argument="top_p")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(again), str(again), again.argument) == (kind, str(error), "top_p")
