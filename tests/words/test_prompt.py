"""Prompts against transformers' PaliGemmaProcessor, and what may not be typed into them (rows 63 to 74)."""

import gzip
import json
from pathlib import Path

import pytest

from npgemma.base.errors import InputError, NpgemmaError, PromptError
from npgemma.words.prompt import build_prompt
from npgemma.words.tokenizer import MAX_CHARACTERS, load_tokenizer

FOLDER = Path(__file__).parents[2] / "golden" / "tokens"
CASES = json.loads(gzip.decompress((FOLDER / "cases.json.gz").read_bytes()))["prompts"]
P = json.loads((FOLDER / "MANIFEST.json").read_text(encoding="utf-8"))["tokens_per_image"]


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    def loaded(name):
        folder = tmp_path_factory.mktemp(name)
        (folder / "tokenizer.model").write_bytes((FOLDER / f"{name}.model").read_bytes())
        return load_tokenizer(folder)

    return loaded


@pytest.fixture(scope="module")
def tokenizer(load):
    return load("gemma")


def pieces(tokenizer, ids):
    return [tokenizer.piece(id) for id in ids]


@pytest.mark.parametrize("name", CASES)
def test_prompts_equal_those_of_transformers(load, name):
    tokenizer = load(name)
    assert len(CASES[name]) > 300
    for text, suffix, num_images, ids, token_types in CASES[name]:
        prompt = build_prompt(tokenizer, text, num_images, P, suffix, specials="allow")
        assert prompt.ids == ids, f"{text!r}, {suffix!r}, {num_images} pictures: {pieces(tokenizer, prompt.ids)}"
        assert prompt.token_types == token_types


def test_a_prompt_is_image_places_bos_text_and_newline_and_an_answer_ends_in_eos(tokenizer):
    prompt = build_prompt(tokenizer, "猫", 2, 3, suffix="<loc0001>", specials="allow")
    wanted = ["<image>"] * 6 + ["<bos>", "猫", "\n", "<loc0001>", "<eos>"]
    assert pieces(tokenizer, prompt.ids) == wanted
    assert prompt.token_types == [0] * 9 + [1] * 2 and prompt.notes == []


def test_text_only_is_bos_text_and_newline(tokenizer):
    prompt = build_prompt(tokenizer, "猫", 0, P)
    assert pieces(tokenizer, prompt.ids) == ["<bos>", "猫", "\n"]
    assert prompt.token_types == [0, 0, 0]


def test_row_63_an_empty_prompt_is_allowed_and_captions(tokenizer):
    prompt = build_prompt(tokenizer, "", 1, P)
    assert pieces(tokenizer, prompt.ids) == ["<image>"] * P + ["<bos>", "\n"]
    assert prompt.notes == ["the prompt is empty: released models then caption the picture, others need not"]


def test_row_64_spaces_are_kept_and_one_newline_always_follows(tokenizer):
    assert pieces(tokenizer, build_prompt(tokenizer, "   ", 0, P).ids) == ["<bos>", "▁▁▁", "\n"]
    prompt = build_prompt(tokenizer, "猫\n", 0, P)
    assert pieces(tokenizer, prompt.ids) == ["<bos>", "猫", "\n\n"]  # both newlines are one piece
    assert prompt.notes == ["the prompt ends in a newline already; another one is appended, as in transformers"]


def test_row_65_a_newline_inside_is_allowed_with_a_note(tokenizer):
    prompt = build_prompt(tokenizer, "猫\n猫", 0, P)
    assert pieces(tokenizer, prompt.ids) == ["<bos>", "猫", "\n", "猫", "\n"]
    assert prompt.notes == ["the prompt has a newline inside; PaliGemma was trained on prompts of one line"]


@pytest.mark.parametrize("token", ["<image>", "<bos>", "<eos>", "<pad>", "<mask>", "<unused0>", "<start_of_turn>"])
def test_row_66_special_tokens_typed_by_a_user_are_refused_by_default(tokenizer, token):
    message = f"the text has '{token}' at character 3, which is a token .*specials='allow'"
    with pytest.raises(PromptError, match=message):
        build_prompt(tokenizer, f"an {token} x", 1, P)
    with pytest.raises(PromptError, match=message):
        build_prompt(tokenizer, "x", 1, P, suffix=f"an {token} x")
    assert tokenizer.encode(token, "allow") == [tokenizer.id(token)]


def test_row_66_allowed_image_tokens_must_be_as_many_as_the_pictures(tokenizer):
    with pytest.raises(PromptError, match="the prompt has 2 <image>, 1 pictures were given; want one for each"):
        build_prompt(tokenizer, "<image> and <image>", 1, P, specials="allow")
    with pytest.raises(PromptError, match="has 1 <image>, 0 pictures"):
        build_prompt(tokenizer, "<image>", 0, P, specials="allow")
    prompt = build_prompt(tokenizer, "<image>猫<image>猫", 2, 2, specials="allow")
    wanted = ["<image>"] * 2 + ["猫"] + ["<image>"] * 2 + ["<bos>", "猫", "\n"]
    assert pieces(tokenizer, prompt.ids) == wanted


@pytest.mark.parametrize("token", ["<loc0512>", "<seg001>"])
def test_row_67_places_and_masks_typed_by_a_user_are_refused_by_default(tokenizer, token):
    with pytest.raises(PromptError, match=f"the text has '{token}' at character 9"):
        build_prompt(tokenizer, f"describe {token}", 1, P)
    prompt = build_prompt(tokenizer, f"describe {token}", 1, P, specials="allow")
    assert tokenizer.id(token) in prompt.ids


def test_row_67_what_only_resembles_a_token_is_text(tokenizer):
    for text in ("<loc1024>", "<loc12>", "<seg128>", "<b>", "a < b > c", "<image", "<table>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_row_69_a_lone_surrogate_is_refused_with_its_place(tokenizer):
    broken = b"cat \xff".decode("utf-8", "surrogateescape")
    with pytest.raises(PromptError, match=r"character 4 of the text is the lone surrogate U\+DCFF"):
        build_prompt(tokenizer, broken, 1, P)


@pytest.mark.parametrize("text", ["\0", "\ufeffcat", "a\u200bb", "\u202eabc", "👩\u200d👩\u200d👧", "e\u0301", "\x7f"])
def test_row_70_unusual_characters_pass_and_come_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text  # their ids are in the golden of test_tokenizer.py


@pytest.mark.parametrize("text, name", [(None, "NoneType"), (b"cat", "bytes"), (["cat"], "list"), (3, "int")])
def test_row_71_what_is_no_text_is_a_type_error(tokenizer, text, name):
    with pytest.raises(TypeError, match=f"the text came as {name}; want one str") as caught:
        build_prompt(tokenizer, text, 1, P)
    assert isinstance(caught.value, NpgemmaError)


def test_row_71_bytes_are_told_how_to_become_text(tokenizer):
    with pytest.raises(TypeError, match="decode it first"):
        tokenizer.encode(b"cat")


def test_row_73_a_prompt_beyond_the_context_is_refused_with_its_counts(tokenizer):
    with pytest.raises(PromptError, match="4,096 image tokens and 4,112 of text make 8,208; the model has 8,192"):
        build_prompt(tokenizer, "\x01" * 4110, 1, 4096, context=8192)
    assert len(build_prompt(tokenizer, "\x01" * 4094, 1, 4096, context=8192).ids) == 8192


def test_row_74_a_long_piece_without_spaces_is_tokenised_and_a_longer_one_refused(tokenizer):
    assert tokenizer.decode(tokenizer.encode("ba" * 60_000)) == "ba" * 60_000
    with pytest.raises(PromptError, match="has 125,001 characters; want at most 125,000; shorten it"):
        tokenizer.encode("x" * (MAX_CHARACTERS + 1))


def test_arguments_out_of_range_are_refused(tokenizer):
    with pytest.raises(InputError, match="specials is 'maybe'; want 'refuse' or 'allow'"):
        tokenizer.encode("x", "maybe")
    with pytest.raises(InputError, match="num_images is -1"):
        build_prompt(tokenizer, "x", -1, P)
    with pytest.raises(InputError, match="token id is -1"):
        tokenizer.decode([-1])
