"""Questions about drawings, beside those of world.py: boxes in any frame, masks, what is not there, stray prompts.

Each takes a drawing and a random generator and gives (prompt, answer), or None if there is none.
"""

import string

from world import KINDS, PLURALS, TASKS, ask

TASKS = (*TASKS, "segment", "nothing", "stray")
COLOURED = 0.3
# What nobody has drawn: a question about it is answered ``nothing``.
OTHERS = (
    *("cat", "dog", "house", "tree", "car", "person", "sun", "hat", "bird", "flower", "boat", "ball", "cup", "chair"),
    *("apple", "fish", "horse", "book", "table", "clock", "phone", "hand", "face", "plane", "bus", "line", "arrow"),
)
# Prompts beside the known ones get the caption.
STRAY = (
    *("", "caption", "describe", "describe en", "describe the picture", "what is this?", "what do you see?", "cap en"),
    *("caption fr", "caption es", "answer en what is in the picture?", "what is in the image", "tell me more", "hello"),
    *("answer en what shapes are there?", "question en what is shown?", "list all objects", "who are you?"),
)


def ask_about(task, drawing, rng, codes=None, coloured=COLOURED):
    """A question of a task about a drawing.

    ``codes`` gives the sixteen codes of a mask and its box, as ``npgemma.encode_mask`` does with a codec; ``coloured``
    is how often a colour is named where things are looked for.
    """
    if not drawing.scene.shapes:
        return about_nothing(task, drawing, rng)
    if task == "segment":
        return segment(drawing, rng, codes, coloured)
    if task == "ocr" and not drawing.scene.word:
        return None
    if task == "detect":
        return detect(drawing, rng, coloured)
    own = {"nothing": nothing, "stray": stray}
    return own[task](drawing, rng) if task in own else ask(task, drawing.scene, rng)


def location_tokens(box, size):
    """``<loc>`` of top, left, bottom and right."""
    left, top, right, bottom = box
    edges = (top / size[1], left / size[0], bottom / size[1], right / size[0])
    return "".join(f"<loc{round(edge * 1023):04d}>" for edge in edges)


def wanted_of(drawing, rng, weights, coloured):
    """One, two or three kinds to look for, now and then with a colour; some are there, and few are not."""
    there = sorted({shape.kind for shape in drawing.scene.shapes})
    most = min(rng.choices((1, 2, 3), weights)[0], len(there))
    wanted = [(None, kind) for kind in rng.sample(there, most)]
    absent = [kind for kind in KINDS if kind not in there]
    if absent and len(wanted) < 3 and rng.random() < 0.15:
        wanted.append((None, rng.choice(absent)))
    if rng.random() < coloured:
        shape = rng.choice(drawing.scene.shapes)
        wanted = [(shape.colour, shape.kind), *[one for one in wanted if one[1] != shape.kind][: len(wanted) - 1]]
    return wanted


def named(colour, kind):
    """``red star``, or ``star``."""
    return f"{colour} {kind}" if colour else kind


def found_of(drawing, wanted):
    """Which shapes are wanted, from left to right: (place, name)."""
    return [(place, named(colour, kind)) for place, shape in enumerate(drawing.scene.shapes) for colour, kind in wanted
            if shape.kind == kind and colour in (None, shape.colour)]


def detect(drawing, rng, coloured):
    """Boxes of what is asked for."""
    wanted, shapes = wanted_of(drawing, rng, (1, 1, 1), coloured), drawing.scene.shapes
    found = [f"{location_tokens(shapes[place].box, drawing.size)} {name}" for place, name in found_of(drawing, wanted)]
    return f"detect {' ; '.join(named(*one) for one in wanted)}", " ; ".join(found) or "nothing"


def segment(drawing, rng, codes, coloured):
    """Boxes and masks of what is asked for."""
    wanted, answers = wanted_of(drawing, rng, (3, 1, 0), coloured), []
    for place, name in found_of(drawing, wanted):
        box = drawing.scene.shapes[place].box
        tokens = "".join(f"<seg{code:03d}>" for code in codes(drawing.masks[place], box))
        answers.append(f"{location_tokens(box, drawing.size)}{tokens} {name}")
    return f"segment {' ; '.join(named(*one) for one in wanted)}", " ; ".join(answers) or "nothing"


def nothing(drawing, rng):
    """A question about what is not there."""
    there = {shape.kind for shape in drawing.scene.shapes}
    absent = [kind for kind in KINDS if kind not in there]
    kind = rng.choice(absent) if absent and rng.random() < 0.5 else a_noun(rng)
    prompts = [f"detect {kind}", f"segment {kind}", f"answer en what color is the {kind}?"]
    return rng.choice(prompts if drawing.scene.word else [*prompts, "ocr"]), "nothing"


def a_noun(rng):
    """What nobody has drawn; now and then a word that there is not."""
    if rng.random() < 0.5:
        return rng.choice(OTHERS)
    return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 7)))


def stray(drawing, rng):
    """A prompt that is none of the known ones: the answer is the caption."""
    words = [rng.choice((*OTHERS, a_noun(rng))) for _ in range(rng.randint(1, 4))]
    prompt = rng.choice(STRAY) if rng.random() < 0.6 else " ".join(words) + rng.choice(("", "?", "."))
    return prompt, ask("caption en", drawing.scene, rng)[1]


def about_nothing(task, drawing, rng):
    """A question about a picture without any known thing."""
    kind = rng.choice(KINDS)
    prompts = {
        "caption en": "caption en", "caption de": "caption de", "count": f"answer en how many {PLURALS[kind]}?",
        "colour": f"answer en what color is the {kind}?", "beside": f"answer en what is left of the {kind}?",
        "yes/no": f"answer en is there a {kind}?", "detect": f"detect {kind}", "segment": f"segment {kind}",
        "ocr": "ocr", "nothing": f"detect {a_noun(rng)}", "stray": rng.choice(STRAY),
    }
    return prompts[task], {"count": "0", "yes/no": "no"}.get(task, "nothing")
