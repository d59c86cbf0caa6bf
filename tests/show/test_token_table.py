"""The table of tokens."""

import numpy as np
from random_models import GENERATIONS

from npgemma.show.token_table import token_table

CFG = GENERATIONS["paligemma-2"]  # the image token is 40, a window of 3


def test_roles_positions_and_what_each_row_looks_at():
    table = token_table(CFG, None, [0, 40, 40, 2, 7, 9], [0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1], [1, 1, 2, 3, 4, 5])
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["index", "id", "piece", "role", "position", "looks", "at"]
    assert lines[1:6] == [
        ["0", "0", "#0", "padding", "1", "1-4"],
        ["1-2", "40", "<image>", "x", "2", "image", "1-2", "1-4"],
        ["3", "2", "#2", "bos", "3", "1-4"],
        ["4", "7", "#7", "prefix", "4", "1-4"],
        ["5", "9", "#9", "suffix", "5", "1-5"],
    ]
    assert "no more than 3 tokens" in table.splitlines()[-1]


def test_pieces_are_quoted_so_that_a_newline_stays_on_its_line():
    class Tokenizer:
        vocab_size = 10

        def piece(self, token):
            return {2: "<bos>", 5: "\u2581cat", 6: "\n"}[token]

    table = token_table(CFG, Tokenizer(), *np.array([[2, 5, 6, 42], [0] * 4, [1] * 4, [1, 2, 3, 4]]))
    assert [line.split()[2] for line in table.splitlines()[1:3]] == ["<bos>", "'"]
    assert "' cat'" in table and r"'\n'" in table and "#42" in table
    assert len(table.splitlines()) == 6
