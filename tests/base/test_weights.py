import numpy as np
import pytest
from random_models import GENERATIONS, PALIGEMMA_2, random_arrays

from npgemma.base.errors import InputError, WeightError
from npgemma.base.precision import PRECISIONS
from npgemma.base.tensors import schema
from npgemma.base.weights import Weights
from npgemma.config import VARIANTS


def test_a_narrowed_view_reads_by_short_name():
    w = Weights({"text.blocks.3.attn.q.weight": np.float32([1, 2])})
    assert w.at("text").at("blocks.3").at("attn")["q.weight"].tolist() == [1, 2]
    assert w.at("text.blocks.3").path == "text.blocks.3."


def test_a_missing_weight_lists_its_neighbours():
    w = Weights(random_arrays(PALIGEMMA_2)).at("text.blocks.0")
    with pytest.raises(WeightError, match=r"no weight 'text.blocks.0.attn.o.weight' among .*blocks.0.attn.q.weight"):
        w["attn.o.weight"]
    with pytest.raises(KeyError):
        w["attn.o.weight"]


def test_a_float64_run_widens_on_reading_and_keeps_no_copy():
    stored = np.float32([1.5])
    w = Weights({"x": stored}, PRECISIONS["float64"])
    assert w["x"].dtype == np.float64 and w.arrays["x"] is stored


def test_keep_names_rounds_and_shows():
    seen = []
    w = Weights({}, PRECISIONS["bf16-hf-eager"], lambda *shown: seen.append(shown)).at("text.blocks.0")
    kept = w.keep("middle", np.float32([257.0]))
    assert kept.tolist() == [256.0]
    assert [(name, x.tolist()) for name, x in seen] == [("text.blocks.0.middle", [256.0])]


def test_what_an_observer_returns_goes_on():
    w = Weights({}, observe=lambda name, x: x + 1)
    assert w.keep("middle", np.float32([1.0])).tolist() == [2.0]


def test_show_names_but_does_not_round():
    seen = {}
    w = Weights({}, PRECISIONS["bf16-hf-eager"], seen.__setitem__)
    w.show("cos", np.float32([257.0]))
    assert seen["cos"].tolist() == [257.0]


def test_row_87_a_tensor_promoted_to_another_dtype_is_refused():
    with pytest.raises(InputError, match="text.scores: computed as float64, the precision is float32"):
        Weights({}).at("text").keep("scores", np.float32([1.0]) * np.float64(2.0))


@pytest.mark.parametrize("replacement", [np.float32([1, 2]), np.float64([1]), "text"])
def test_a_replacement_of_another_shape_or_dtype_is_refused(replacement):
    w = Weights({}, observe=lambda name, x: replacement).at("text")
    with pytest.raises(InputError, match=r"text.norm: the replacement is .*; want \(1,\) float32"):
        w.keep("norm", np.float32([1.0]))


def count(cfg):
    return sum(int(np.prod(parameter.shape)) for parameter in schema(cfg).values())


# Published counts, equal to keras-hub's presets where that has one (257152 rows).
PUBLISHED = {
    "paligemma-3b": (2923335408, 2924220144, 2927759088),
    "paligemma2-3b": (3032094960, 3032979696, 3036518640),
    "paligemma2-10b": (9662409456, 9663294192, 9666833136),
    "paligemma2-28b": (27650192112, 27651076848, 27654615792),
}


@pytest.mark.parametrize("family", PUBLISHED)
def test_parameter_counts_equal_the_published_ones(family):
    assert tuple(count(VARIANTS[f"{family}-{R}"]) for R in (224, 448, 896)) == PUBLISHED[family]


TENSORS = [("paligemma-3b", 603), ("paligemma2-3b", 727), ("paligemma2-10b", 903), ("paligemma2-28b", 947)]


@pytest.mark.parametrize(("family", "tensors"), TENSORS)
def test_tensor_counts_equal_the_released_files(family, tensors):
    assert len(schema(VARIANTS[f"{family}-224"])) == tensors


@pytest.mark.parametrize("name", GENERATIONS)
def test_each_shape_has_as_many_letters_as_axes(name):
    for parameter in schema(GENERATIONS[name]).values():
        assert len(parameter.letters.split()) == len(parameter.shape)


def test_an_observer_cannot_write_into_what_it_sees():
    def spoil(name, x):
        with pytest.raises(ValueError, match="read-only"):
            x += 1
        seen.append(x)

    x, seen = np.float32([1, 2]), []
    kept = Weights({}).watched_by(spoil).keep("scores", x)
    assert kept is x and kept.tolist() == [1, 2] and kept.flags.writeable
    assert np.shares_memory(seen[0], x)  # a view: watching copies nothing


def test_an_observer_that_cannot_be_called_is_refused():
    assert Weights({}).watched_by(None).observe is None  # nobody watches
    with pytest.raises(TypeError, match="observe: came as 5"):
        Weights({}).watched_by(5)
