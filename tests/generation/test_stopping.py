"""Text that may be shown, and where it ends."""

import pytest
from generation_models import tokenizer

from npgemma.generation.stopping import AnswerText, overlap


def pieces(text, stop=()):
    """What is shown for each token of a text, and at the end."""
    written = AnswerText(tokenizer(), stop)
    return [*(written.push(token) for token in tokenizer().encode(text, "allow")), written.finish()], written


@pytest.mark.parametrize(
    "text, stop, length",
    (
        ("a cat ;", [" ; dog"], 2),
        ("a cat", [" ; dog"], 0),
        ("aaa", ["aab"], 2),
        ("", ["x"], 0),
        ("x", ["xy", "x and more"], 1),
        ("abc", [], 0),
    ),
)
def test_overlap_is_the_longest_end_that_begins_a_stop_string(text, stop, length):
    assert overlap(text, stop) == length


def test_the_earliest_of_several_stop_strings_counts():
    _, written = pieces("one two three", ["three", "two"])
    assert written.text == "one "
    assert written.stopped


def test_the_earliest_counts_also_where_one_token_brings_several():
    assert len(tokenizer().encode(" cat")) == 1
    _, written = pieces("a cat", ["at", " c"])
    assert written.text == "a"


def test_a_stop_string_may_begin_again_inside_its_own_beginning():
    _, written = pieces("aaab and", ["aab"])
    assert written.text == "a"


def test_a_stop_string_of_a_character_of_several_bytes():
    shown, written = pieces("cat 🙂 dog", ["🙂"])
    assert written.text == "".join(shown) == "cat "
    assert written.stopped


def test_bytes_that_end_an_answer_in_the_middle_of_a_character_are_shown_as_replacement():
    words = tokenizer()
    written = AnswerText(words)
    shown = [written.push(token) for token in words.encode("🙂")[:2]]
    assert shown == ["", ""]
    assert written.finish() == words.decode(words.encode("🙂")[:2])
    assert "\ufffd" in written.text


def test_locations_are_text():
    _, written = pieces("<loc0012> cat")
    assert written.text == "<loc0012> cat"


def test_without_a_tokenizer_there_is_no_text():
    written = AnswerText(None)
    assert written.push(5) == written.finish() == written.text == ""
