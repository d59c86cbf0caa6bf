"""Boxes of an answer, in pixels of the picture that was asked about."""

from dataclasses import replace
from typing import Any

from PIL import Image

from npgemma.files.image import open_picture, to_rgb
from npgemma.files.image_settings import ImageSettings
from npgemma.generation.answers import Answer
from npgemma.paligemma import Model
from npgemma.words.locations import has_locations, read_boxes


def with_boxes(model: Model, answer: Answer, image: Any) -> Answer:
    """Give an answer, and its others, with the boxes that they place in the picture.

    Parameters
    ----------
    model : Model
        Its image settings say how the picture was opened.
    answer : Answer
    image : picture or list of pictures or None
        As in the request.  Only one picture can have boxes: an answer does not say which of several it means.
    """
    answers = (answer, *answer.others)
    if not any(has_locations(each.text) for each in answers):
        return answer
    picture = original(model, image)
    if picture is None:
        return answer
    first, *others = [placed(each, picture) for each in answers]
    return replace(first, others=tuple(others))


def placed(answer: Answer, picture: Image.Image) -> Answer:
    """Give one answer with its boxes in a picture."""
    if not has_locations(answer.text):
        return answer
    boxes, unread = read_boxes(answer.text, picture.size)
    return replace(answer, boxes=tuple(boxes), unread=tuple(unread), picture=picture if boxes else None)


def original(model: Model, image: Any) -> Image.Image | None:
    """Open the one picture of a request in its own size, as RGB; None where there is none, or more than one."""
    pictures = image if isinstance(image, list | tuple) else [image]
    if len(pictures) != 1 or pictures[0] is None:
        return None
    settings = model.image_settings or ImageSettings()
    # What is lost in reading was told when the pixels were made.
    return to_rgb(open_picture(pictures[0], "picture", settings, []), "picture", settings, [])
