"""The prompt as PaliGemma reads it: image places, ``<bos>``, the prompt, a newline, and perhaps an answer.

::

    <image> x tokens_per_image x num_images  <bos>  prompt  \\n  |  suffix  <eos>
    token type 0 (all see each other)                            |  token type 1 (causal)
"""

from dataclasses import dataclass

from npgemma.base.errors import InputError, PromptError
from npgemma.words.tokenizer import Tokenizer
from npgemma.words.vocabulary import IMAGE


@dataclass(frozen=True)
class Prompt:
    """Token ids, 0 for each of the prefix and 1 for each of the suffix, and what a user should know."""

    ids: list[int]
    token_types: list[int]
    notes: list[str]


def build_prompt(
    tokenizer: Tokenizer,
    prompt: str,
    num_images: int,
    tokens_per_image: int,
    suffix: str | None = None,
    specials: str = "refuse",
    context: int | None = None,
) -> Prompt:
    """Build the ids of one prompt, as transformers' PaliGemmaProcessor does.

    Parameters
    ----------
    tokenizer : Tokenizer
    prompt : str
        May be empty: released models then caption the picture. One newline is always appended.
    num_images : int
        0 for text only, which transformers refuses: ``<bos>`` + prompt + newline.
    tokens_per_image : int
        P, soft tokens of one picture.
    suffix : str, optional
        An answer to be scored or learnt; ``<eos>`` is appended.
    specials : {'refuse', 'allow'}
        Whether the texts may hold tokens such as ``<loc0512>``. With 'allow' the prompt may also place its pictures
        itself, one ``<image>`` for each; ``<bos>`` then follows the last.
    context : int, optional
        Positions the model has; a longer prompt is refused.
    """
    if num_images < 0 or tokens_per_image < 1:
        raise InputError(f"num_images is {num_images}, tokens_per_image {tokens_per_image}; want >= 0 and >= 1")
    tokenizer.check(prompt, specials)  # what the user typed, before anything is added
    prefix_ids = tokenizer.cut_and_merge(_prefix_text(prompt, num_images, tokens_per_image))
    suffix_ids = [] if suffix is None else [*tokenizer.encode(suffix, specials), tokenizer.eos]

    length = len(prefix_ids) + len(suffix_ids)
    if context is not None and length > context:
        soft = num_images * tokens_per_image
        raise PromptError(
            f"{soft:,} image tokens and {length - soft:,} of text make {length:,}; "
            f"the model has {context:,} positions; shorten the prompt or give fewer pictures"
        )
    return Prompt(prefix_ids + suffix_ids, [0] * len(prefix_ids) + [1] * len(suffix_ids), _notes(prompt, num_images))


def _prefix_text(prompt: str, num_images: int, tokens_per_image: int) -> str:
    """Write the prefix with its image places, still as text: newlines at its seams merge as in transformers."""
    places = prompt.count(IMAGE)
    if not places:
        return IMAGE * tokens_per_image * num_images + "<bos>" + prompt + "\n"
    if places != num_images:
        raise PromptError(
            f"the prompt has {places} {IMAGE}, {num_images} pictures were given; want one for each picture, or none"
        )
    end = prompt.rfind(IMAGE) + len(IMAGE)
    return prompt[:end].replace(IMAGE, IMAGE * tokens_per_image) + "<bos>" + prompt[end:] + "\n"


def _notes(prompt: str, num_images: int) -> list[str]:
    """Say what in a prompt is unlike the prompts the model was trained on."""
    notes = []
    if not prompt and num_images:
        notes.append("the prompt is empty: released models then caption the picture, others need not")
    if prompt.endswith("\n"):
        notes.append("the prompt ends in a newline already; another one is appended, as in transformers")
    if "\n" in prompt.rstrip("\n"):
        notes.append("the prompt has a newline inside; PaliGemma was trained on prompts of one line")
    return notes
