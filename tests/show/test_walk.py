"""The walk: forward, back, and over again; what each stop answers.  A terminal of its own: tests/verbs/test_step.py."""

import re

import numpy as np
import pytest

import npgemma
from npgemma.checkpoints.loading import TINY
from npgemma.generation.requests import Request
from npgemma.show.walk import Walk
from npgemma.tracing.plan import ask, plan

PICTURE = TINY / "pictures" / "2-overlap.png"


@pytest.fixture(scope="module")
def model():
    return npgemma.load()


@pytest.fixture
def walk(model):
    """Walk with some commands, then leave; gives the place of each, and what was shown upon it: (place, text) pairs.

    The first pair is what is shown before any command.
    """

    def walk(*commands, longest=2, until=("*",)):
        question = ask(model, Request(str(PICTURE), "caption en"))
        shown, left = [("", "")], list(commands)

        def read(prompt):
            shown.append((prompt.strip("() "), ""))
            if not left:
                raise EOFError
            return left.pop(0)

        def write(text, style=""):
            shown[-1] = (shown[-1][0], shown[-1][1] + text + "\n")

        Walk(model, question, plan(model, question, max_new_tokens=longest).everything, longest, read, write).go(until)
        return shown

    return walk


def places(shown):
    return [place for place, _ in shown[1:]]


def test_back_goes_to_the_stop_before_and_then_to_the_tensor_before(walk):
    scores, out = "text.blocks.0.attn.scores", "text.blocks.1.out"
    shown = walk(f"n {scores}", f"n {out}", "back", "back", "back", "", "", until=("vision.norm",))
    assert places(shown) == [
        "vision.norm", scores, out, scores, "vision.norm", "vision.blocks.4.out", "vision.norm", "connector.out"
    ]


def test_what_is_shown_after_going_back_is_what_was_shown_before(walk):
    shown = walk("n text.blocks.1.out", "p", "back text.blocks.1.out", "restart", "n text.blocks.1.out", "p")
    pages = [text for place, text in shown if place == "pixels"]
    values, nowhere, _, again, _ = [text for place, text in shown if place == "text.blocks.1.out"]
    assert pages[0] == pages[1] and "text.blocks.1.out = middle" in pages[0]
    assert values == again and len(values) > 100
    assert nowhere == "  no tensor before this one fits 'text.blocks.1.out'\n"


def test_back_by_name_finds_the_last_that_fits_and_restart_begins_at_the_first(walk):
    shown = walk("back vision.blocks.*.out", "back text.*", "restart", "back", until=("text.norm",))
    assert places(shown) == ["text.norm", "vision.blocks.4.out", "vision.blocks.4.out", "pixels", "pixels"]
    assert "no tensor before this one fits 'text.*'" in shown[2][1]
    assert shown[4][1] == "  this is the first tensor\n"


def test_what_lies_behind_has_been_passed_already(walk):
    shown = walk("n pixels", "n text.embedded", "n text.nothing", "n", until=("text.embedded",), longest=0)
    assert shown[1][1] == "  pixels has been passed already: back pixels goes there\n"
    assert shown[2][1] == "  you stand at text.embedded\n"
    assert "ahead of here, 'text.nothing' fits none of" in shown[3][1] and "nearest" in shown[3][1]
    assert "n wants a name" in shown[4][1]


def test_tokens_are_shown_when_they_are_chosen_and_the_answer_at_the_end(walk, model):
    answer = npgemma.generate(model, PICTURE, "caption en", max_new_tokens=2)
    shown = walk("", "t", "n step.0.text.logits", "", "what", "m", "back", until=("text.logits",))
    assert places(shown) == [
        "text.logits", "step.0.ids", "step.0.ids", "step.0.text.logits", "the end", "the end", "the end",
        "step.0.text.logits",
    ]
    first, second = (model.tokenizer.piece(id).replace("\u2581", " ") for id in answer.ids)
    assert f"token 0 of the answer: {first!r}, probability {np.exp(answer.logprobs[0]):.3f}" in shown[1][1]
    assert re.search("suffix +69 +0-68\n", shown[2][1])
    assert f"token 1 of the answer: {second!r}" in shown[4][1]
    assert f"The answer: {answer.text}  (the answer was cut after 2 tokens; --max-tokens lets it go on)" in shown[4][1]
    assert "the run is over: back, back GLOB and restart" in shown[5][1]


def test_an_answer_that_ends_before_a_tensor_is_met_says_so_and_can_be_gone_back_into(walk):
    shown = walk("n step.30.ids", "back step.*.ids", until=("text.logits",), longest=32)
    assert "No tensor that fits step.30.ids came before the end." in shown[1][1]
    assert "The answer: a large brown star" in shown[1][1] and "cut" not in shown[1][1]
    assert places(shown)[2].startswith("step.") and places(shown)[2].endswith(".ids")


def test_p_takes_any_expression_of_the_layers_variables(walk):
    shown = walk(
        "p scores.shape, T", "p np.abs(q).max() > 0", "p npgemma.describe(scores, 'mine')", "p 1 / 0", "p scores[", "p",
        "p model.name", until=("text.blocks.0.attn.scores",), longest=0,
    )
    assert shown[1][1] == "((1, 2, 2, 68, 68), 68)\n"
    assert "True" in shown[2][1]
    assert shown[3][1].startswith("mine  (1 2 2 68 68)  float32")
    assert shown[4][1] == "  ZeroDivisionError: division by zero\n"
    assert "SyntaxError" in shown[5][1]
    assert shown[6][1].startswith("[[[[[")
    assert shown[7][1] == "the model in the box\n"


NO_MASK, LATER = "there is no mask here: every patch looks at every patch", "mask.full is not made yet: n mask.full"
NO_ROW, NO_LENS = "m ROW HEAD is about attention weights", "the lens reads what runs through the decoder's blocks"


@pytest.mark.parametrize(
    "place, mask, row, lens",
    [
        ("pixels", NO_MASK, NO_ROW, NO_LENS),
        ("vision.blocks.0.attn.probs", "where row 63 looks, mean of 6 heads", "where row 1 looks, head 0", NO_LENS),
        ("connector.out", NO_MASK, NO_ROW, NO_LENS),
        ("text.spliced", LATER, NO_ROW, "'"),
        ("mask.full", "mask.full\n", NO_ROW, NO_LENS),
        ("text.cos", "mask.full\n", NO_ROW, NO_LENS),
        ("text.blocks.0.attn.probs", "where row 67 looks, mean of 4 heads", "where row 1 looks, head 0", NO_LENS),
        ("text.blocks.1.middle", "mask.full\n", NO_ROW, "'"),
        ("text.logits", "mask.full\n", NO_ROW, NO_LENS),
    ],
)
def test_each_command_does_its_work_or_says_why_not_at_each_stop(walk, place, mask, row, lens):
    shown = walk("m", "m 1 0", "t", "l", "h", "p", until=(place,), longest=0)
    wanted = [mask, row, "<image> x 64", lens, "restart     from the pixels again", "["]
    assert places(shown) == [place] * 7
    assert all(each in text for each, (_, text) in zip(wanted, shown[1:-1], strict=True)), shown[1:-1]
    assert not any("Error" in text or "no command" in text for _, text in shown)


def test_the_mask_drawn_is_the_one_that_the_block_has(walk):
    shown = walk("m", "n text.blocks.1.attn.scores", "m", "n step.0.text.blocks.0.attn.scores", "m",
                 until=("text.blocks.0.attn.scores",))
    drawn = [text for _, text in shown]
    assert drawn[1].startswith("mask.sliding\n") and drawn[3].startswith("mask.full\n")
    assert len(drawn[1].splitlines()) > 5  # 68 queries; the step has one
    assert len(drawn[5].splitlines()) == 3 and "|" in drawn[5]


def test_all_heads_are_drawn_side_by_side(walk):
    shown = walk("m -1 all", "m 99", "m 1 all 2", until=("text.blocks.0.attn.probs",), longest=0)
    assert all(f"where row 67 looks, head {head}" in shown[1][1] for head in range(4))
    assert shown[1][1].splitlines()[0].count("where row") == 2
    assert "want m ROW HEAD, rows 0..67, heads 0..3 or all" in shown[2][1]
    assert "want m ROW HEAD" in shown[3][1]
