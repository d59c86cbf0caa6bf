"""Boxes and masks drawn on a picture: where lines and labels are, and that they can be seen."""

import numpy as np
import pytest
from PIL import Image

from npgemma.places.drawing import BLACK, COLOURS, choose_place, draw_boxes
from npgemma.words.locations import Box


def drawn(image, *boxes):
    return np.asarray(draw_boxes(image, boxes))


def grey(width, height):
    return Image.new("RGB", (width, height), (128, 128, 128))


def test_the_frame_lies_on_the_first_and_last_pixels_inside_the_box():
    pixels = drawn(grey(40, 30), Box("", (10.0, 5.0, 30.0, 25.0)))
    inside = (pixels == COLOURS[0]).all(-1)
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 24, 10, 29)
    assert (pixels[15, 20] == 128).all()


def test_a_black_rim_makes_the_line_show_on_its_own_colour():
    pixels = drawn(Image.new("RGB", (40, 30), COLOURS[0]), Box("", (10.0, 5.0, 30.0, 25.0)))
    assert (pixels[15, 9] == BLACK).all() and (pixels[15, 10] == COLOURS[0]).all()


def test_the_original_is_left_alone_and_any_mode_is_drawn_in_colour():
    for mode in ("RGB", "L", "RGBA", "P", "1"):
        image = Image.new(mode, (64, 64))
        before = image.tobytes()
        result = draw_boxes(image, [Box("cat", (5.0, 20.0, 50.0, 60.0))])
        assert image.tobytes() == before
        assert result.mode == "RGB" and result.size == (64, 64)


def test_lines_and_letters_grow_with_the_picture():
    small = drawn(grey(100, 100), Box("cat", (20.0, 40.0, 80.0, 80.0)))
    large = drawn(grey(2000, 2000), Box("cat", (400.0, 800.0, 1600.0, 1600.0)))

    def label_height(pixels):
        return len(np.nonzero((pixels == BLACK).all(-1).any(1))[0])

    assert ((small[60] == COLOURS[0]).all(-1)).sum() == 2
    assert ((large[1200] == COLOURS[0]).all(-1)).sum() == 16
    assert label_height(large) > 3 * label_height(small)


def test_labels_of_one_name_share_a_colour_and_others_have_their_own():
    boxes = [Box(label, (x, 40.0, x + 20.0, 60.0)) for label, x in (("a", 5.0), ("b", 40.0), ("a", 75.0))]
    pixels = drawn(grey(100, 100), *boxes)
    assert (pixels[50, 5] == COLOURS[0]).all()
    assert (pixels[50, 40] == COLOURS[1]).all()
    assert (pixels[50, 75] == COLOURS[0]).all()


def test_a_label_stands_on_its_box():
    assert choose_place((20, 30, 60, 70), 25, 12, [], (100, 100)) == (20, 18, 45, 30)


def test_at_the_upper_rim_a_label_goes_below_its_box():
    assert choose_place((20, 5, 60, 70), 25, 12, [], (100, 100)) == (20, 71, 45, 83)


def test_in_a_box_as_large_as_the_picture_the_label_goes_inside():
    assert choose_place((0, 0, 99, 99), 25, 12, [], (100, 100)) == (0, 0, 25, 12)


def test_a_long_label_slides_back_into_the_picture():
    assert choose_place((80, 30, 95, 70), 40, 12, [], (100, 100)) == (60, 18, 100, 30)


def test_two_labels_do_not_cover_one_another():
    first = choose_place((20, 30, 60, 70), 25, 12, [], (100, 100))
    second = choose_place((22, 30, 62, 70), 25, 12, [first], (100, 100))
    assert second[0] >= first[2] or second[1] >= first[3] or second[3] <= first[1]


@pytest.mark.parametrize(
    "corners", [(0.0, 0.0, 8.0, 8.0), (4.0, 4.0, 4.0, 4.0), (7.9, 7.9, 8.0, 8.0), (-3.0, -3.0, 12.0, 12.0)]
)
def test_boxes_at_the_rim_without_area_or_in_tiny_pictures_are_drawn(corners):
    pixels = drawn(grey(8, 8), Box("a long label", corners))
    assert pixels.shape == (8, 8, 3)
    assert (pixels != 128).any()


def test_no_boxes_leave_the_picture_as_it_is():
    image = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    assert (drawn(image) == np.asarray(image)).all()


def test_a_mask_lays_half_of_its_colour_over_its_pixels_alone():
    mask = np.zeros((30, 40), bool)
    mask[10:20, 15:25] = True
    box = Box("", (10.0, 5.0, 30.0, 25.0))
    pixels = np.asarray(draw_boxes(grey(40, 30), [box], [mask]))
    assert np.abs(pixels[15, 20] - (np.array(COLOURS[0]) + 128) / 2).max() <= 1
    assert (pixels[15, 12] == 128).all() and (pixels[9, 20] == 128).all()


def test_boxes_without_a_mask_stand_beside_those_with_one():
    boxes = [Box("a", (5.0, 5.0, 15.0, 15.0)), Box("b", (20.0, 5.0, 30.0, 15.0))]
    mask = np.zeros((30, 40), bool)
    mask[8:12, 23:27] = True
    pixels = np.asarray(draw_boxes(grey(40, 30), boxes, [None, mask]))
    assert (pixels[10, 10] == 128).all() and (pixels[10, 25] != 128).any()
