"""Boxes and masks drawn on a picture, each with its label."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from npgemma.base.markup import COLOURS
from npgemma.words.locations import Box

BLACK = (0, 0, 0)
TINT = 0.5  # of a mask's colour, over its pixels


def draw_boxes(
    image: Image.Image, boxes: Sequence[Box], masks: Sequence[np.ndarray | None] | None = None
) -> Image.Image:
    """Draw boxes, and the masks inside them, on a copy of a picture.

    Parameters
    ----------
    image : picture
        The original, in which ``boxes`` count their pixels.
    boxes : sequence of Box
    masks : sequence of (H, W) of bool or None, optional
        One a box, as large as the picture.

    Returns
    -------
    drawn : picture
        RGB, as large as the original.  Lines and letters grow with it; every line has a black rim, so that it shows on
        any ground.  Labels stand on their box, below it or inside it, wherever they fit and cover no other label.
    """
    drawn = image.convert("RGB")  # a copy, even of an RGB picture
    line = max(1, round(min(drawn.size) / 250))
    font = ImageFont.load_default(max(10, round(min(drawn.size) / 32)))
    labels = list(dict.fromkeys(box.label for box in boxes))
    colours = [COLOURS[labels.index(box.label) % len(COLOURS)] for box in boxes]
    for mask, colour in zip(masks or [], colours, strict=masks is not None):
        if mask is not None:
            drawn = tinted(drawn, mask, colour)
    canvas = ImageDraw.Draw(drawn)
    for box, colour in zip(boxes, colours, strict=True):
        draw_frame(canvas, box, colour, line)
    taken: list[tuple[int, int, int, int]] = []
    for box, colour in zip(boxes, colours, strict=True):
        if box.label:
            draw_label(canvas, box, colour, font, taken, drawn.size)
    return drawn


def tinted(image: Image.Image, mask: np.ndarray, colour: tuple[int, int, int]) -> Image.Image:
    """Give a picture with a colour over the pixels of a mask, through which it can still be seen."""
    weights = Image.fromarray((mask * round(255 * TINT)).astype(np.uint8))
    return Image.composite(Image.new("RGB", image.size, colour), image, weights)


def draw_frame(canvas: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int], line: int) -> None:
    """Draw a box as a line with a black rim on its outer side; a box without area as a dot."""
    left, top, right, bottom = pixels_of(box)
    canvas.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=BLACK, width=line + 2)
    canvas.rectangle((left, top, right, bottom), outline=colour, width=line)


def pixels_of(box: Box) -> tuple[int, int, int, int]:
    """Give the first and last column and row inside a box: its right and bottom edges lie behind the last ones."""
    left, top, right, bottom = (round(edge) for edge in box.corners)
    return left, top, max(left, right - 1), max(top, bottom - 1)


def draw_label(
    canvas: ImageDraw.ImageDraw,
    box: Box,
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    taken: list[tuple[int, int, int, int]],
    size: tuple[int, int],
) -> None:
    """Write a label in black on its box's colour, and note its place in ``taken``."""
    left, top, right, bottom = canvas.textbbox((0, 0), box.label, font)
    width, height = round(right - left) + 4, round(bottom - top) + 4
    place = choose_place(pixels_of(box), width, height, taken, size)
    taken.append(place)
    canvas.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), fill=colour, outline=BLACK)
    canvas.text((place[0] + 2 - left, place[1] + 2 - top), box.label, BLACK, font)


def choose_place(
    frame: tuple[int, int, int, int],
    width: int,
    height: int,
    taken: Sequence[tuple[int, int, int, int]],
    size: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Give where a label goes: the first place inside the picture and clear of others, else the first one.

    Parameters
    ----------
    frame : (4)
        First and last column and row of the box.
    width, height : int
        Of the label.
    taken : sequence of (4)
        Left, top, right and bottom of labels already there, right and bottom outside.
    size : (2)
        Width and height of the picture.
    """
    left, top, right, bottom = frame
    rows = (top - height, bottom + 1, top, bottom + 1 - height)
    columns = (left, right + 1 - width)
    places = []
    for row in rows:
        for column in columns:
            # A label longer than the room beside it slides back into the picture.
            x = max(0, min(column, size[0] - width))
            if 0 <= row <= size[1] - height:
                places.append((x, row, x + width, row + height))
    if not places:
        y = max(0, min(top, size[1] - height))
        places.append((max(0, left), y, max(0, left) + width, y + height))
    free = [place for place in places if not any(overlap(place, other) for other in taken)]
    return (free or places)[0]


def overlap(one: tuple[int, int, int, int], two: tuple[int, int, int, int]) -> bool:
    """Say whether two rectangles share a pixel."""
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
