"""``npgemma generate``: the answer to a prompt about a picture, as it comes."""

import argparse
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from npgemma.base import printer
from npgemma.base.errors import InputError, OutputError
from npgemma.base.progress import Progress
from npgemma.files.writer import check_target, write_file
from npgemma.generation.answers import Answer, Token, why_cut
from npgemma.generation.boxes import original
from npgemma.generation.constraints import Detections
from npgemma.generation.generate import generate_batch
from npgemma.generation.requests import Ready, prepare
from npgemma.generation.settings import DEFAULT_NEW_TOKENS
from npgemma.paligemma import Model
from npgemma.places.locate import Place
from npgemma.verbs.answer_fields import answer_fields
from npgemma.verbs.finder import Finder, add_place_options
from npgemma.verbs.following import following
from npgemma.verbs.options import add_model_options, add_question_options, add_verb, load_model, request_of, tell

if TYPE_CHECKING:
    from npgemma.show.profile import Profile

WORDS = "[IMAGE ...] [PROMPT]"
DRAWINGS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

DESCRIPTION = """Answer a prompt about a picture, and stream the answer.

  npgemma generate                                        a picture in the box
  npgemma generate cat.jpg                                a caption
  npgemma generate cat.jpg "answer en what is on the table?"
  npgemma generate before.jpg after.jpg "answer en what changed?"
  npgemma generate cat.jpg "detect cat ; dog" --boxes-only --draw boxes.png
  npgemma generate cat.jpg "caption en" --temperature 0.8 --top-p 0.9 --seed 7
  npgemma generate cat.jpg "caption en" --beams 4 -n 4    the four best beams
  curl -s example.org/cat.jpg | npgemma generate - "ocr"
  npgemma generate --batch questions.jsonl -o answers.jsonl

PaliGemma was trained on prompts such as: caption LANGUAGE; answer LANGUAGE QUESTION; detect OBJECT ; OBJECT;
segment OBJECT; ocr.  LANGUAGE is a code: en, de, fr, ...  Prompts end without a question's small talk."""

BATCH_HELP = """questions, a JSON object a line: {"image": "cat.jpg", "prompt": "caption en"}; "image" may be a list of
pictures or null, "ids" may stand instead of "prompt", other keys are allowed; each answer comes with its question"""


def add(subparsers) -> None:
    """Describe the verb."""
    parser = add_verb(subparsers, "generate", "answer a prompt about a picture, streamed", DESCRIPTION, run, WORDS)
    add_question_options(parser)
    add_choice_options(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="one JSON object instead of text")
    group.add_argument("--profile", action="store_true", help="where the time went, tensor by tensor, on stderr")
    group.add_argument("--draw", metavar="OUT.png", help="draw the answer's boxes and masks on the picture")
    group.add_argument("--force", action="store_true", help="let --draw replace a file that is there")
    group.add_argument("--batch", metavar="FILE.jsonl", help=BATCH_HELP)
    group.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="questions read side by side (default: 4)"
    )
    group.add_argument("-o", "--output", metavar="FILE.jsonl",
                       help="answers of --batch; if it holds some, only others and failed ones are computed")
    add_place_options(parser)
    add_model_options(parser)


def add_choice_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how tokens are chosen."""
    group = parser.add_argument_group("how tokens are chosen (greedy, unless drawing or beams are asked for)")
    group.add_argument("--max-tokens", type=int, metavar="N",
                       help=f"longest answer (default: {DEFAULT_NEW_TOKENS}, or what the prompt leaves of the context)")
    group.add_argument("--min-tokens", type=int, default=0, metavar="N", help="no stop before")
    group.add_argument("--temperature", type=float, metavar="T", help="draw tokens; below 1 sharper, above 1 wilder")
    group.add_argument("--do-sample", action="store_true", help="draw tokens, at temperature 1 if none is given")
    group.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest tokens")
    group.add_argument("--top-p", type=float, metavar="P", help="draw among the likeliest that together reach P")
    group.add_argument(
        "--min-p", type=float, metavar="P", help="draw among those at least P times as likely as the first"
    )
    group.add_argument("--repetition-penalty", type=float, default=1.0, metavar="X", help="above 1: repeat less")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)")
    group.add_argument("--beams", type=int, default=1, metavar="N", help="beam search")
    group.add_argument(
        "--length-penalty", type=float, default=1.0, metavar="X", help="of beams: above 0 favours length"
    )
    group.add_argument("-n", type=int, default=1, metavar="N", help="several answers: draws, or the best beams")
    group.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text (repeatable)")
    group.add_argument("--stop-id", action="append", type=int, metavar="ID", help="end with this id (repeatable)")
    group.add_argument(
        "--suppress-id", action="append", type=int, default=[], metavar="ID", help="never choose this id"
    )
    group.add_argument("--boxes-only", action="store_true", help="hold a 'detect' answer to what parses as boxes")


def run(args: argparse.Namespace) -> int:
    """Answer, and return the exit code; what few answers want is imported for them alone."""
    if args.batch is not None:
        from npgemma.verbs.batch_file import answer_file

        refuse_beside_batch(args)
        model, _ = load_model(args)
        return answer_file(model, args, settings_of(args, model), Finder(args, model))
    if args.output is not None:
        raise InputError("--output: holds the answers of --batch; one answer goes to standard output")
    request = request_of(args)
    if args.draw is not None:
        check_drawing(args.draw, request.image, args.force)
    model, load_seconds = load_model(args)
    settings, find = settings_of(args, model), Finder(args, model)
    ready = prepare(model, request)
    heard = Heard(streams=not args.json and model.tokenizer is not None)
    profile = new_profile(model) if args.profile else None
    try:
        answer = ask(model, ready, settings, heard, profile)
    except KeyboardInterrupt:
        if heard.tokens or args.json:
            show(heard.answer(ready), request.image, args, {"load": load_seconds}, heard, find)
        raise
    show(answer, request.image, args, {"load": load_seconds}, heard, find)
    if profile is not None:
        printer.show(profile.table())
    if args.draw is not None:
        places = find(answer, request.image)[0]
        draw(args.draw, original(model, request.image), places, request.prompt, args.force)
    return 0


def settings_of(args: argparse.Namespace, model: Model) -> dict[str, Any]:
    """Give the settings of generation that the options name."""
    settings: dict[str, Any] = {
        "max_new_tokens": args.max_tokens,
        "min_new_tokens": args.min_tokens,
        "temperature": temperature_of(args),
        "top_k": args.top_k,
        "top_p": args.top_p,
        "min_p": args.min_p,
        "repetition_penalty": args.repetition_penalty,
        "seed": args.seed,
        "num_beams": args.beams,
        "length_penalty": args.length_penalty,
        "num_return": args.n,
        "stop": args.stop,
        "stop_ids": args.stop_id,
        "suppress_ids": args.suppress_id,
    }
    if args.boxes_only:
        if model.tokenizer is None:
            raise InputError("--boxes-only: the model has no tokenizer, so its places are not known")
        settings["allowed"] = Detections(model.tokenizer, args.stop_id or model.config.eos_ids)
    return settings


def temperature_of(args: argparse.Namespace) -> float | None:
    """The temperature that is given, or for ``--do-sample`` alone that of the model's own probabilities."""
    if args.do_sample and args.temperature == 0:
        raise InputError("--do-sample draws, and a temperature of 0 does not; leave one of them out")
    return 1.0 if args.do_sample and args.temperature is None else args.temperature


class Heard:
    """What has come of an answer so far; written to standard output at once if it ``streams``."""

    def __init__(self, streams: bool) -> None:
        self.streams = streams
        self.tokens: list[Token] = []
        self.progress = Progress("reading the picture and the prompt")

    def __call__(self, token: Token) -> None:
        self.tokens.append(token)
        if self.streams:
            self.progress.wipe()
        if self.streams and token.text:
            printer.say(token.text, end="")

    def answer(self, ready: Ready) -> Answer:
        """Give what there is, when nothing more will come."""
        ids, texts, logprobs = zip(*self.tokens, strict=True) if self.tokens else ((), (), ())
        return Answer("".join(texts), ids, "interrupted", logprobs, tuple(ready.ids), sum(logprobs), tuple(ready.notes))


def new_profile(model: Model) -> "Profile":
    """Give what takes the time of each tensor."""
    from npgemma.show.profile import Profile

    return Profile(model.weights.arrays, model.config)


def ask(model: Model, ready: Ready, settings: dict[str, Any], heard: Heard, profile: "Profile | None") -> Answer:
    """Generate, streaming where one answer grows token by token."""
    rows = max(settings["num_beams"], settings["num_return"])
    heard.streams = heard.streams and rows == 1
    tokens, pictures = len(ready.ids), len(ready.pixels)
    with heard.progress:
        if heard.streams:  # what is said is progress enough
            followed = following(model, heard.progress, tokens, pictures)
        else:
            heard.progress.begin("answering, in the longest case")
            longest = DEFAULT_NEW_TOKENS if settings["max_new_tokens"] is None else settings["max_new_tokens"]
            followed = following(model, heard.progress, tokens, pictures, longest, rows=rows)
        return generate_batch(followed, [ready], on_token=heard if rows == 1 else None, observe=profile, **settings)[0]


def show(
    answer: Answer, image: Any, args: argparse.Namespace, seconds: dict[str, float], heard: Heard, find: Finder
) -> None:
    """Print the answer, or what of it has not been streamed yet."""
    if args.json:
        printer.say_json(as_object(answer, image, seconds, find))
        return
    if heard.streams:
        printer.say()
    elif not answer.text and answer.ids:
        printer.say("\n".join(" ".join(map(str, each.ids)) for each in (answer, *answer.others)))
    else:
        printer.say("\n".join(each.text for each in (answer, *answer.others)))
    tell(answer.notes)
    places, unread = find(answer, image)
    tell([f"{each.text!r} is no box: {each.reason}" for each in unread])
    tell([f"{each.box.label!r} has no mask: {each.unmasked}" for each in places if each.unmasked])
    if answer.finish_reason == "length":
        tell([why_cut(answer, find.model.config.text.max_positions)])


def as_object(answer: Answer, image: Any, seconds: dict[str, float], find: Finder) -> dict[str, Any]:
    """Give an answer as a JSON object."""
    whole = {"prompt_ids": answer.prompt_ids, "seconds": seconds | answer.seconds, "notes": answer.notes}
    return answer_fields(answer, image, find) | whole


def check_drawing(name: str, image: list[Any] | None, force: bool) -> None:
    """Refuse, before anything is computed, what could not be drawn at its end."""
    if Path(name).suffix.lower() not in DRAWINGS:
        raise InputError(f"--draw {name}: want a name that ends in {', '.join(DRAWINGS)}")
    if image is None or len(image) != 1:
        raise InputError("--draw: boxes are drawn on one picture; give one, and only one")
    if isinstance(image[0], str) and os.path.exists(name) and os.path.samefile(name, image[0]):
        raise InputError(f"--draw {name}: is the picture itself, which would be lost; want another name")
    check_target(name, force)


def draw(name: str, picture: Image.Image | None, places: list[Place], prompt: str, force: bool) -> None:
    """Draw places on their picture; what stood under the name stays until all is written."""
    from npgemma.places.drawing import draw_boxes

    if picture is None:
        return
    if not places:
        tell(["the answer has no boxes: the picture is drawn without"])
    elif prompt.startswith("segment") and all(each.mask is None for each in places):
        tell(["the answer has no masks: boxes alone are drawn"])
    drawn, data = draw_boxes(picture, [each.box for each in places], [each.mask for each in places]), io.BytesIO()
    try:
        drawn.save(data, DRAWINGS[Path(name).suffix.lower()])
    except (OSError, ValueError) as problem:  # a side that the format does not allow
        raise OutputError(f"{name}: {drawn.width} x {drawn.height} pixels cannot be saved so: {problem}") from None
    write_file(name, data.getvalue(), force)
    tell([f"written to {name}"])


def refuse_beside_batch(args: argparse.Namespace) -> None:
    """Refuse what makes no sense for many questions."""
    for name, option in (("image", ""), ("prompt", ""), ("asked", "--prompt"), ("ids", ""), ("draw", "")):
        if getattr(args, name) is not None:
            raise InputError(f"--batch: the questions are in {args.batch}; leave out {option or name}")
    if args.profile:
        raise InputError("--profile: is of one answer; leave out --batch")
    if args.force:
        raise InputError("--force: is for --draw; a file of answers is continued, or it is another's and stays")
