"""An answer (:class:`npgemma.generation.answers.Answer`) as a notebook shows it: its text, its boxes on the picture."""

import base64
import io

from npgemma.base.markup import COLOURS, escape

# Pixels of the longer side of a picture that is shown: an answer should not make a notebook large.
SIDE = 512


def answer_html(answer) -> str:
    """Write an answer, and its others, each with its boxes over the picture."""
    return "".join(one(each) for each in (answer, *answer.others))


def one(answer) -> str:
    """Write one answer."""
    said = answer.text or " ".join(map(str, answer.ids))
    about = f"{len(answer.ids)} tokens, {answer.finish_reason}, log-probability {answer.score:.3f}"
    notes = "".join(f"<br>{escape(note)}" for note in answer.notes)
    drawn = drawing(answer) if answer.picture is not None else ""
    return f"<div><p>{escape(said)}</p>{drawn}<p><small>{escape(about)}{notes}</small></p></div>"


def drawing(answer) -> str:
    """Draw the boxes over their picture, whose pixels they count; a label has its colour."""
    width, height = answer.picture.size
    labels = list(dict.fromkeys(box.label for box in answer.boxes))
    line, size = max(1.0, max(width, height) / 250), max(width, height) / 24
    marks = []
    for box in answer.boxes:
        left, top, right, bottom = box.corners
        colour = "#%02x%02x%02x" % COLOURS[labels.index(box.label) % len(COLOURS)]
        place = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"'
        marks.append(f'<rect {place} fill="none" stroke="{colour}" stroke-width="{line:.1f}"/>')
        marks.append(
            f'<text x="{left + line:.1f}" y="{top + size:.1f}" font-size="{size:.1f}" fill="{colour}" stroke="black"'
            f' stroke-width="{line:.1f}" paint-order="stroke">{escape(box.label)}</text>'
        )
    shown = min(SIDE, max(256, width))
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{shown}" xmlns="http://www.w3.org/2000/svg">'
        f'<image href="{data_uri(answer.picture)}" width="{width}" height="{height}"/>{"".join(marks)}</svg>'
    )


def data_uri(picture) -> str:
    """Give a picture, made smaller where it is large, as the address of itself."""
    small, data = picture.convert("RGB"), io.BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(data, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
