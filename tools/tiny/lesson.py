"""Write examples that teach the model in the box a new question: ``python tools/tiny/lesson.py FOLDER``.

"what colors?" is answered by the colours of the shapes from right to left.  Half of the examples are questions that
the model knows, so that it does not forget them (``--old 0`` leaves them out).  NumPy and Pillow are enough.
"""

import argparse
import json
import random
from pathlib import Path

from batches import pixels
from PIL import Image
from world import HELD_OUT, TASKS, ask, draw, make_scene

QUESTION = "what colors?"
# Seeds of scenes that nobody has learnt from or was judged by.
FIRST = 5 * HELD_OUT


def colours(scene):
    """The answer to the new question: ``red, blue``."""
    return ", ".join(shape.colour for shape in reversed(scene.shapes))


def old_question(scene, rng):
    """A question that the model knows."""
    tasks = list(TASKS)
    rng.shuffle(tasks)
    return next(filter(None, (ask(task, scene, rng) for task in tasks)))


def write_examples(folder, count, first, old, name):
    """A line an example, a picture a line; every second one is old if ``old`` is a half."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    rng = random.Random(first)
    with open(folder / f"{name}.jsonl", "w") as file:
        for number in range(count):
            scene = make_scene(first + number)
            image = f"{name}/{number}.png"
            Image.fromarray(pixels(draw(scene))).save(folder / image)
            known = (number + 1) * old // 1 > number * old // 1
            prefix, suffix = old_question(scene, rng) if known else (QUESTION, colours(scene))
            file.write(json.dumps({"image": image, "prefix": prefix, "suffix": suffix}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1600)
    parser.add_argument("--old", type=float, default=0.5, help="the part of questions that the model knows")
    options = parser.parse_args()
    write_examples(options.folder, options.count, FIRST, options.old, "lesson")
    write_examples(options.folder, 60, FIRST + HELD_OUT // 2, 0.0, "new")
    write_examples(options.folder, 60, FIRST + HELD_OUT // 2, 1.0, "old")


if __name__ == "__main__":
    main()
