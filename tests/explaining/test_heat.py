"""Arrays as pictures."""

import base64
import io
import re

import numpy as np
from PIL import Image

from npgemma.explaining.heat import MOST, heat


def decoded(html):
    data = re.search(r'src="data:image/png;base64,([^"]+)"', html)[1]
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def test_nothing_is_grey_and_the_two_signs_are_blue_and_red():
    image = decoded(heat(np.array([[-2.0, 0.0, 2.0]]), "x"))
    negative, nothing, positive = (image.getpixel((column, 0)) for column in range(3))
    assert max(nothing) - min(nothing) < 4 and min(nothing) > 200
    assert negative[2] > negative[0] and positive[0] > positive[2]


def test_colours_go_with_the_largest_size_of_either_sign():
    little, large = (decoded(heat(np.array([[low, 0.0, 4.0]]), "x")) for low in (-1.0, -4.0))
    assert little.getpixel((1, 0)) == large.getpixel((1, 0))
    assert little.getpixel((0, 0)) != large.getpixel((0, 0))


def test_numbers_of_one_sign_go_from_pale_to_dark():
    image = decoded(heat(np.array([[0.0, 1.0, 2.0, 3.0]]), "x"))
    lights = [sum(image.getpixel((column, 0))) for column in range(4)]
    assert lights == sorted(lights, reverse=True) and len(set(lights)) == 4


def test_large_arrays_are_drawn_by_every_so_manieth_number():
    image = decoded(heat(np.ones((3, 4 * MOST + 1)), "x"))
    assert image.size[0] <= MOST and image.size[1] == 3


def test_one_number_alone_can_be_drawn():
    assert decoded(heat(np.zeros((1, 1)), "x")).size == (1, 1)
