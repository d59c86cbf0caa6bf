"""Masks and attention as characters."""

import numpy as np
import pytest

from npgemma import masks
from npgemma.base.errors import InputError
from npgemma.show.mask_art import beside, draw_attention_row, draw_mask, grid, image_runs, shade


def test_a_prefix_of_three_and_a_suffix_of_two():
    mask = masks.prefix_lm(np.array([[0, 0, 0, 1, 1]]), np.ones((1, 5)), 5)[0]
    assert draw_mask(mask).splitlines() == [
        "        0 |███  |",
        "        1 |███  |",
        "        2 |███  |",
        "        3 |████ |",
        "        4 |█████|",
        "     keys  0 to 4",
    ]


def test_a_large_mask_is_drawn_coarser_and_still_shows_what_is_rare():
    mask = np.zeros((48, 128), dtype=bool)
    mask[0, 0] = True
    mask[46:, 126:] = True
    lines = draw_mask(mask).splitlines()
    assert len(lines) == 25
    assert lines[0] == "      0-1 |" + "░" + " " * 63 + "|"
    assert lines[23] == "    46-47 |" + " " * 63 + "█" + "|"
    assert lines[24].endswith("0 to 127, 2 a character")


def test_a_mask_as_a_layer_has_it_is_drawn_and_of_a_batch_each_row():
    masks_of_two = np.array([[[True, False], [True, True]], [[True, True], [False, True]]])
    assert draw_mask(masks_of_two[:1]) == draw_mask(masks_of_two[0])
    assert draw_mask(masks_of_two).splitlines() == [
        "row 0 of the batch",
        "        0 |█ |",
        "        1 |██|",
        "     keys  0 to 1",
        "row 1 of the batch",
        "        0 |██|",
        "        1 | █|",
        "     keys  0 to 1",
    ]


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((2, 2, 2, 2)), np.ones((0, 3)), np.array([["a", "b"]])])
def test_what_is_no_mask_is_refused_in_a_sentence(wrong):
    with pytest.raises(InputError, match="mask: came as .*; want booleans"):
        draw_mask(wrong)


def test_patches_are_a_grid_and_tokens_are_bars():
    probs = np.array([0.0, 0.1, 0.1, 0.2, 0.4, 0.2])
    assert draw_attention_row(probs, [True] * 4 + [False] * 2, ["", "", "", "", "<bos>", "cat"]).splitlines() == [
        "keys 0-3, image patches: 0.400 of the attention,",
        "each from 0 ░ to 0.2 █",
        "  |  ▒▒|",
        "  |▒▒██|",
        "    4 <bos>            0.400 ██████████████████████████████",
        "    5 cat              0.200 ███████████████",
    ]


def test_a_grid_is_shaded_within_its_own_range_however_little_of_the_attention_it_has():
    patches = np.array([0.010, 0.011, 0.012, 0.014])
    drawn = draw_attention_row([*patches, 0.953], [True] * 4 + [False], [""] * 4 + ["<bos>"]).splitlines()
    assert drawn[:4] == [
        "keys 0-3, image patches: 0.047 of the attention,",
        "each from 0.01 ░ to 0.014 █",
        "  |░░░░|",
        "  |▒▒██|",
    ]


def test_two_pictures_have_a_range_each():
    drawn = draw_attention_row([0.4, 0.5, 0.04, 0.06], [True, True, False, True], ["", "", "and", ""]).splitlines()
    assert [line for line in drawn if line.startswith("  |")] == ["  |░░██|", "  |██|"]


def test_zero_is_drawn_as_zero_and_nothing_else_is():
    assert grid(np.array([0.0, 1e-12, 0.5, 1.0])) == ["  |  ░░|", "  |▒▒██|"]
    assert grid(np.zeros(4)) == ["  |    |", "  |    |"]


def test_drawings_stand_side_by_side_as_far_as_the_line_goes():
    assert beside(["head 0\n|ab|", "head 1\n|cd|", "head 2"], width=14).splitlines() == [
        "head 0  head 1",
        "|ab|    |cd|",
        "head 2",
    ]


def test_two_pictures_are_two_runs():
    assert image_runs([True, True, False, True, False]) == [(0, 2), (3, 4)]
    assert image_runs([False]) == []


def test_a_large_picture_fits_the_terminal():
    drawn = draw_attention_row(np.full(64 * 64, 1 / 4096), [True] * 4096, [""] * 4096).splitlines()
    assert len(drawn) == 34
    assert all(line == "  |" + "█" * 64 + "|" for line in drawn[2:])


def test_shades():
    assert [shade(part) for part in (0.0, 1e-9, 0.25, 0.5, 0.75, 1.0)] == [" ", "░", "░", "▒", "▓", "█"]
