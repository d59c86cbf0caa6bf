"""Polygons along pixel edges: filled again, they are the mask."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from random_codecs import MASKS, mask_of

from npgemma.places.polygons import outlines


def fill(polygons, shape):
    """Pixels whose middle has an odd number of upright sides to its left."""
    mask = np.zeros(shape, bool)
    for polygon in polygons:
        points = list(zip(polygon[::2], polygon[1::2], strict=True))
        for (x, top), (next_x, bottom) in zip(points, points[1:] + points[:1], strict=True):
            assert x == next_x or top == bottom
            if x == next_x:
                mask[min(top, bottom) : max(top, bottom), x:] ^= True
    return mask


def test_pycocotools_fills_them_to_the_same_mask():
    with_polygons = [case for case in MASKS if "polygons" in case]
    assert len(with_polygons) > 50
    for case in with_polygons:
        assert outlines(mask_of(case)) == case["polygons"]
        assert case["filled"] == case["counts"]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**25 - 1))
def test_any_mask_without_a_hole_comes_back(height, width, bits):
    mask = np.array([bits >> n & 1 for n in range(height * width)], bool).reshape(height, width)
    polygons = outlines(mask)
    assert (polygons is None) == has_hole(mask)
    if polygons is not None:
        assert (fill(polygons, mask.shape) == mask).all()


def has_hole(mask):
    """Whether some empty pixel cannot be reached from outside, corner to corner included."""
    empty = ~np.pad(mask, 1)
    reached = np.zeros_like(empty)
    reached[0, 0] = True
    for _ in range(empty.size):
        spread = np.pad(reached, 1)
        rows, columns = empty.shape
        near = [spread[y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
        reached = np.any(near, axis=0) & empty
    return bool((empty & ~reached).any())


def test_one_pixel_is_a_square_and_corners_are_few():
    assert outlines(np.array([[0, 0], [0, 1]])) == [[1, 1, 2, 1, 2, 2, 1, 2]]
    assert outlines(np.ones((3, 4))) == [[0, 0, 4, 0, 4, 3, 0, 3]]


def test_pixels_that_touch_at_a_corner_are_two_polygons():
    assert len(outlines(np.array([[1, 0], [0, 1]]))) == 2


def test_a_mask_with_a_hole_has_none_and_an_empty_one_has_no_polygon():
    ring = np.ones((3, 3))
    ring[1, 1] = 0
    assert outlines(ring) is None
    assert outlines(np.zeros((3, 3))) == []
