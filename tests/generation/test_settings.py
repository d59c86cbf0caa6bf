"""Row 78: every number that steers generation is held against its range."""

import pytest
from generation_models import wordy_model

from npgemma.base.errors import InputError
from npgemma.generation.generate import generate, generate_batch
from npgemma.generation.settings import Settings

NAN, INF = float("nan"), float("inf")
WRONG = {
    "max_new_tokens": (-1, 1.5, "5", True, NAN),
    "min_new_tokens": (-1, 2.0, None),
    "temperature": (-0.1, NAN, INF, "1", True),
    "top_k": (0, -3, 1.5, "5"),
    "top_p": (0, -0.1, 1.01, NAN, "0.5"),
    "min_p": (-0.01, 1.5, NAN),
    "repetition_penalty": (0, -1.0, NAN, INF, None),
    "seed": (-1, 1.5, "7"),
    "num_beams": (0, -1, 2.5, None),
    "length_penalty": (NAN, INF, "1"),
    "num_return": (0, -1, 1.5),
    "stop": ("text", [""], [5], [b"x"]),
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in WRONG.items() for value in values])
def test_row_78_a_setting_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=f"^{name}: came as .*want"):
        Settings(**{name: value})


@pytest.mark.parametrize(
    "settings, message",
    (
        ({"num_beams": 2, "temperature": 1.0}, "beams are searched, not drawn"),
        ({"num_beams": 2, "num_return": 3}, "3 answers from 2 beams"),
        ({"num_return": 2}, "greedy answers are all the same"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens: 5 is more than max_new_tokens, 4"),
    ),
)
def test_choices_that_exclude_each_other_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Settings(**settings)


@pytest.mark.parametrize(
    "settings, message",
    (
        ({"max_new_tokens": 10**9}, "1,000,000,000 of answer;.*context is 512"),
        ({"top_k": 10**6, "temperature": 1.0}, "top_k: came as 1000000; want at most 2182"),
        ({"stop_ids": [5000]}, "stop_ids: came with id 5000"),
        ({"suppress_ids": [-1]}, "suppress_ids: came as -1"),
        ({"allowed": [9999]}, "allowed: came with id 9999"),
        ({"allowed": []}, "allowed: came empty"),
        ({"max_tokens": 5}, "max_tokens: is no setting of generation; there are max_new_tokens"),
    ),
)
def test_what_does_not_fit_the_model_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        generate(wordy_model(), ids=[2, 30], **settings)


def test_limits_alone_mean_drawing_at_temperature_1_and_temperature_0_means_none():
    assert Settings(top_p=0.9).samples and Settings(top_p=0.9).heat == 1.0
    assert not Settings().samples
    assert not Settings(temperature=0, top_k=5).samples


@pytest.mark.parametrize(
    "settings",
    (
        {"temperature": 1e-300}, {"temperature": 1e300}, {"temperature": 10**400}, {"repetition_penalty": 1e300},
        {"repetition_penalty": 1e-300}, {"length_penalty": 1e308}, {"num_beams": 10**9}, {"num_return": 10**6},
    ),
)
def test_what_no_float_can_compute_with_is_refused(settings):
    [name] = settings
    with pytest.raises(InputError, match=f"^{name}: came as .{{1,80}}; want"):
        Settings(**settings)


@pytest.mark.parametrize(
    "settings", ({"stop": 5}, {"stop": None}, {"stop_ids": 5}, {"suppress_ids": 5}, {"allowed": 5})
)
def test_what_is_no_list_is_a_type_error_of_ours(settings):
    [name] = settings
    for kind in (InputError, TypeError):
        with pytest.raises(kind, match=f"^{name}: came as "):
            Settings(**settings)


@pytest.mark.parametrize(
    "given, message",
    (
        ({"on_token": 5}, "on_token: came as 5"),
        ({"observe": 5}, "observe: came as 5"),
        ({"image": []}, r"image: came as \[\]"),
        ({"image": {}}, "image: came as {}"),
        ({"image": ()}, r"image: came as \(\)"),
        ({"image": iter([])}, "image: came as .*, without a picture"),
        ({"image": ""}, "image: came as '', without a picture"),
        ({"image": {"a": 1}}, "image: came as dict"),
        ({"image": 5}, "image: came as int"),
        ({"pixels": [[1.0], [1.0, 2.0]]}, "pixels: came as lists of different lengths"),
        ({"prompt": "", "ids": [2**63]}, f"ids: came with id {2**63}; want ids in 0"),
        ({"prompt": "", "ids": [2**70]}, f"ids: came with id {2**70}; want ids in 0"),
    ),
)
def test_what_is_no_picture_and_no_function_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        generate(wordy_model(), **{"prompt": "caption en", **given})


def test_what_is_no_model_and_no_request_is_refused():
    with pytest.raises(InputError, match="model: came as NoneType"):
        generate(None)
    with pytest.raises(TypeError, match="requests: one came as dict"):
        generate_batch(wordy_model(), [{"prompt": "cat"}])


def test_beams_that_can_never_end_are_said():
    model = wordy_model()
    with pytest.raises(InputError, match="allowed: no beam could end; allow a stop id somewhere"):
        generate(model, prompt="cat", num_beams=2, max_new_tokens=3, allowed=lambda ids: [5], suppress_ids=[5])
