"""Masks and attention as characters."""

import numpy as np

from npgemma import masks
from npgemma.show.mask_art import draw_attention_row, draw_mask, image_runs, shade


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


def test_patches_are_a_grid_and_tokens_are_bars():
    probs = np.array([0.0, 0.1, 0.1, 0.4, 0.4, 0.0])
    assert draw_attention_row(probs, [True] * 4 + [False] * 2, ["", "", "", "", "<bos>", "cat"]).splitlines() == [
        "keys 0-3, image patches: 0.600 of the attention",
        "  |  ░░|",
        "  |░░██|",
        "    4 <bos>            0.400 ██████████████████████████████",
        "    5 cat              0.000",
    ]


def test_two_pictures_are_two_runs():
    assert image_runs([True, True, False, True, False]) == [(0, 2), (3, 4)]
    assert image_runs([False]) == []


def test_a_large_picture_fits_the_terminal():
    drawn = draw_attention_row(np.full(64 * 64, 1 / 4096), [True] * 4096, [""] * 4096).splitlines()
    assert len(drawn) == 33
    assert all(line == "  |" + "█" * 64 + "|" for line in drawn[1:])


def test_shades():
    assert [shade(part) for part in (0.0, 1e-9, 0.25, 0.5, 0.75, 1.0)] == [" ", "░", "░", "▒", "▓", "█"]
