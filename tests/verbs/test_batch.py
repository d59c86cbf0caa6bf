"""npgemma generate --batch: in order, a line each, and not twice."""

import json
import os
import resource
from dataclasses import replace

import numpy as np
import pytest
from generation_models import saying, wordy_model
from PIL import Image

from npgemma import cli
from npgemma.files.writer import growing
from npgemma.verbs import batch_file, options


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two pictures, in which the command runs; the model is small and random."""
    for name, step in (("a.png", 3), ("b.png", 7)):
        Image.fromarray((np.arange(300).reshape(10, 10, 3) * step % 251).astype(np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "load", lambda *args, **kwargs: wordy_model())
    return tmp_path


def write(path, *lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))


def run(*words):
    return cli.main(["generate", "--model", "some", "--max-tokens", "4", *words])


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


QUESTIONS = (
    {"image": "a.png", "prompt": "caption en", "id": "first"},
    {"image": ["a.png", "b.png"], "prompt": "what"},
    {"prompt": "cat"},
    {"ids": [2, 30, 40]},
    {"image": "b.png", "prompt": "a much longer prompt than the others have"},
)


def test_answers_come_in_order_with_what_was_asked(folder, capsys):
    write(folder / "q.jsonl", *QUESTIONS)
    assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 0
    answers = read(folder / "a.jsonl")
    assert [answer["line"] for answer in answers] == [1, 2, 3, 4, 5]
    for answer, question in zip(answers, QUESTIONS, strict=True):
        assert answer["question"] == question
        assert len(answer["logprobs"]) == len(answer["ids"]) > 0
        assert answer["finish_reason"] in ("stop", "length")


def test_side_by_side_and_one_by_one_give_the_same_answers(folder):
    write(folder / "q.jsonl", *QUESTIONS)
    for size in ("1", "2", "5"):
        run("--batch", "q.jsonl", "-o", f"{size}.jsonl", "--batch-size", size)
    one, two, five = ([answer["ids"] for answer in read(folder / f"{size}.jsonl")] for size in (1, 2, 5))
    assert one == two == five


def test_without_output_the_lines_go_to_stdout(folder, capsys):
    write(folder / "q.jsonl", *QUESTIONS[:2], "\n", QUESTIONS[2])
    assert run("--batch", "q.jsonl") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["line"] for answer in lines] == [1, 2, 4]


def test_a_bad_line_spoils_no_other_and_says_what_is_wrong(folder, capsys):
    bad = (
        "this is no JSON\n",
        "[1, 2]\n",
        {"image": "nowhere.png", "prompt": "x"},
        {"image": 5, "prompt": "x"},
        {"image": "-", "prompt": "x"},
        {"prompt": 5},
        {"ids": "2,3"},
        {"ids": [2, 99999]},
        {"prompt": "<loc0001>"},
        {"prompt": "cat " * 600},
        {"prompt": "x", "ids": [2]},
    )
    lines = [line for each in bad for line in (each, {"prompt": "cat"})]
    write(folder / "q.jsonl", *lines)
    assert run("--batch", "q.jsonl", "-o", "a.jsonl", "--batch-size", "3") == 1
    answers = read(folder / "a.jsonl")
    assert [("error" in answer) for answer in answers] == [True, False] * len(bad)
    assert len({tuple(answer["ids"]) for answer in answers[1::2]}) == 1
    wanted = (
        "not JSON|a JSON list|no such file|want the path|standard input|want one str|ids|99999|<loc0001>|512|both given"
    )
    for answer, words in zip(answers[::2], wanted.split("|"), strict=True):
        assert words in answer["error"], answer
    assert "11 of 22 lines could not be answered" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_where_it_ended_and_repeats_nothing(folder, monkeypatch):
    write(folder / "q.jsonl", *QUESTIONS)
    run("--batch", "q.jsonl", "-o", "whole.jsonl", "--batch-size", "1")
    asked = []
    answer_all = batch_file.generate_batch

    def interrupted(model, requests, **settings):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.extend(requests)
        return answer_all(model, requests, **settings)

    monkeypatch.setattr(batch_file, "generate_batch", interrupted)
    assert run("--batch", "q.jsonl", "-o", "a.jsonl", "--batch-size", "1") == 130
    assert len(read(folder / "a.jsonl")) == 3
    # The machine lost power while the fourth line was written.
    with (folder / "a.jsonl").open("a") as file:
        file.write('{"line": 4, "ids": [')
    asked.clear()
    assert run("--batch", "q.jsonl", "-o", "a.jsonl", "--batch-size", "1") == 0
    assert len(asked) == 2
    assert read(folder / "a.jsonl") == read(folder / "whole.jsonl")


def test_a_finished_run_does_nothing_again(folder, monkeypatch, capsys):
    write(folder / "q.jsonl", *QUESTIONS)
    run("--batch", "q.jsonl", "-o", "a.jsonl")
    assert "npgemma: note: written to a.jsonl\n" in capsys.readouterr().err
    before = (folder / "a.jsonl").read_bytes()
    monkeypatch.setattr(batch_file, "generate_batch", None)
    assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 0
    assert capsys.readouterr().err == "npgemma: note: a.jsonl holds every answer already\n"
    assert (folder / "a.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "words, message",
    (
        (["--batch", "other.jsonl", "-o", "a.jsonl"], "does not answer line 1"),
        (["--batch", "q.jsonl", "-o", "a.jsonl", "--temperature", "0.5"], "another model or other settings"),
        (["--batch", "short.jsonl", "-o", "a.jsonl"], "holds 5 answers to 1 questions"),
        (["--batch", "q.jsonl", "-o", "text.jsonl"], "holds something else than answers of --batch"),
        (["--batch", "q.jsonl", "-o", "text.txt"], "text.txt: answers are written as lines of JSON; want a name"),
        (["--batch", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["a.png", "--batch", "q.jsonl"], "leave out image"),
        (["--batch", "q.jsonl", "--draw", "x.png"], "leave out draw"),
        (["--batch", "q.jsonl", "--batch-size", "0"], "--batch-size: came as 0"),
    ),
)
def test_outputs_of_other_runs_are_left_alone(folder, capsys, words, message):
    write(folder / "q.jsonl", *QUESTIONS)
    write(folder / "other.jsonl", *reversed(QUESTIONS))
    write(folder / "short.jsonl", QUESTIONS[0])
    for name in ("text.txt", "text.jsonl"):
        (folder / name).write_text("my notes\n")
    run("--batch", "q.jsonl", "-o", "a.jsonl")
    before = (folder / "a.jsonl").read_bytes()
    capsys.readouterr()
    assert run(*words) == 1
    assert message in capsys.readouterr().err
    assert (folder / "a.jsonl").read_bytes() == before
    assert (folder / "text.txt").read_text() == (folder / "text.jsonl").read_text() == "my notes\n"


def test_answers_to_prompts_about_one_picture_are_right(folder, monkeypatch):
    monkeypatch.setattr(options, "load", lambda *args, **kwargs: saying("red", "a dog"))
    write(folder / "q.jsonl", {"image": "a.png", "prompt": "x"}, {"image": "a.png", "prompt": "much longer"})
    cli.main(["generate", "--model", "some", "--batch", "q.jsonl", "-o", "a.jsonl"])
    assert read(folder / "a.jsonl")[0]["text"] == "red"


def test_a_file_looks_at_each_picture_once_and_says_what_that_saved(folder, capsys):
    write(folder / "q.jsonl", *[{"image": f"{name}.png", "prompt": "x"} for name in "abababa"])
    assert run("--batch", "q.jsonl", "-o", "a.jsonl", "--batch-size", "2") == 0
    assert "the vision tower ran 2 times for 7 pictures, which saved about " in capsys.readouterr().err
    write(folder / "q.jsonl", {"image": "a.png", "prompt": "x"})
    run("--batch", "q.jsonl", "-o", "b.jsonl")
    assert "tower" not in capsys.readouterr().err


def test_lines_that_failed_are_tried_again_in_their_places(folder, monkeypatch):
    lines = ({"image": "late.png", "prompt": "cat"}, {"prompt": "dog"}, "no JSON\n", {"prompt": "a cat"})
    write(folder / "q.jsonl", *lines)
    assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 1
    before = read(folder / "a.jsonl")
    assert ["error" in line for line in before] == [True, False, True, False]
    assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 1
    assert read(folder / "a.jsonl") == before
    # The picture has come, and the broken line was put right; the sound lines are not answered again.
    Image.new("RGB", (9, 9)).save(folder / "late.png")
    write(folder / "q.jsonl", lines[0], lines[1], {"prompt": "right"}, lines[3])
    asked, answer_all = [], batch_file.generate_batch
    monkeypatch.setattr(batch_file, "generate_batch", lambda m, r, **s: asked.extend(r) or answer_all(m, r, **s))
    assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 0
    after = read(folder / "a.jsonl")
    assert [request.prompt for request in asked] == ["cat", "right"]
    assert [line["line"] for line in after] == [1, 2, 3, 4] and not any("error" in line for line in after)
    assert (after[1], after[3]) == (before[1], before[3])


def test_a_slip_in_a_key_is_said_and_a_line_without_a_question_is_refused(folder, capsys):
    write(folder / "q.jsonl", {"img": "a.png", "prompt": "cat", "id": 5}, {"question": "what"})
    assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 1
    assert "line 1: the key 'img' is not read; is 'image' meant?" in capsys.readouterr().err
    assert "has none of the keys image, prompt, ids" in read(folder / "a.jsonl")[1]["error"]


def test_a_file_without_questions_says_so(folder, capsys):
    write(folder / "q.jsonl", "\n")
    assert run("--batch", "q.jsonl") == 0
    assert "q.jsonl: holds no questions" in capsys.readouterr().err


@pytest.mark.parametrize("data", [b'{"model_type":"paligemma"}', b"notes", b'{"run": "x"}', b"\0\1", b'{"line": 1,'])
def test_a_file_that_is_not_its_own_is_never_touched(folder, capsys, data):
    write(folder / "q.jsonl", *QUESTIONS)
    (folder / "config.jsonl").write_bytes(data)
    assert run("--batch", "q.jsonl", "-o", "config.jsonl") == 1
    assert "config.jsonl: holds something else than answers of --batch; choose another" in capsys.readouterr().err
    assert (folder / "config.jsonl").read_bytes() == data


def test_the_questions_themselves_are_never_the_output(folder, capsys):
    (folder / "q.jsonl").write_text('{"prompt": "cat"}')  # a single line without its end
    assert run("--batch", "q.jsonl", "-o", "q.jsonl") == 1
    assert "q.jsonl: holds the questions, which would be lost" in capsys.readouterr().err
    assert (folder / "q.jsonl").read_text() == '{"prompt": "cat"}'


def test_two_processes_on_one_output_are_refused(folder, capsys):
    write(folder / "q.jsonl", *QUESTIONS)
    with growing(folder / "a.jsonl"):
        assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 1
    assert "a.jsonl: another process is writing it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    (
        ["--resample", "nearest"], ["--background", "red"], ["--exif"], ["--sixteen-bit", "scale"], ["--frame", "0"],
        ["--max-pixels", "999"], ["--dtype", "bfloat16"], ["--allow-specials"], ["--stop", "x"], ["--suppress-id", "9"],
        ["--min-tokens", "1"], ["--repetition-penalty", "1.5"], ["--seed", "3"], ["--beams", "2"], ["--boxes-only"],
    ),
    ids=lambda words: words[0],
)
def test_whatever_changes_an_answer_is_in_the_mark(folder, capsys, words):
    write(folder / "q.jsonl", QUESTIONS[2])
    run("--batch", "q.jsonl", "-o", "a.jsonl")
    before = (folder / "a.jsonl").read_bytes()
    code = run("--batch", "q.jsonl", "-o", "a.jsonl", *words)
    same = words == ["--frame", "0"]  # what is the default changes nothing
    assert (code == 0) == same and (folder / "a.jsonl").read_bytes() == before
    assert same or "was made by another model or other settings" in capsys.readouterr().err


def test_a_model_that_was_trained_on_under_the_same_name_is_another(folder, monkeypatch, capsys):
    write(folder / "q.jsonl", QUESTIONS[2])
    run("--batch", "q.jsonl", "-o", "a.jsonl")
    model = wordy_model()
    arrays = {name: array * np.float32(1.001) for name, array in model.weights.arrays.items()}
    trained = replace(model, weights=replace(model.weights, arrays=arrays))
    monkeypatch.setattr(options, "load", lambda *args, **kwargs: trained)
    assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 1
    assert "was made by another model or other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, message",
    (
        ('{"prompt": "a", "prompt": "b"}', "this line: the key 'prompt' occurs twice"),
        (r'{"prompt": "x", "\ud800": 1}', "half of a surrogate pair"),
        (r'{"prompt": "\udc00"}', "half of a surrogate pair"),
        ('{"prompt": "x", "more": ' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ('{"prompt": "x", "more": ' + "[" * 100_000, "nested too deeply"),
        ('{"prompt": "x", "more": NaN}', "has the number NaN"),
        ('{"ids": [9223372036854775808]}', "ids: came with id 9223372036854775808"),
        ('{"ids": [2, -1]}', "ids: came as -1"),
        ('{"ids": [' + "9" * 400 + "]}", "at most 300 digits"),
        ('{"image": [], "prompt": "x"}', "without a picture"),
        ('{"image": "/dev/zero", "prompt": "x"}', "is a pipe or a device"),
        ('{"image": "a\\u0000b", "prompt": "x"}', "null byte"),
        ('{"image": "' + "x" * 300 + '", "prompt": "x"}', "File name too long"),
        ('\ufeff{"prompt": "x"}', "this line: not JSON"),
    ),
)
def test_one_bad_line_ends_no_batch(folder, line, message):
    (folder / "q.jsonl").write_text(json.dumps({"prompt": "cat"}) + "\n" + line + "\n" + json.dumps({"prompt": "cat"}))
    assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 1
    first, bad, last = read(folder / "a.jsonl")
    assert message in bad["error"] and len(bad["error"]) < 500
    assert first["ids"] == last["ids"] and [first["line"], bad["line"], last["line"]] == [1, 2, 3]


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", "."])
def test_row_40_questions_are_a_file(folder, capsys, name):
    os.mkfifo(folder / "pipe")
    assert run("--batch", name) == 1
    assert "want a regular file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["/dev/null", "pipe", "."])
def test_row_40_answers_are_a_file(folder, capsys, name):
    os.mkfifo(folder / "pipe")
    write(folder / "q.jsonl", QUESTIONS[2])
    assert run("--batch", "q.jsonl", "-o", name) == 1
    assert "cannot be written" in (err := capsys.readouterr().err) or "is no regular file" in err


def test_row_84_a_full_disk_names_the_file_and_keeps_whole_lines(folder, capsys):
    write(folder / "q.jsonl", *QUESTIONS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (800, limits[1]))
    try:
        code = run("--batch", "q.jsonl", "-o", "a.jsonl", "--batch-size", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1 and "a.jsonl: cannot be written: File too large" in capsys.readouterr().err
    assert [line["line"] for line in read(folder / "a.jsonl")] == [1, 2][: len(read(folder / "a.jsonl"))]
    assert run("--batch", "q.jsonl", "-o", "a.jsonl") == 0
    assert [line["line"] for line in read(folder / "a.jsonl")] == [1, 2, 3, 4, 5]
