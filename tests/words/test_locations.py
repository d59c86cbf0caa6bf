"""Boxes in answers: what is read, what is not and why, and that writing undoes reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npgemma.base.errors import InputError
from npgemma.words.locations import Box, has_locations, read_boxes, write_boxes

SEGMENTS = "".join(f"<seg{code:03d}>" for code in range(16))


def test_locations_are_top_left_bottom_right_of_the_original_picture():
    boxes, unread = read_boxes("<loc0000><loc0341><loc0682><loc1023> cat", (300, 600))
    assert boxes == [Box("cat", (100.0, 0.0, 300.0, 400.0))]
    assert unread == []


def test_divided_by_1024_the_last_location_lies_inside():
    boxes, _ = read_boxes("<loc0256><loc0512><loc0768><loc1023> cat", (1024, 2048), divisor=1024)
    assert boxes == [Box("cat", (512.0, 512.0, 1023.0, 1536.0))]


def test_several_objects_keep_their_order_and_their_labels():
    text = "<loc0001><loc0002><loc0003><loc0004> red car ; <loc0005><loc0006><loc0007><loc0008> dog"
    boxes, unread = read_boxes(text, (1023, 1023))
    assert [box.label for box in boxes] == ["red car", "dog"]
    assert boxes[1].corners == (6.0, 5.0, 8.0, 7.0)
    assert unread == []


@pytest.mark.parametrize("joint", [";", " ;", "; ", "  ;  ", "\n;"])
def test_spaces_around_the_semicolon_do_not_matter(joint):
    boxes, unread = read_boxes(joint.join(["<loc0001><loc0002><loc0003><loc0004> cat"] * 2), (10, 10))
    assert [box.label for box in boxes] == ["cat", "cat"] and unread == []


def test_segment_codes_are_kept_as_numbers():
    boxes, _ = read_boxes(f"<loc0001><loc0002><loc0003><loc0004>{SEGMENTS} cat", (10, 10))
    assert boxes[0].segments == tuple(range(16))
    assert boxes[0].label == "cat"


def test_a_box_may_have_no_label_and_no_area():
    boxes, unread = read_boxes("<loc0511><loc0511><loc0511><loc0511>", (1023, 1023))
    assert boxes == [Box("", (511.0, 511.0, 511.0, 511.0))] and unread == []


def test_nothing_found_is_no_box_and_no_fault():
    assert read_boxes("", (10, 10)) == ([], [])
    assert read_boxes("  \n", (10, 10)) == ([], [])


@pytest.mark.parametrize(
    "part, reason",
    [
        ("a cat", "does not begin with <loc"),
        ("cat <loc0001><loc0002><loc0003><loc0004>", "does not begin with <loc"),
        ("<loc0001><loc0002><loc0003> cat", "begins with 3 locations"),
        ("<loc0001><loc0002><loc0003><loc0004><loc0005> cat", "begins with 5 locations"),
        ("<loc1024><loc0002><loc1030><loc0004> cat", "<loc1030> is past <loc1023>"),
        ("<loc0009><loc0002><loc0003><loc0004> cat", "top 9 is below its bottom 3"),
        ("<loc0001><loc0009><loc0003><loc0004> cat", "left 9 is right of its right 4"),
        ("<loc0001><loc0002><loc0003><loc0004><seg001> cat", "1 segment codes; want 16"),
        ("<loc0001><loc0002><loc0003><loc0004>" + "<seg128>" * 16, "<seg128> is past <seg127>"),
        ("<loc0001><loc0002><loc0003><loc0004> cat <loc0001>", "label holds more"),
        ("<loc1><loc0002><loc0003><loc0004> cat", "does not begin with <loc"),
        ("", "does not begin with <loc"),
    ],
)
def test_what_is_no_box_comes_back_as_it_was_with_the_reason(part, reason):
    good = "<loc0001><loc0002><loc0003><loc0004> dog"
    boxes, unread = read_boxes(f"{good} ; {part} ; {good}", (10, 10))
    assert [box.label for box in boxes] == ["dog", "dog"]
    assert [one.text for one in unread] == [part]
    assert reason in unread[0].reason


def test_only_answers_about_places_have_locations():
    assert has_locations("a cat <loc0001>")
    assert not has_locations("a cat ; a dog")
    assert not has_locations("<loc1>")


def test_json_says_label_box_and_reason():
    boxes, unread = read_boxes("<loc0000><loc0000><loc1023><loc1023> cat ; dog", (3, 4))
    assert boxes[0].as_object() == {"label": "cat", "box": [0.0, 0.0, 3.0, 4.0]}
    assert unread[0].as_object()["unread"] == "dog"
    with_codes, _ = read_boxes(f"<loc0000><loc0000><loc1023><loc1023>{SEGMENTS} cat", (3, 4))
    assert with_codes[0].as_object()["segments"] == list(range(16))


@given(
    st.lists(
        st.tuples(*[st.integers(0, 1023)] * 4, st.sampled_from(["", "cat", "red car"]), st.booleans()), max_size=4
    ),
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from([1023, 1024]),
)
def test_writing_undoes_reading(places, width, height, divisor):
    parts = [
        f"<loc{min(a, c):04d}><loc{min(b, d):04d}><loc{max(a, c):04d}><loc{max(b, d):04d}>"
        f"{SEGMENTS if segmented else ''} {label}".rstrip()
        for a, b, c, d, label, segmented in places
    ]
    text = " ; ".join(parts)
    boxes, unread = read_boxes(text, (width, height), divisor)
    assert not unread
    assert write_boxes(boxes, (width, height), divisor) == text


def test_edges_outside_the_picture_move_to_its_border():
    assert write_boxes([Box("cat", (-5.0, 5.0, 30.0, 20.0))], (20, 10)) == "<loc0512><loc0000><loc1023><loc1023> cat"


@pytest.mark.parametrize("corners", [(5.0, 0.0, 4.0, 9.0), (0.0, 5.0, 9.0, 4.0), (float("nan"), 0.0, 1.0, 1.0)])
def test_a_box_inside_out_is_refused(corners):
    with pytest.raises(InputError, match="left <= right"):
        write_boxes([Box("cat", corners)], (10, 10))


@pytest.mark.parametrize("label", ["a ; b", "<loc0001>", "x<seg001>"])
def test_a_label_that_could_not_be_read_again_is_refused(label):
    with pytest.raises(InputError, match="could not be read again"):
        write_boxes([Box(label, (0.0, 0.0, 1.0, 1.0))], (10, 10))


def test_strange_divisors_and_empty_pictures_are_refused():
    with pytest.raises(InputError, match="divisor"):
        read_boxes("", (10, 10), divisor=1000)
    with pytest.raises(InputError, match="size"):
        write_boxes([], (0, 10))
