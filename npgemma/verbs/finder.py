"""The options about boxes and masks, and what finds them in an answer."""

import argparse
import functools
from typing import Any

from npgemma.base.errors import InputError
from npgemma.base.weights import Weights
from npgemma.files.reader import named
from npgemma.generation.answers import Answer
from npgemma.paligemma import Model
from npgemma.places.codec_file import find_codec, read_codec
from npgemma.places.locate import Place, check_confidence, locate
from npgemma.places.segments import WAYS
from npgemma.words.locations import Unread


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--codec``, ``--masks-as`` and ``--min-confidence``."""
    group = parser.add_argument_group("boxes and masks")
    group.add_argument("--codec", metavar="FILE", help="what turns <seg> codes into masks: codec.safetensors or "
                       "vae-oid.npz (default: the one in the model's folder)")
    group.add_argument("--masks-as", choices=tuple(WAYS), default="big_vision",
                       help="whose way of reading boxes and masks (default: big_vision, its evaluator's)")
    group.add_argument("--min-confidence", type=float, default=0.0, metavar="P",
                       help="leave out boxes and masks whose tokens have a mean probability below P")


class Finder:
    """Finds the places that answers speak of, as the options say; the codec is read when the first mask comes."""

    def __init__(self, args: argparse.Namespace, model: Model) -> None:
        check_confidence(args.min_confidence)
        self.args, self.model = args, model
        if args.codec is not None:
            self.codec  # what the user names must be right, whatever the answer

    @functools.cached_property
    def codec(self) -> Weights | None:
        """The codec that ``--codec`` names, or that the model's folder holds."""
        if self.args.codec is not None:
            return read_codec(named(self.args.codec))
        try:
            path = find_codec(self.args.model)
        except InputError:  # the model is loaded: whatever its folder was, nothing is there any more
            path = None
        return None if path is None else read_codec(path)

    def __call__(self, answer: Answer, image: Any) -> tuple[list[Place], list[Unread]]:
        """Give the places of one answer about a picture, and the parts that are none."""
        codec = self.codec if "<seg" in answer.text else None
        args = self.args
        return locate(self.model, answer, image, codec, way=args.masks_as, min_confidence=args.min_confidence)
