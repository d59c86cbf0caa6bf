import sys
import threading

import numpy as np
import pytest
from fake_device import CUPY, HERE, DeviceArray, planted, to_device

from npgemma.base import device
from npgemma.base.errors import InputError


def refusal(name):
    with pytest.raises(InputError) as found:
        device.open_card(name)
    said = found.value.naming("--device")
    assert "\n" not in said and said.startswith("--device")
    return said


def test_the_host_needs_nothing():
    assert device.open_card("cpu") is None and "cupy" not in sys.modules


@pytest.mark.parametrize(
    "name", ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:1.0", "cuda 0", "", None, 0, "cuda:1234"]
)
def test_a_wrong_name_is_told_which_there_are(name):
    assert "want cpu, cuda, or cuda:N" in refusal(name)


def test_without_cupy_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not there
    assert "pip install 'npgemma[cuda12]'" in refusal("cuda")


def test_a_cupy_that_does_not_load_is_told_apart(tmp_path, monkeypatch):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.12:\\n cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    said = refusal("cuda")
    assert "libcudart.so.12: cannot open" in said and "remove every cupy package" in said


def test_without_a_driver_it_is_said_what_to_install():
    with planted(problem="cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"):
        said = refusal("cuda")
    assert "cudaErrorInsufficientDriver" in said and "install or update the driver" in said
    with planted(cards=0):
        assert "it knows no card" in refusal("cuda:0")


def test_a_number_beyond_the_cards_is_told_which_there_are():
    with planted(cards=2):
        assert "this machine has cuda:0, cuda:1" in refusal("cuda:2")


def test_a_library_that_is_missing_shows_before_any_weight_is_copied(monkeypatch):
    with planted():
        def no_library(shape, dtype):
            raise ImportError('Failure finding "libcublasLt.so.12":\n No such file')

        monkeypatch.setattr(sys.modules["cupy"], "ones", no_library)
        said = refusal("cuda")
    assert "libcublasLt.so.12" in said and "brings the CUDA libraries" in said


def test_a_card_that_multiplies_wrongly_is_refused(monkeypatch):
    with planted():
        monkeypatch.setattr(sys.modules["cupy"], "ones", lambda shape, dtype: to_device(np.full(shape, 0.9, dtype)))
        assert "multiplies wrongly" in refusal("cuda")


def test_an_opened_card_is_that_of_the_thread_and_knows_its_room():
    with planted(cards=3, memory=1000):
        card = device.open_card("cuda:2")
        assert card.name == "cuda:2" and HERE.number == 2
        held = card.put(np.zeros(10))
        assert isinstance(held, DeviceArray) and card.free() <= 1000 - 80


def test_numbers_are_fetched_in_one_go():
    with planted() as traffic:
        arrays = [np.array([7, 2**53]), np.array([[0.1], [np.nan]], np.float32), np.array([True, False])]
        found = device.fetch(*map(to_device, arrays))
        assert traffic.waits == 1
    for array, one in zip(arrays, found, strict=True):
        assert np.array_equal(one.astype(array.dtype), array.reshape(-1), equal_nan=array.dtype.kind == "f")


def test_another_thread_enters_the_card_of_its_arrays():
    with planted(cards=2):
        device.open_card("cuda:1")
        x, found = to_device(np.ones(2)), []

        def work():
            try:
                _ = x + x
            except TypeError as problem:
                found.append(str(problem))
            device.enter(x)
            found.append((x + x).get().tolist())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "lies on cuda:1, this thread computes on cuda:0" in found[0] and found[1] == [2.0, 2.0]
    device.enter(np.ones(1))  # nothing to do
    device.wait_for(np.ones(1))


def test_fetched_arrays_of_the_host_are_the_same_arrays():
    arrays = {"a": np.ones(2), "b": to_device(np.zeros(3))}
    fetched = device.Fetched(arrays)
    assert fetched["a"] is arrays["a"] and fetched["b"].tolist() == [0.0] * 3
    assert list(fetched) == ["a", "b"] and len(fetched) == 2 and "a" in fetched and "c" not in fetched


def test_the_pretended_arrays_have_nothing_that_cupys_have_not():
    own = {name for name in vars(DeviceArray) if not name.startswith("_")} - {"scalar"}
    operators = {name for name in vars(DeviceArray) if name.startswith("__")}
    python = {"__module__", "__init__", "__dict__", "__weakref__", "__doc__", "__qualname__",
              "__firstlineno__", "__static_attributes__", "__hash__"}
    assert own <= set(CUPY["array"]) and operators - python <= set(CUPY["array"])


def test_cupys_list_is_that_of_the_installed_one():
    """Skipped where CuPy's wheel is not installed; it needs no card."""
    cupy = pytest.importorskip("cupy")
    for name, arguments in CUPY["functions"].items():
        found = cupy
        for part in name.split("."):
            found = getattr(found, part)
        assert callable(found), name
    assert all(callable(getattr(cupy, name)) for name in CUPY["ufuncs"])
    assert set(CUPY["array"]) <= set(dir(cupy.ndarray))
    # An empty array can be made without a card, and shows what is refused before any card is asked.
    nothing = cupy.ndarray((0,), np.float32, cupy.cuda.MemoryPointer(cupy.cuda.UnownedMemory(0, 0, None, 0), 0))
    for refused in (lambda: np.full(0, 1.0, like=nothing), lambda: np.asarray(nothing), lambda: range(1)[nothing]):
        with pytest.raises(TypeError):
            refused()
    with pytest.raises(NotImplementedError):
        np.logaddexp.reduce(nothing)
