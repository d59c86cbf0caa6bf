"""Where an answer's places lie on the picture."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from npgemma.explaining.code import body
from npgemma.explaining.heat import photograph
from npgemma.explaining.panel import Figure, Panel, say
from npgemma.explaining.run import Run
from npgemma.explaining.seeing import SHOWN, enlarged, factor, small, square
from npgemma.places.drawing import draw_boxes
from npgemma.places.locate import Place
from npgemma.words import locations
from npgemma.words.locations import LAST

# Lines of the grid that shows what location tokens mean.
LINES = 8


def places(run: Run) -> Panel:
    """Boxes and masks of the answer on the picture; where it names none, what location tokens would mean."""
    picture = run.kept.picture or square(run)
    if run.places:
        text, figure, rows = drawn_places(picture, run.places)
    else:
        text = say("This answer names no place. Asked to `detect` something, the model answers with location tokens, "
                   "four for each box: top, left, bottom and right edge, each from nought to {last:,}, whatever the "
                   "picture's size.",
                   last=LAST)
        figure = Figure(photograph(gridded(picture), "the picture under a grid"),
                        say("The picture under a grid of locations, {apart} apart.", apart=(LAST + 1) // LINES))
        rows = []
    table = {"head": ["label", "left", "top", "right", "bottom", "confidence"], "rows": rows} if rows else None
    return Panel(
        "places", "Words that are places", (text,), "Chen et al. 2022; Beyer et al. 2024, sec. 3.2.5 and 5.3",
        code=(body(locations.read_object),), figures=(figure,), table=table,
    )


def drawn_places(picture: Image.Image, found: tuple[Place, ...]):
    """Say and draw where things are."""
    first = found[0].box
    text = say("The answer names {count} places. Location tokens are words like any other; read as numbers from nought "
               "to {last:,} they are edges of boxes: {label} lies from {left:.0f} to {right:.0f} pixels across and "
               "from {top:.0f} to {bottom:.0f} down.", count=len(found), last=LAST, label=first.label or "the first",
               left=first.corners[0], top=first.corners[1], right=first.corners[2], bottom=first.corners[3])
    times = factor(picture)
    boxes = []
    for box in (place.box for place in found):
        left, top, right, bottom = box.corners
        boxes.append(replace(box, corners=(times * left, times * top, times * right, times * bottom)))
    masks = [None if place.mask is None else np.kron(place.mask, np.ones((times, times), bool)) for place in found]
    drawn = draw_boxes(enlarged(picture, times), boxes, masks)
    rows = [[place.box.label, *(f"{edge:.0f}" for edge in place.box.corners), f"{place.confidence:.1%}"]
            for place in found]
    return text, Figure(photograph(small(drawn), "the picture with boxes"), say("What the answer places.")), rows


def gridded(picture: Image.Image) -> Image.Image:
    """Draw lines over a picture where location tokens lie."""
    drawn = small(picture).resize((SHOWN, SHOWN * picture.height // picture.width))
    canvas = ImageDraw.Draw(drawn)
    for number in range(1, LINES):
        x, y = drawn.width * number // LINES, drawn.height * number // LINES
        canvas.line((x, 0, x, drawn.height), (255, 255, 255))
        canvas.line((0, y, drawn.width, y), (255, 255, 255))
    return drawn
