"""The world that the next model in the box learns from: what it promises, scene by scene."""

import json
import random
import sys

import numpy as np
import pytest
from PIL import Image

import golden
from npgemma import load_codec
from npgemma.places.run_lengths import decode_runs
from npgemma.words.locations import Box, read_boxes, read_object

sys.path.append(str(golden.ROOT / "tools" / "tiny"))
import draw_by_hand  # noqa: E402
import drawn_questions  # noqa: E402
import drawn_world  # noqa: E402
import evaluate_codec  # noqa: E402
import shapes  # noqa: E402

SEEDS = range(drawn_world.HELD_OUT, drawn_world.HELD_OUT + 60)
DRAWINGS = [drawn_world.make_drawing(seed) for seed in SEEDS]


def test_a_seed_makes_the_same_drawing_and_another_another():
    for seed, drawing in zip(SEEDS, DRAWINGS[:8], strict=False):
        again = drawn_world.make_drawing(seed)
        assert again.image.tobytes() == drawing.image.tobytes() and again.scene == drawing.scene
        assert all((one == two).all() for one, two in zip(again.masks, drawing.masks, strict=True))
    assert len({drawing.image.tobytes() for drawing in DRAWINGS}) == len(DRAWINGS)


def test_frames_and_grounds_are_of_every_kind_and_white_comes_first():
    ratios = [drawing.size[0] / drawing.size[1] for drawing in DRAWINGS]
    assert min(ratios) >= 1 / 3.1 and max(ratios) <= 3.1 and min(ratios) < 0.6 < 1.7 < max(ratios)
    counts = {ground: sum(one.ground == ground for one in DRAWINGS) for ground in drawn_world.PAINT}
    assert min(counts.values()) > 0 and max(counts, key=counts.get) == "white"
    assert {len(drawing.masks) for drawing in DRAWINGS} == {1, 2, 3, 4, 5}


def test_a_shape_s_box_holds_its_mask_and_nothing_more():
    for drawing in DRAWINGS:
        for shape, mask in zip(drawing.scene.shapes, drawing.masks, strict=True):
            assert mask.shape == drawing.size[::-1]
            assert shapes.box_of(mask) == shape.box


def test_the_mask_of_an_outlined_shape_is_its_filled_region():
    outlined = [(shape, mask) for drawing in DRAWINGS for shape, mask, line in
                zip(drawing.scene.shapes, drawing.masks, drawing.outlined, strict=True) if line]
    assert len(outlined) > 20
    for shape, mask in outlined:
        if shape.kind in ("circle", "square"):
            left, top, right, bottom = shape.box
            assert mask[(top + bottom) // 2, (left + right) // 2]


def test_answers_about_places_are_read_back_as_the_shapes():
    asked = {"detect": 0, "segment": 0}

    def codes(mask, box):
        return range(16)

    for number, drawing in enumerate(DRAWINGS):
        for task in asked:
            prompt, answer = drawn_questions.ask_about(task, drawing, random.Random(number), codes)
            if answer == "nothing":
                continue
            boxes, unread = read_boxes(answer, drawing.size)
            assert prompt.startswith(task) and not unread
            for box in boxes:
                assert len(box.segments) == (16 if task == "segment" else 0)
                near = [shape for shape in drawing.scene.shapes if np.allclose(shape.box, box.corners, atol=0.2)]
                assert [box.label.split()[-1]] == [shape.kind for shape in near]
                asked[task] += 1
    assert min(asked.values()) > 50


def test_what_is_not_there_is_nothing():
    for number, drawing in enumerate(DRAWINGS):
        prompt, answer = drawn_questions.ask_about("nothing", drawing, random.Random(number))
        assert answer == "nothing"
        assert not any(prompt.endswith((shape.kind, f"{shape.kind}?")) for shape in drawing.scene.shapes)
        assert prompt != "ocr" or not drawing.scene.word
    empty = drawn_world.empty_drawing(3)
    assert empty.masks == () and empty.image.size == empty.size
    for task in drawn_questions.TASKS:
        prompt, answer = drawn_questions.ask_about(task, empty, random.Random(1))
        assert answer == {"count": "0", "yes/no": "no"}.get(task, "nothing"), prompt


def test_a_prompt_beside_the_known_ones_gets_the_caption():
    for number, drawing in enumerate(DRAWINGS[:20]):
        prompt, answer = drawn_questions.ask_about("stray", drawing, random.Random(number))
        assert not prompt.startswith(("detect", "segment", "ocr", "answer en what color is"))
        assert answer == drawn_questions.ask_about("caption en", drawing, random.Random(0))[1]


def test_the_plainest_way_is_a_white_square_with_upright_shapes():
    for seed in SEEDS[:10]:
        drawing = drawn_world.make_drawing(seed, drawn_world.PLAIN, words=0.0)
        pixels = np.asarray(drawing.image)
        assert drawing.size[0] == drawing.size[1]
        assert (pixels[~np.any(drawing.masks, axis=0)] == 255).all()
    turned = drawn_world.only(drawn_world.PLAIN, frame=2.0, turn=15)
    assert turned.habits.turn == 15 and turned.frame == 2.0 and drawn_world.PLAIN.habits.turn == 0


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_a_contour_has_about_the_side_that_it_is_given(kind):
    for seed in range(20):
        points = shapes.contour(kind, random.Random(seed), shapes.Habits())
        assert 0.7 < np.ptp(points, axis=0).max() < 1.4


def test_objects_of_the_world_are_boxes():
    text = drawn_questions.location_tokens((0, 0, 10, 20), (10, 20))
    assert isinstance(read_object(text, (10, 20), 1023), Box) and text == "<loc0000><loc0000><loc1023><loc1023>"


def test_the_codec_in_the_box_brings_masks_back():
    codec = load_codec()
    for outlined, mean, least in ((0.0, 0.96, 0.9), (1.0, 0.88, 0.75)):
        found = evaluate_codec.judge(codec, shapes.Habits(outlined=outlined, cut=0.25), 40, 7, False)
        scores = [score for _, score in found]
        assert np.mean(scores) >= mean and np.percentile(scores, 5) >= least, outlined


def test_the_pages_drawn_by_hand_are_those_of_the_script():
    folder = golden.GOLDEN / "tiny-box" / "drawn"
    lines = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    assert len(lines) == len(draw_by_hand.PAGES) == 20
    for number, line in enumerate(lines):
        image, masks = draw_by_hand.draw_page(number)
        with Image.open(folder / line["image"]) as stored:
            assert np.array_equal(np.asarray(stored.convert("RGB")), np.asarray(image))
        assert line == draw_by_hand.question_of(number, line["image"], masks)
        for thing in line.get("objects", ()):
            left, top, right, bottom = thing["box"]
            mask = decode_runs(thing["mask"])
            assert mask.shape == image.size[::-1] and mask[top:bottom, left:right].sum() == mask.sum() > 0
