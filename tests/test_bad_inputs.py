"""The table of bad inputs, row by row: what may be wrong with an input, and the tests that hold what is said of it.

A test names its row: ``test_row_12_…``, ``test_rows_35_and_36_…``.  Each is one or more named cases that assert the
message, or the result where the row is no fault.
"""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent

ROWS = {
    1: "an empty file",
    2: "less than eight bytes",
    3: "a header beyond 100,000,000 bytes",
    4: "a Git-LFS pointer",
    5: "an HTML page saved as weights",
    6: "a pickle, .bin or .pt",
    7: "zip, npz, gzip or GGUF given as safetensors",
    8: "truncated data",
    9: "trailing bytes",
    10: "a header that is no UTF-8, no JSON, no object",
    12: "a tensor twice",
    14: "overlapping offsets, holes, a wrong start or end",
    15: "negative or broken offsets and sizes",
    16: "a shape that does not fit its bytes",
    17: "an unknown dtype",
    18: "bfloat16, which is read",
    19: "float16 that holds infinities",
    20: "NaN and infinities",
    21: "strange tensor names",
    23: "missing tensors",
    24: "unexpected tensors",
    25: "a shape against the configuration",
    26: "a transposed weight",
    28: "adapters and quantised files",
    30: "other families",
    31: "big_vision's npz",
    32: "an index that names paths",
    33: "an index at odds with its shards",
    35: "a key twice in JSON",
    36: "a broken config.json",
    38: "code named by a configuration",
    39: "links",
    40: "folders, pipes and devices in a file's place; nothing is written to a model's folder",
    41: "a file cut or replaced while mapped",
    42: "too little memory",
    43: "object arrays and npz",
    44: "golden packs",
    45: "no picture",
    46: "truncated pictures",
    47: "a bomb",
    48: "a picture above the limit",
    49: "16-bit grey",
    51: "transparent pixels",
    52: "palettes and grey with transparency",
    53: "CMYK",
    54: "EXIF orientation",
    55: "a colour profile",
    56: "animations",
    57: "one bit, palette, grey, which pass",
    59: "other formats",
    60: "arrays of another kind",
    62: "the resize",
    63: "an empty prompt",
    64: "spaces, and the last newline",
    65: "a newline inside",
    66: "<image> typed by a user",
    67: "<loc0512> and <seg001> typed by a user",
    69: "half of a surrogate pair",
    70: "unusual characters, which pass",
    71: "what is no text",
    73: "more than the context",
    74: "a very long text",
    75: "a broken tokenizer",
    76: "the tokenizer of another model",
    78: "settings out of range",
    79: "an answer without a stop",
    80: "image tokens without their pictures",
    81: "a batch of different lengths",
    84: "Ctrl-C, a closed pipe, a full disk",
    85: "weights that a caller changes",
    86: "big-endian machines, 32-bit Python",
    87: "a NumPy scalar that promotes float32",
    88: "host arrays on a device",
}


def rows_of(name):
    """The rows that a test's name tells."""
    numbers = re.match(r"test_rows?_((?:\d+_(?:and_|to_)?)+)", name)
    found = [int(number) for number in re.findall(r"\d+", numbers[1])] if numbers else []
    if numbers and "_to_" in numbers[1]:
        found = list(range(found[0], found[-1] + 1))
    return found if name.startswith("test_rows") else found[:1]


def by_row():
    """The tests that name each row."""
    found = {}
    for path in sorted(HERE.rglob("test_*.py")):
        for name in re.findall(r"^def (test_rows?_\d\w*)\(", path.read_text(), re.MULTILINE):
            for row in rows_of(name):
                found.setdefault(row, []).append(f"{path.relative_to(HERE)}::{name}")
    return found


TESTS = by_row()


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_its_tests(row):
    assert TESTS.get(row), f"no test of row {row}: {ROWS[row]}"


def test_each_test_of_a_row_has_a_row():
    assert set(TESTS) == set(ROWS)


def test_a_name_tells_its_rows():
    assert rows_of("test_row_12_a_tensor_of_8_bits") == [12]
    assert rows_of("test_rows_35_and_36_broken_json") == [35, 36]
    assert rows_of("test_rows_1_to_3_broken") == [1, 2, 3]
