"""Reading a codec: the released layout, strictly, and the same as safetensors."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from random_codecs import codec, codec_inputs, write_npz

from npgemma.base.errors import CheckpointError, InputError
from npgemma.places.codec import decode
from npgemma.places.codec_file import AVERAGES, layout, load_codec


def test_the_released_file_is_49_arrays_of_1_985_393_numbers_and_the_averages():
    arrays = codec_inputs.make_weights("released")
    sizes = {name: array.size for name, array in arrays.items()}
    used = {theirs for theirs, _ in layout().values()}
    assert used | AVERAGES.keys() == sizes.keys() and len(sizes) == 49
    assert sum(size for name, size in sizes.items() if name.startswith("encoder.")) == 861_936
    assert sum(size for name, size in sizes.items() if name.startswith("decoder.")) == 1_123_457


def test_the_released_layout_is_read(tmp_path):
    loaded = load_codec(write_npz(tmp_path / "vae-oid.npz"))
    codes = codec_inputs.make_codes()
    assert (decode(codes, loaded) == decode(codes, codec("released", "float32"))).all()


def test_float64_widens(tmp_path):
    loaded = load_codec(write_npz(tmp_path / "vae-oid.npz"), "float64")
    assert decode(codec_inputs.make_codes(), loaded).dtype == np.float64


def test_a_codec_computes_in_two_precisions(tmp_path):
    with pytest.raises(InputError, match="dtype: came as 'bfloat16'; want float32 or float64"):
        load_codec(write_npz(tmp_path / "vae-oid.npz"), "bfloat16")


def test_safetensors_may_have_other_widths_and_no_averages(tmp_path):
    arrays = codec_inputs.make_weights("awkward")
    kept = {name: array.astype(np.float16) for name, array in arrays.items() if name not in AVERAGES}
    safetensors.numpy.save_file(kept, tmp_path / "codec.safetensors")
    loaded = load_codec(tmp_path / "codec.safetensors")
    assert loaded["codes.weight"].shape == (128, 11) and loaded["codes.weight"].dtype == np.float32


def test_a_folder_s_codec_is_found_under_both_names(tmp_path):
    write_npz(tmp_path / "vae-oid.npz")
    assert load_codec(tmp_path)["codes.weight"].shape == (128, 512)
    safetensors.numpy.save_file(codec_inputs.make_weights("awkward") | {}, tmp_path / "codec.safetensors")
    with pytest.raises(CheckpointError, match="F64"):  # found first, and not of a weight's dtype
        load_codec(tmp_path)


def test_a_model_without_a_codec_says_where_to_put_one(tmp_path):
    with pytest.raises(InputError, match=r"put vae-oid.npz .* into its folder, or name it with --codec FILE"):
        load_codec(tmp_path)
    with pytest.raises(CheckpointError, match="none.npz"):
        load_codec(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"decoder.12.bias": None}, r"1 arrays are missing \(decoder.12.bias\)"),
        ({"_vq_vae._ema_w": None}, r"missing \(_vq_vae._ema_w\)"),
        ({"decoder.14.bias": np.zeros(1, np.float32)}, r"1 are unknown \(decoder.14.bias\)"),
        ({"decoder.4.weight": np.zeros((128, 64, 4, 4), np.float32)}, r"decoder.4.weight is \(128, 64, 4, 4\)"),
        ({"_vq_vae._ema_w": np.zeros((128, 511), np.float32)}, r"_ema_w is \(128, 511\)"),
        ({"encoder.0.bias": np.zeros(16)}, "'encoder.0.bias' is no array of float32"),
        ({"encoder.0.bias": np.full(16, np.nan, np.float32)}, "encoder.0.bias holds NaN"),
    ],
)
def test_names_shapes_and_numbers_are_strict(changes, reason, tmp_path):
    with pytest.raises(CheckpointError, match=reason):
        load_codec(write_npz(tmp_path / "vae-oid.npz", **changes))


def test_widths_that_do_not_chain_are_refused(tmp_path):
    arrays = {name: array.astype(np.float32) for name, array in codec_inputs.make_weights("awkward").items()}
    arrays["encoder.4.weight"] = np.zeros((4, 6, 4, 4), np.float32)  # 5 come in
    safetensors.numpy.save_file(arrays, tmp_path / "codec.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder.4.weight is \(4, 6, 4, 4\); want \('e3', '5', '4', '4'\)"):
        load_codec(tmp_path / "codec.safetensors")


class Harmful:
    """Unpickled, it would make a file."""

    def __reduce__(self):
        return open, ("unpickled", "w")


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", **{"encoder.0.bias": np.array([Harmful()], object)})
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Harmful()))
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("encoder.0.bias", pickle.dumps(Harmful()))
    for name in "abc":
        with pytest.raises(CheckpointError):
            load_codec(tmp_path / f"{name}.npz")
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY", b"<html>"])
def test_what_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "vae-oid.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match="is no .npz archive"):
        load_codec(tmp_path / "vae-oid.npz")


def test_an_archive_that_would_fill_the_memory_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "vae-oid.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("encoder.0.bias.npy", bytes(100_000_000))
    with pytest.raises(CheckpointError, match="bytes would unpack to 100,000,000; write it with numpy.savez"):
        load_codec(tmp_path / "vae-oid.npz")


def test_a_cut_archive_is_refused(tmp_path):
    whole = io.BytesIO()
    write_npz(whole)
    (tmp_path / "vae-oid.npz").write_bytes(whole.getvalue()[:1_000_000])
    with pytest.raises(CheckpointError, match="no .npz archive"):
        load_codec(tmp_path / "vae-oid.npz")
