"""Write held-out scenes as pictures and questions with what is right: for ``generate --batch`` and ``evaluate``.

    python tools/tiny/write_questions.py FOLDER --tasks detect --scenes 1000
    npgemma generate --batch FOLDER/questions.jsonl -o FOLDER/answers.jsonl
    npgemma evaluate FOLDER/answers.jsonl --reliability

``--drawn`` takes the drawings of drawn_world.py instead of the scenes that the model in the box knows.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

import drawn_questions  # noqa: E402
import drawn_world  # noqa: E402
import world  # noqa: E402
from world import HELD_OUT  # noqa: E402

from npgemma.places.run_lengths import encode_runs  # noqa: E402
from npgemma.words.locations import read_boxes  # noqa: E402


def from_world(seed, task):
    """Picture, masks and question of one scene; the question is None where the scene cannot bear it."""
    scene = world.make_scene(seed)
    return world.draw(scene), (), world.ask(task, scene, random.Random(seed + 1))


def from_drawings(seed, task):
    """The same of one drawing; codes are left out of what is right, its masks say more."""
    drawing = drawn_world.make_drawing(seed)
    question = drawn_questions.ask_about(task, drawing, random.Random(seed + 1), lambda mask, box: ())
    return drawing.image, list(zip(drawing.scene.shapes, drawing.masks, strict=True)), question


def right(task, answer, size, masks):
    """What an answer is held against: a text, or objects."""
    if task not in ("detect", "segment"):
        return {"captions": [answer], "answer": answer} if task.startswith("caption") else {"answer": answer}
    objects = []
    for box in read_boxes(answer, size)[0] if answer != "nothing" else []:
        thing = {"label": box.label, "box": list(box.corners)}
        near = [mask for shape, mask in masks if np.allclose(shape.box, box.corners, atol=0.5)]
        objects.append(thing | ({"mask": encode_runs(near[0])} if task == "segment" and near else {}))
    return {"objects": objects, "size": list(size)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=drawn_questions.TASKS, default=["detect"])
    parser.add_argument("--scenes", type=int, default=1000, help="of each task")
    parser.add_argument("--seed", type=int, default=0, help="chooses the scenes; training never sees any of them")
    parser.add_argument("--drawn", action="store_true", help="as people draw")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    make = from_drawings if options.drawn else from_world
    with open(options.folder / "questions.jsonl", "w", encoding="utf-8") as file:
        for task in options.tasks:
            number, written = HELD_OUT * (1 + options.seed), 0
            while written < options.scenes:
                image, masks, question = make(number, task)
                number += 1
                if question is None:
                    continue
                path = options.folder / f"{task.replace(' ', '-').replace('/', '-')}-{written:04d}.png"
                image.save(path)
                asked = {"image": str(path), "prompt": question[0], "task": task}
                file.write(json.dumps(asked | right(task, question[1], image.size, masks)) + "\n")
                written += 1


if __name__ == "__main__":
    main()
