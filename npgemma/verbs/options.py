"""What several verbs share: the options that choose a model and a question, loading the one and reading the other."""

import argparse
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from npgemma.base import printer, threads
from npgemma.base.errors import ImageError, InputError, OddWarning, SlowWarning
from npgemma.base.precision import PRECISIONS
from npgemma.base.progress import Progress
from npgemma.checkpoints.loading import DTYPES, TINY, load
from npgemma.files.image import MAX_FILE_BYTES
from npgemma.files.image_settings import RESAMPLES, ImageSettings
from npgemma.files.reader import is_there, read_input
from npgemma.generation.requests import Request
from npgemma.paligemma import Model

IN_THE_BOX = (
    "this is the tiny model in the box, which knows coloured shapes and short words only. "
    "A released one: --model google/paligemma2-3b-mix-224 (from the local Hugging Face cache) or --model FOLDER"
)
DEFAULT_PROMPT = "caption en"
# The end of a file's name, and not of a sentence or a number.
LIKE_A_FILE = re.compile(r"\.[A-Za-z]\w{2,3}$")
# As transformers, llama.cpp and NumPy's users write them.
DTYPE_NAMES = {"bf16": "bfloat16", "fp32": "float32", "f32": "float32", "fp64": "float64", "f64": "float64"}


def add_verb(
    subparsers, name: str, help: str, description: str, run: Callable[..., int], words: str | None = None
) -> argparse.ArgumentParser:
    """Add a verb whose description keeps its line breaks, so that examples can stand in it.

    ``words`` is how its usage is written, where it has more options than a line holds: ``[IMAGE] [PROMPT]``.
    """
    usage = None if words is None else f"%(prog)s {words} [options]"
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=help, description=description, usage=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a model, its numbers, and who shares the work."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="FOLDER|HUB_ID",
        help="a checkpoint folder, or a hub id found in the local Hugging Face cache; the model in the box if left out",
    )
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        type=lambda name: DTYPE_NAMES.get(name, name),
        default="float32",
        help="bfloat16 keeps the weights as stored, in half the memory, and computes in float32 (default: float32)",
    )
    group.add_argument("--adapter", metavar="FOLDER", help="a LoRA adapter, as npgemma finetune or peft wrote it")
    group.add_argument("--precision", choices=tuple(PRECISIONS), help="emulate the roundings of another precision")
    group.add_argument("--device", default="cpu", metavar="cuda[:N]",
                       help="compute on a graphics card, through CuPy: pip install 'npgemma[cuda12]' (default: cpu)")
    group.add_argument("--allow-nonfinite", action="store_true", help="load weights that hold NaN or infinity")
    group.add_argument("-t", "--threads", type=int, metavar="N", help="that share the work (default: all processors)")


def add_question_options(parser: argparse.ArgumentParser) -> None:
    """Add the pictures and the prompt, and how they are read."""
    parser.add_argument("image", nargs="?", metavar="IMAGE", help="a picture, or several; - reads standard input")
    parser.add_argument(
        "prompt", nargs="?", metavar="PROMPT", help=f"what to do with it, in one line (default: {DEFAULT_PROMPT!r})"
    )
    parser.add_argument("more", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-p", "--prompt", dest="asked", metavar="PROMPT", help="the prompt, all words being pictures")
    add_reading_options(parser)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how pictures and prompts are read."""
    group = parser.add_argument_group("picture and prompt")
    group.add_argument("--no-image", action="store_true", help="text only: the first word after the verb is the prompt")
    group.add_argument("--image", action="append", default=[], dest="more_images", metavar="FILE",
                       help="one more picture for the same prompt, behind the others (repeatable)")
    group.add_argument("--ids", type=id_list, help="instead of a prompt, all its ids: 140,140,2,17,108 (no tokenizer)")
    group.add_argument("--allow-specials", action="store_true", help="let the prompt hold tokens such as <loc0512>")
    group.add_argument("--max-pixels", type=int, metavar="N", help="largest picture (default: 50,000,000 pixels)")
    group.add_argument("--exif", action="store_true", help="turn photographs upright (the reference does not)")
    group.add_argument("--frame", type=int, metavar="N", help="of an animation (default: 0, the first)")
    group.add_argument("--background", metavar="COLOUR", help="under transparent pixels (default: white)")
    group.add_argument("--sixteen-bit", choices=("refuse", "scale"), help="16-bit grey: refuse, or divide by 257")
    group.add_argument("--resample", choices=tuple(RESAMPLES), help="how pictures are resized (default: the model's)")


def id_list(text: str) -> list[int]:
    """Read ids separated by commas or spaces."""
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of ids; want 2,17,108") from None


def load_model(args: argparse.Namespace) -> tuple[Model, float]:
    """Load the model that the options name, showing progress on a terminal's stderr, and there what will be slow.

    Returns
    -------
    model : Model
    seconds : float
    """
    if args.threads is not None:
        threads.use(args.threads)
    if args.model is None:
        printer.tell(IN_THE_BOX)
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, Progress("loading the model") as progress:
        for kind in (OddWarning, SlowWarning):
            warnings.simplefilter("always", kind)
        more = {name: value for name in ("adapter", "device") if (value := getattr(args, name, None)) is not None}
        model = load(
            args.model, args.dtype, args.precision, progress=progress, allow_nonfinite=args.allow_nonfinite, **more
        )
    for warning in caught:
        printer.tell(warning.message)
    return with_image_options(model, args), time.perf_counter() - started


def with_image_options(model: Model, args: argparse.Namespace) -> Model:
    """Give the model with the image settings that the options change."""
    names = ("max_pixels", "frame", "background", "sixteen_bit", "resample")
    changed = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    if getattr(args, "exif", False):
        changed["exif"] = True
    return replace(model, image_settings=replace(model.image_settings or ImageSettings(), **changed))


def request_of(args: argparse.Namespace) -> Request:
    """Give what the options and words ask: by default about a picture in the box.

    Raises
    ------
    InputError
        If there are more words than questions, or both a prompt and ids.
    """
    names, prompt = pictures_and_prompt(args)
    pictures: list[Any] = [*names, *args.more_images]
    if not pictures and not args.no_image and args.ids is None:
        pictures = [picture_in_the_box(args)]
    specials = "allow" if args.allow_specials else "refuse"
    images = read_pictures(pictures)
    if args.ids is not None:
        if prompt is not None:
            raise InputError(f"--ids stands instead of the prompt {prompt!r}; leave one of them out")
        return Request(images, ids=args.ids, specials=specials)
    return Request(images, DEFAULT_PROMPT if prompt is None else prompt, specials=specials)


def pictures_and_prompt(args: argparse.Namespace) -> tuple[list[str], str | None]:
    """Tell the words that are pictures from the prompt, which is the last one; a word alone is a picture."""
    words = [word for word in (args.image, args.prompt, *getattr(args, "more", ())) if word is not None]
    asked = getattr(args, "asked", None)
    if args.no_image:
        if words and is_file(words[0]):
            raise InputError(f"{words[0]!r} is a file, and --no-image makes it the prompt; leave out one of them")
        if len(words) > 1:
            raise InputError(f"{words[1]!r}: with --no-image there is only a prompt; put it into quotes")
    speaks = bool(words) and (args.no_image or not names_picture(words[-1]))
    alone = len(words) == 1 and not args.more_images and not args.no_image
    if not speaks or alone:
        return words, asked
    if asked is not None:
        raise InputError(f"{words[-1]!r} and --prompt {asked!r} are both prompts; leave one of them out")
    return words[:-1], words[-1]


def names_picture(word: str) -> bool:
    """Tell whether a word is a picture's: standard input, or a file of some kind; ``ocr`` is a prompt wherever."""
    return word == "-" or bool(Path(word).suffix) and is_file(word)


def is_file(word: str) -> bool:
    """Tell whether a word names a file; a long prompt is no name at all."""
    return os.path.isfile(word)


def picture_in_the_box(args: argparse.Namespace) -> str:
    """Give the path of the picture that comes with the package, and say that it is used."""
    found = sorted(TINY.rglob("*.png"))
    if not found:
        raise InputError("no IMAGE was given, and there is none in the box; give one, or --no-image and a prompt")
    if args.model is not None:
        printer.tell(f"no IMAGE was given; this is about {found[0]}")
    return str(found[0])


def read_pictures(names: Sequence[str]) -> list[Any] | None:
    """Give pictures as the model takes them: paths, and for ``-`` the bytes of standard input."""
    if list(names).count("-") > 1:
        raise InputError("-: standard input holds one picture only")
    for name in names:
        if name != "-" and not is_there(name):
            raise InputError(f"{name}: there is no such picture; {what_was_meant(name)}")
    return [read_input(MAX_FILE_BYTES, ImageError) if name == "-" else name for name in names] or None


def what_was_meant(word: str) -> str:
    """What to do where a word is no picture's: it is the path of one, or a prompt that came without."""
    if LIKE_A_FILE.search(word) or "/" in word and " " not in word:
        return "check the path"
    return f"the picture comes first, then the prompt; without a picture: --no-image {word!r}"


def tell(notes: Sequence[str]) -> None:
    """Say on stderr what a user should know, a line each."""
    for note in notes:
        printer.tell(f"note: {note}")
