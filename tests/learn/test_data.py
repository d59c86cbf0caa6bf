"""Examples: each bad line is named before the first step, and the examples of a step follow from its number."""

from dataclasses import replace

import numpy as np
import pytest
from lessons import ROWS, write_lessons

from npgemma import load
from npgemma.base.errors import InputError
from npgemma.learn.data import batch_of, drawn, encode, read_examples, split
from npgemma.learn.losses import IGNORED
from npgemma.learn.teaching import check_batch


@pytest.fixture(scope="module")
def model():
    return load()


def test_examples_are_read_and_pictures_found_beside_the_file(model, tmp_path):
    examples = read_examples(write_lessons(tmp_path), model)
    assert [example.prefix for example in examples] == [row["prefix"] for row in ROWS]
    assert examples[2].image == str(tmp_path / "3-number.png")


def test_only_the_answer_and_its_end_are_labelled(model, tmp_path):
    [example, *_] = read_examples(write_lessons(tmp_path), model)
    prefix, suffix, _ = encode(model, example)
    batch = batch_of(model, [example])
    labelled = batch.labels[0] != IGNORED
    assert batch.labels[0][labelled].tolist() == [*model.tokenizer.encode("red, blue"), model.tokenizer.eos]
    assert np.flatnonzero(labelled)[0] == len(prefix) - 1
    assert batch.ids[0].tolist() == [*prefix, *suffix[:-1]]
    assert batch.token_types[0].tolist() == [0] * len(prefix) + [1] * (len(suffix) - 1)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prefix": "x", "suffix": "y"}, "line 2: 'image' is missing; want a text"),
        ({"image": "none.png", "prefix": "x", "suffix": "y"}, "line 2: .*none.png"),
        ({"image": "data.jsonl", "prefix": "x", "suffix": "y"}, "line 2: .*data.jsonl"),
        ({"image": "1-word.png", "prefix": "x", "suffix": " "}, "line 2: 'suffix' is empty"),
        ({"image": "", "prefix": "x", "suffix": "y"}, "line 2: 'image' is empty"),
        ({"image": "1-word.png", "prefix": "word " * 200, "suffix": "y"}, "line 2: .*the model has 256 positions"),
        ({"image": "1-word.png", "prefix": "x", "suffix": "y " * 200}, "line 2: prompt and answer take .* has 256"),
        ({"image": "1-word.png", "prefix": 3, "suffix": "y"}, "line 2: 'prefix' is 3; want a text"),
        ({"image": "1-word.png", "prefix": "x", "suffix": "y", "labl": 1}, "line 2: unknown field 'labl'"),
        ('{"image": "1-word.png",', "line 2: JSON: not JSON at character"),
        ("[1]", "line 2: JSON: holds a JSON list"),
    ],
)
def test_a_bad_line_is_named(model, tmp_path, row, said):
    with pytest.raises(InputError, match=f"1 of 2 lines are bad; {said}"):
        read_examples(write_lessons(tmp_path, [ROWS[0], row]), model)


def test_all_bad_lines_are_named_at_once_and_many_are_counted(model, tmp_path):
    with pytest.raises(InputError, match="25 of 26 lines are bad; line 2: .*line 21: .*and 5 more"):
        read_examples(write_lessons(tmp_path, [ROWS[0], *[{"prefix": "x"}] * 25]), model)


def test_a_model_without_a_tokenizer_cannot_be_taught_words(model, tmp_path):
    [example, *_] = read_examples(write_lessons(tmp_path), model)
    with pytest.raises(InputError, match="the model has no tokenizer; give a folder that has one"):
        encode(replace(model, tokenizer=None), example)


def test_labels_stand_at_real_tokens(model, tmp_path):
    batch = batch_of(model, read_examples(write_lessons(tmp_path), model)[:2])
    check_batch(batch, model)
    with pytest.raises(InputError, match="labels: one stands at padding; want labels at real tokens only"):
        check_batch(replace(batch, labels=np.full_like(batch.labels, 5)), model)


def test_a_file_without_examples_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="holds no examples; want lines of"):
        read_examples(write_lessons(tmp_path, []), model)


def test_each_example_comes_once_an_epoch_in_an_order_of_its_own():
    examples = list(range(10))
    first, second = ([drawn(examples, step, 5, seed=3) for step in steps] for steps in ((0, 1), (2, 3)))
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == examples
    assert first != second and first[1] == drawn(examples, 1, 5, seed=3) != drawn(examples, 1, 5, seed=4)


def test_held_out_examples_are_never_learnt_from():
    taught, judged = split(list(range(10)), 3, seed=0)
    assert len(judged) == 3 and sorted(taught + judged) == list(range(10))
    with pytest.raises(InputError, match="held_out: came as 10 of 10 examples; leave some"):
        split(list(range(10)), 10, seed=0)
