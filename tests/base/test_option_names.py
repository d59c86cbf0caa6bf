"""Names from elsewhere, shown once; slips of the pen are met with the name that was meant."""

import json

import pytest
from generation_models import saying, tokenizer

from npgemma import cli
from npgemma.base.option_names import OTHER_NAMES, dashed
from npgemma.verbs import options

# What users of transformers, llama.cpp and peft write, beside what it is here.
SAME = {
    "generate": [
        ("--max-new-tokens 3", "--max-tokens 3"), ("--n-predict 3", "--max-tokens 3"), ("--num-beams 2", "--beams 2"),
        ("--beam-size 4", "--beams 4"), ("--beam_width 4", "--beams 4"),
        ("--temp 0.5", "--temperature 0.5"), ("--num-beams 2 --num-return-sequences 2", "--beams 2 -n 2"),
        ("--repeat-penalty 2", "--repetition-penalty 2"), ("-s 4", "--seed 4"), ("-m x", "--model x"),
        ("--max_new_tokens=3", "--max-tokens 3"), ("--torch_dtype bf16", "--dtype bfloat16"),
        ("--min-new-tokens 2", "--min-tokens 2"), ("--stop-strings a", "--stop a"), ("--eos_token_id 7", "--stop-id 7"),
        ("--suppress_tokens 7", "--suppress-id 7"), ("-p ocr", "ocr"), ("a.png --prompt ocr", "a.png ocr"),
        ("-t 2", "--threads 2"), ("--dtype fp32", "--dtype float32"),
    ],
    "trace": [("-m x --max_new_tokens 2", "--model x --max-tokens 2"), ("--output-file x.npz", "-o x.npz")],
    "finetune": [
        ("d --output-dir o --lora-rank 4 --lora_alpha 8 --lr 1e-3", "d -o o --lora 4 --alpha 8 --rate 1e-3"),
        ("d -o o --max-steps 9 --batch-size 2 --warmup-steps 1", "d -o o --steps 9 --batch 2 --warm-up 1"),
        ("d -o o --weight-decay .1 --max-grad-norm 2 --target-modules a", "d -o o --decay .1 --clip 2 --on a"),
        ("d -o o --logging-steps 3 --save_steps 4", "d -o o --every 3 --save-every 4"),
        ("d -o o --num_train_epochs 3", "d -o o --epochs 3"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def parsers():
    return cli.build_parser(SAME)[1]


@pytest.mark.parametrize("verb, elsewhere, here", [(verb, *pair) for verb, pairs in SAME.items() for pair in pairs])
def test_a_name_from_elsewhere_means_the_same(parsers, verb, elsewhere, here):
    came, wanted = (vars(parsers[verb].parse_args(dashed(line.split()))) for line in (elsewhere, here))
    if "ocr" in here:  # words and options of one request
        came, wanted = (options.request_of(parsers[verb].parse_args([*line.split(), "--no-image"])) if "png" not in line
                        else options.pictures_and_prompt(parsers[verb].parse_args(line.split()))
                        for line in (elsewhere, here))
    assert came == wanted


def test_every_other_name_stands_once_in_a_help_and_in_no_line_of_its_own(parsers):
    helps = {verb: parser.format_help().split("as elsewhere: ") for verb, parser in parsers.items()}
    for ours, others in OTHER_NAMES.items():
        for name in others:
            told = [end.split().count(f"{name},") + end.split().count(name) for _, end in helps.values()]
            assert max(told) == 1 or name == "--batch-size", (ours, name, told)
            lines = [lines.split("options:")[1] for lines, _ in helps.values()]
            assert name == "--batch-size" or not any(f"{name} " in each for each in lines)


def test_the_help_tells_the_names_that_people_know(parsers):
    told = " ".join(parsers["generate"].format_help().split())
    for same in ("--max-new-tokens, --n-predict, --predict = --max-tokens", "--temp = --temperature",
                 "--num-beams, --beam-size, --beam-width = --beams"):
        assert same in told


@pytest.mark.parametrize("half, whole", [("--max-token", "--max-tokens"), ("--num-beam", "--num-beams")])
def test_half_a_name_is_no_name_but_a_hint(half, whole, capsys):
    assert cli.main(["generate", "a.png", "cat", half, "3"]) == 1
    assert f"unknown arguments: {half} 3; is {whole} meant?" in capsys.readouterr().err


def test_a_verb_s_own_name_counts(parsers):
    assert parsers["generate"].parse_args(["--batch-size", "2"]).batch is None
    assert "--batch-size = --batch" not in parsers["generate"].format_help()


def test_values_and_what_stands_behind_two_dashes_keep_their_underscores():
    assert dashed(["--stop_id=a_b", "c_d", "--", "--e_f"]) == ["--stop-id=a_b", "c_d", "--", "--e_f"]


@pytest.mark.parametrize("words, wanted", [
    (["genrate"], "is generate meant?"),
    (["eval"], "is evaluate meant?"),
    (["--verison"], "unknown arguments: --verison; is --version meant?"),
    (["faults", "rms-norm-wihout-one", "-o", "x"], "; is rms-norm-without-one meant?"),
    (["generate", "--max-tokns", "3"], "unknown arguments: --max-tokns; is --max-tokens meant?"),
    (["generate", "--maximum_new_tokens=3"], "is --max-new-tokens meant?"),
    (["doctor", "--jsn"], "is --json meant?"),
    ([__file__, "caption"], "is a file, and the verb comes first: npgemma generate"),
])
def test_near_misses_are_met_with_what_was_meant(capsys, words, wanted):
    found = cli.main(words)
    assert (found, wanted in capsys.readouterr().err) == (1, True)


def test_what_is_near_nothing_is_met_with_nothing(capsys):
    for words in (["xyzzy"], ["names", "--xyzzy"]):
        assert cli.main(words) == 1
        assert "meant?" not in capsys.readouterr().err


def test_to_draw_is_enough_for_a_draw(monkeypatch, capsys):
    monkeypatch.setattr(options, "load", lambda *args, **kwargs: saying("a cat"))
    words = ["generate", "--no-image", "x", "--model", "some", "--do-sample"]
    assert cli.main([*words, "-n", "2"]) == 0  # two greedy answers would be refused
    assert capsys.readouterr().out == "a cat\n" * 2
    assert cli.main([*words, "--temperature", "0"]) == 1
    assert "--do-sample draws, and a temperature of 0 does not" in capsys.readouterr().err


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "load", lambda *args, **kwargs: saying("a cat"))
    for name in ("a.png", "b.png", "ocr"):
        Image.new("RGB", (9, 9)).save(name, "PNG")


@pytest.mark.parametrize("words, count, prompt", [
    ("a.png b.png answer", 2, "answer"),
    ("a.png b.png", 2, "caption en"),
    ("a.png b.png a.png -p answer", 3, "answer"),
    ("--image a.png answer", 1, "answer"),
    ("--image a.png --image b.png --prompt answer", 2, "answer"),
    ("a.png ocr", 1, "ocr"),
    ("a.png --image b.png", 2, "caption en"),
    ("--no-image answer", 0, "answer"),
    ("--no-image -p answer", 0, "answer"),
])
def test_several_pictures_stand_before_one_prompt(pictures, capsys, words, count, prompt):
    assert cli.main(["generate", "--model", "some", "--json", *words.split()]) == 0
    ids = json.loads(capsys.readouterr().out)["prompt_ids"]
    assert ids == [*[tokenizer().image] * 4 * count, *tokenizer().encode(f"<bos>{prompt}\n", "allow")]


def test_pictures_come_in_the_order_of_the_words(pictures):
    args = cli.build_parser(["trace"])[1]["trace"].parse_intermixed_args(["a.png", "--image", "ocr", "b.png", "x y"])
    assert options.request_of(args).image == ["a.png", "b.png", "ocr"]


@pytest.mark.parametrize("words, wanted", [
    ("a.png b.png c.png", None),  # the last word, no file, is the prompt
    ("a.png x -p y", "'x' and --prompt 'y' are both prompts"),
    ("a.png nowhere.png x", "nowhere.png: there is no such picture"),
    ("a.png x --ids 2", "--ids stands instead of the prompt 'x'"),
])
def test_words_that_make_no_question_are_refused(pictures, capsys, words, wanted):
    assert cli.main(["generate", "--model", "some", *words.split()]) == (0 if wanted is None else 1)
    assert wanted is None or wanted in capsys.readouterr().err


def test_threads_are_as_many_as_were_asked_for(monkeypatch, capsys):
    from npgemma.base import threads

    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setenv(threads.OUR_VARIABLE, "7")
    for cached in (threads.num_threads, threads.pool, threads.blas_threads):
        cached.cache_clear()
    assert cli.main(["generate", "--threads", "3", "--max-tokens", "1"]) == 0
    assert threads.num_threads() == 3
    assert cli.main(["generate", "-t", "0"]) == 1
    assert "--threads: came as 0; want 1 or more" in capsys.readouterr().err
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    threads.blas_threads.cache_clear()
    assert cli.main(["generate", "-t", "2"]) == 1
    assert "rules the threads; unset it" in capsys.readouterr().err
    monkeypatch.undo()
    for cached in (threads.num_threads, threads.pool, threads.blas_threads):
        cached.cache_clear()
