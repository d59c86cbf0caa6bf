"""What the fuzzer found, read again: each ends in a right result or in an error of ours."""

from pathlib import Path

import pytest
from fuzzed import TARGETS, outcome

FOUND = sorted((Path(__file__).parent / "found").glob("*-*"))


@pytest.mark.parametrize("name", TARGETS)
def test_valid_examples_are_accepted(tmp_path, name):
    target = TARGETS[name]
    target.prepare(tmp_path)
    assert {outcome(target, tmp_path, example) for example in target.examples()[:1]} == {"accepted"}


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_was_found_is_mended(tmp_path, path):
    target = TARGETS[path.name.rpartition("-")[0]]
    target.prepare(tmp_path)
    assert outcome(target, tmp_path, path.read_bytes()) in ("accepted", "refused")
