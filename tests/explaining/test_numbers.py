"""Every sentence with a number, against a whole trace of the same question: tests/expected_*.py say what it must be."""

import re
from dataclasses import replace

import expected_choosing
import expected_reading
import expected_seeing
import pytest
from explained import CASES, facts
from PIL import Image

from npgemma.base.describe import describe
from npgemma.explaining import seeing

# For each panel, what each of its numbers must be.
EXPECTED = {**expected_seeing.EXPECTED, **expected_reading.EXPECTED, **expected_choosing.EXPECTED}


def close(came, wanted):
    """Equal, but for the roundings of sums that were added in another order."""
    if isinstance(wanted, str) or isinstance(came, str):
        return came == wanted
    return came == pytest.approx(wanted, rel=2e-4, abs=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_number_in_a_sentence_is_the_trace_s(case):
    f = facts(case)
    for key, panel in f.panels.items():
        for sentence in panel.sentences():
            for name, came in sentence.numbers.items():
                wanted = EXPECTED[key][name](f)
                assert close(came, wanted), f"{key}: {name} is {came}, want {wanted}, in: {sentence}"


def test_every_expectation_is_used():
    said = {(key, name) for case in CASES for key, panel in facts(case).panels.items()
            for sentence in panel.sentences() for name in sentence.numbers}
    assert said == {(key, name) for key, names in EXPECTED.items() for name in names}


@pytest.mark.parametrize("case", CASES)
def test_no_number_is_typed(case):
    for panel in facts(case).panels.values():
        for sentence in panel.sentences():
            words = re.sub(r"\{[^}]*\}|`[^`]*`", "", sentence.template)
            assert not re.search(r"\d", words), sentence.template


@pytest.mark.parametrize("case", CASES)
def test_lines_under_drawings_are_of_the_whole_tensors(case):
    f = facts(case)
    axes = f.whole.manifest["axes"]
    lines = {describe(array, name, axes[name]) for name, array in f.whole.items() if not name.startswith("step.")}
    drawn = [figure.line for panel in f.panels.values() for figure in panel.figures if figure.line]
    assert len(drawn) > 5
    assert set(drawn) <= lines


def test_a_picture_that_is_no_square_is_as_wide_and_as_tall_as_it_is():
    run = facts("caption").run
    tall = replace(run, kept=replace(run.kept, picture=Image.new("RGB", (7, 30))))
    assert "Your picture has 7 × 30 pixels." in str(seeing.patches(tall).text[0])
