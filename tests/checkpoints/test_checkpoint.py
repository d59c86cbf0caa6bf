"""Loading a folder of weights: what comes out, and each way in which a folder can be wrong."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_checkpoints import config_json, tensors, write_folder

import npgemma
from npgemma.base import elsewhere
from npgemma.base.errors import CheckpointError, InputError, NpgemmaError
from npgemma.base.precision import PRECISIONS
from npgemma.base.tensors import schema
from npgemma.checkpoints import checkpoint
from npgemma.checkpoints.checkpoint import load_weights
from npgemma.checkpoints.hf_config import read_config

Q = "language_model.model.layers.1.self_attn.q_proj.weight"
TABLE = "language_model.model.embed_tokens.weight"


def load(folder, dtype="float32", precision="float32", **more):
    return load_weights(folder, read_config(folder), dtype, PRECISIONS[precision], **more)


def refusal(folder, **more):
    """The message with which a folder is refused."""
    with pytest.raises(CheckpointError) as caught:
        load(folder, **more)
    return str(caught.value)


def changed(tmp_path, edit, generation=1):
    """A folder whose tensors went through ``edit`` (in place) before they were written."""
    named = tensors(generation)
    edit(named)
    return write_folder(tmp_path, generation, named=named)


def f32(*shape):
    return "F32", np.ones(shape, np.float32)


# --- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", elsewhere.LAYOUTS)
@pytest.mark.parametrize("generation", [1, 2])
def test_every_layout_gives_the_same_arrays(tmp_path, layout, generation):
    named = tensors(generation, layout)
    arrays = load(write_folder(tmp_path, generation, layout))
    cfg = read_config(tmp_path)
    assert list(arrays) == list(schema(cfg))
    for name, key in elsewhere.keys(cfg, layout).items():
        assert arrays[name].shape == schema(cfg)[name].shape
        assert np.array_equal(arrays[name].ravel(), named[key][1].ravel())


def test_shards_give_the_same_as_one_file(tmp_path):
    one, four = load(write_folder(tmp_path / "one")), load(write_folder(tmp_path / "four", shards=4))
    assert all(np.array_equal(one[name], four[name]) for name in one)


@pytest.mark.parametrize(
    "stored, dtype, precision, matrix, vector",
    [
        ("BF16", "float32", "float32", "float32", "float32"),
        ("BF16", "bfloat16", "float32", "uint16", "float32"),
        ("BF16", "float64", "float64", "uint16", "float64"),
        ("BF16", "float32", "bf16-hf-eager", "uint16", "float32"),
        ("F16", "float32", "float32", "float32", "float32"),
        ("F16", "bfloat16", "float32", "float16", "float32"),
        ("F16", "float64", "float64", "float16", "float64"),
        ("F16", "float32", "bf16-f32-inside", "float32", "float32"),
        ("F32", "float32", "float32", "float32", "float32"),
        ("F32", "bfloat16", "float32", "float32", "float32"),
        ("F32", "float64", "float64", "float32", "float64"),
        ("F32", "float32", "bf16-hf-eager", "float32", "float32"),
    ],
)
def test_row_18_each_stored_dtype_in_each_mode(tmp_path, stored, dtype, precision, matrix, vector):
    arrays = load(write_folder(tmp_path, dtype=stored), dtype, precision)
    for name, parameter in schema(read_config(tmp_path)).items():
        assert arrays[name].dtype == np.dtype(matrix if parameter.matrix else vector), name
        assert not arrays[name].flags.writeable


def test_row_18_bfloat16_bits_are_widened_exactly(tmp_path):
    # 1, -2, the smallest subnormal 2**-133, the largest value 3.3895313892515355e38.
    bits, values = [0x3F80, 0xC000, 0x0001, 0x7F7F], [1.0, -2.0, 2.0**-133, 3.3895313892515355e38]

    def edit(named):
        named[Q][1].ravel()[:4] = bits

    named = tensors(dtype="BF16")
    edit(named)
    write_folder(tmp_path, named=named)
    assert load(tmp_path)["text.blocks.1.attn.q.weight"].ravel()[:4].tolist() == np.float32(values).tolist()
    assert load(tmp_path, "bfloat16")["text.blocks.1.attn.q.weight"].ravel()[:4].tolist() == bits


def test_emulated_bfloat16_rounds_float32_to_even(tmp_path):
    def edit(named):
        # Bits 0x3F808000 lie half way between 0x3F80 and 0x3F81, 0x3F818000 half way between 0x3F81 and 0x3F82.
        named[Q][1].ravel().view(np.uint32)[:3] = [0x3F808000, 0x3F818000, 0x3F808001]

    arrays = load(changed(tmp_path, edit), precision="bf16-hf-eager")
    kept = arrays["text.blocks.1.attn.q.weight"].ravel().view(np.uint32)[:3]
    assert kept.tolist() == [0x3F800000, 0x3F820000, 0x3F810000]


def test_large_matrices_are_widened_in_many_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHUNK", 7)
    named = tensors(dtype="F16")
    arrays = load(write_folder(tmp_path, named=named))
    assert np.array_equal(arrays["text.embedded.weight"], named[TABLE][1].astype(np.float32))


def test_progress_is_told_in_bytes_up_to_all_of_them(tmp_path):
    seen = []
    load(write_folder(tmp_path, dtype="BF16"), progress=lambda done, total: seen.append((done, total)))
    total = sum(array.nbytes for _, array in tensors(dtype="BF16").values())
    assert seen == sorted(seen) and seen[-1] == (total, total)


def test_float32_files_are_used_in_place(tmp_path):
    array = load(write_folder(tmp_path))["text.embedded.weight"]
    while isinstance(array.base, np.ndarray):
        array = array.base
    assert type(array.base).__name__ in ("mmap", "memoryview")


def test_row_85_a_caller_cannot_write_into_weights(tmp_path):
    for array in load(write_folder(tmp_path, dtype="BF16")).values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_unknown_dtype(tmp_path):
    with pytest.raises(InputError, match="dtype 'int8'; want one of float32, bfloat16, float64"):
        load(write_folder(tmp_path), "int8")


# --- the set of tensors ----------------------------------------------------------------------------------------------


def test_row_23_missing_tensors_are_listed_with_the_nearest_name(tmp_path):
    message = refusal(changed(tmp_path, lambda named: named.update({Q + "s": named.pop(Q)})))
    assert f"tensors 1 missing: '{Q}' (nearest found: '{Q}s'); 1 unknown: '{Q}s'; does config.json belong" in message


def test_row_24_extra_tensors_are_listed(tmp_path):
    message = refusal(changed(tmp_path, lambda named: named.update({"mystery": f32(2), "a\nb": f32(1)})))
    assert "tensors 2 unknown: 'a\\nb', 'mystery'" in message


def test_long_lists_are_cut(tmp_path):
    message = refusal(changed(tmp_path, lambda named: named.update({f"x{n:02d}": f32(1) for n in range(13)})))
    assert "'x09' and 3 more" in message and "'x10'" not in message


def test_row_24_known_extras_are_left_aside(tmp_path):
    def edit(named):
        named["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = f32(2)
        named["vision_tower.vision_model.embeddings.position_ids"] = ("I64", np.arange(4)[None])
        named["vision_tower.head.probe"] = f32(1, 1, 12)
        named["vision_tower.head.attention.in_proj_weight"] = f32(36, 12)
        named["vision_tower.vision_model.head.mlp.fc1.bias"] = f32(14)

    assert len(load(changed(tmp_path, edit))) == len(tensors())


def test_one_parameter_under_two_layouts(tmp_path):
    other = "model.language_model.layers.1.self_attn.q_proj.weight"
    message = refusal(changed(tmp_path, lambda named: named.update({other: named[Q]})))
    assert f"'{Q}' and '{other}' are one parameter; remove one" in message


def test_row_25_shape_against_the_configuration(tmp_path):
    message = refusal(write_folder(tmp_path, config=config_json(text={"vocab_size": 42})))
    assert message == (
        f"{tmp_path}: '{TABLE}' (model.safetensors) is (41, 10), config.json wants (42, 10); "
        "see text_config.vocab_size = 42"
    )


def test_row_25_picture_of_another_size(tmp_path):
    message = refusal(write_folder(tmp_path, config=config_json(vision={"image_size": 12})))
    assert message.endswith("is (4, 12), config.json wants (9, 12); see (vision_config.image_size / patch_size)^2 = 9")


def test_row_25_patch_of_another_size(tmp_path):
    message = refusal(write_folder(tmp_path, config=config_json(vision={"patch_size": 3, "image_size": 6})))
    assert "is (12, 3, 4, 4), config.json wants (12, 3, 3, 3); see vision_config.patch_size = 3" in message


def test_row_26_transposed_matrix(tmp_path):
    message = refusal(changed(tmp_path, lambda named: named.update({Q: f32(10, 24)})))
    assert message.endswith("is (10, 24), config.json wants (24, 10): it looks transposed")


def test_other_number_of_axes(tmp_path):
    message = refusal(changed(tmp_path, lambda named: named.update({Q: f32(24, 10, 1)})))
    assert message.endswith("is (24, 10, 1), config.json wants (24, 10); see the number of axes")


def test_row_17_weight_of_integers(tmp_path):
    message = refusal(changed(tmp_path, lambda named: named.update({Q: ("I32", np.ones((24, 10), np.int32))})))
    assert message.endswith("(24, 10) I32; supported: BF16, F16, F32")


@pytest.mark.parametrize(
    "key, kind",
    [
        ("base_model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight", "a LoRA adapter"),
        ("language_model.model.layers.0.mlp.up_proj.qweight", "quantised by GPTQ"),
        ("language_model.model.layers.0.mlp.up_proj.weight.absmax", "quantised by bitsandbytes"),
        ("language_model.model.layers.0.mlp.up_proj.SCB", "quantised by bitsandbytes"),
        ("language_model.model.layers.0.mlp.up_proj.weight_scale_inv", "quantised to 8 bits"),
    ],
)
def test_row_28_adapters_and_quantised_weights(tmp_path, key, kind):
    message = refusal(changed(tmp_path, lambda named: named.update({key: f32(2)})))
    assert f"the weights are {kind}" in message and key in message


def test_row_28_folder_of_an_adapter(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "it holds a LoRA adapter: merge it into its base model" in refusal(tmp_path)


@pytest.mark.parametrize("layout", ["A", "C"])
def test_head_equal_to_the_table_is_accepted(tmp_path, layout):
    named = tensors(layout=layout)
    head = elsewhere.LAYOUTS[layout].head
    named[head] = named[elsewhere.keys(read_config(write_folder(tmp_path)), layout)["text.embedded.weight"]]
    assert len(load(write_folder(tmp_path, named=named))) == len(named) - 1


def test_head_that_differs_is_refused_with_the_first_place(tmp_path):
    def edit(named):
        named[TABLE][1][3, 7] = 1.5
        head = named[TABLE][1].copy()
        head[3, 7], head[5, 1] = 1.25, 9.0
        named["language_model.lm_head.weight"] = ("F32", head)

    message = refusal(changed(tmp_path, edit))
    assert "differs from the embedding table, first at [3, 7]: 1.25 and 1.5; PaliGemma's head is tied" in message


def test_head_of_another_shape_or_dtype_is_refused(tmp_path):
    message = refusal(changed(tmp_path, lambda named: named.update({"lm_head.weight": f32(40, 10)})))
    assert "the output head 'lm_head.weight' is F32 (40, 10), the embedding table F32 (41, 10)" in message


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("stored, bad", [("F32", np.nan), ("F16", np.inf), ("BF16", 0xFF80)])
def test_rows_19_and_20_nonfinite_weights(tmp_path, dtype, stored, bad):
    named = tensors(dtype=stored)
    named[Q][1][2, 4] = named[Q][1][20, 0] = bad
    write_folder(tmp_path, named=named)
    message = refusal(tmp_path, dtype=dtype, precision="float64" if dtype == "float64" else "float32")
    assert f"'{Q}' holds 2 NaN or infinite numbers, the first at (2, 4); the checkpoint is damaged" in message
    assert "(--allow-nonfinite loads it all the same)" in message
    assert len(load(tmp_path, dtype, allow_nonfinite=True)) == len(named)


def test_row_20_nonfinite_vector_is_found_in_every_mode(tmp_path):
    def edit(named):
        named["language_model.model.norm.weight"][1][9] = np.inf

    folder = changed(tmp_path, edit)
    for dtype in ("float32", "bfloat16"):
        assert "'language_model.model.norm.weight' holds 1 NaN or infinite numbers, the first at (9,)" in refusal(
            folder, dtype=dtype
        )


def test_row_20_large_mapped_files_are_not_read_whole(tmp_path, monkeypatch):
    named = tensors(dtype="BF16")
    named[Q][1][2, 4] = 0xFF80
    write_folder(tmp_path, named=named)
    monkeypatch.setattr(checkpoint, "SMALL_FILE", 100)
    load(tmp_path, "bfloat16")
    assert "the first at (2, 4)" in refusal(tmp_path)


def test_row_20_float32_files_are_read_whole_before_use_however_large(tmp_path, monkeypatch):
    named = tensors()
    named[Q][1][2, 4] = np.nan
    write_folder(tmp_path, named=named)
    monkeypatch.setattr(checkpoint, "SMALL_FILE", 100)
    assert "the first at (2, 4)" in refusal(tmp_path)


# --- what loading leaves alone ---------------------------------------------------------------------------------------


def test_row_40_loading_writes_nothing(tmp_path):
    write_folder(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.iterdir()]}
    os.chmod(tmp_path, 0o500)
    load(tmp_path)
    os.chmod(tmp_path, 0o700)
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.iterdir()]} == before


def test_row_41_a_file_that_changes_while_loading(tmp_path):
    write_folder(tmp_path)

    def grow(done, total):
        if done == total:
            with (tmp_path / "model.safetensors").open("ab") as file:
                file.write(b"x")

    assert "was replaced or changed while in use; load again" in refusal(tmp_path, progress=grow)


def test_row_43_nothing_that_is_read_can_be_unpickled_or_run():
    package = Path(npgemma.__file__).parent
    every = "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))
    # NumPy reads .npy and .npz without unpickling when it is told so: the released mask codec, the tensors of a port.
    plain = re.sub(r"np\.load\([^()]*allow_pickle=False\)", "", every)
    assert not re.search(r"\bimport (pickle|marshal|shelve|joblib)|allow_pickle|np\.load\(", plain)
    reading = "".join(path.read_text(encoding="utf-8") for path in (package / "files").glob("*.py"))
    assert not re.search(r"\bexec\(|\beval\(|import_module", reading)


@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.data())
def test_a_mutated_checkpoint_is_refused_or_loads_the_same_but_for_changed_numbers(tmp_path_factory, data):
    """Edit header or bytes of a whole model: an NpgemmaError, or every array as its bytes say."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_folder(folder, dtype="BF16")
    path = folder / "model.safetensors"
    original = path.read_bytes()
    begin = 8 + int.from_bytes(original[:8], "little")
    changed = bytearray(original)
    kind = data.draw(st.sampled_from(["header", "anywhere", "cut", "swap"]))
    at = data.draw(st.integers(0, begin - 1 if kind == "header" else len(changed) - 1))
    if kind == "cut":
        del changed[at : at + data.draw(st.integers(1, 64))]
    elif kind == "swap":
        other = data.draw(st.integers(8, begin - 1))
        changed[at], changed[other] = changed[other], changed[at]
    else:
        changed[at] = data.draw(st.sampled_from(b'0123456789"{}[],:.AFB\x00\xff'))
    path.write_bytes(changed)
    try:
        arrays = load(folder, "bfloat16")
    except NpgemmaError:
        return
    # Accepted: a number changed, or one tensor took another's place or name of its own size; no more than that.
    assert len(changed) == len(original)
    loaded = sorted(np.concatenate([to_bits(array) for array in arrays.values()]).tolist())
    assert loaded == sorted(np.frombuffer(bytes(changed[begin:]), "<u2").tolist())


def to_bits(array):
    """Stored bits of a loaded bfloat16 array, widened or not."""
    return array.ravel() if array.dtype == np.uint16 else (array.ravel().view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize("said, found", [(1, 2), (2, 1)])
def test_row_23_weights_of_the_other_paligemma_are_named_as_such(tmp_path, said, found):
    message = refusal(write_folder(tmp_path, config=config_json(said), named=tensors(found)))
    wanted = f"{tmp_path}: the weights are PaliGemma {found}'s, config.json says PaliGemma {said} (text_config."
    assert message.startswith(wanted)


def test_row_24_a_hundred_thousand_unknown_tensors_are_refused_in_no_time(tmp_path):
    def edit(named):
        named.pop(Q)
        named.update({f"x{n:06d}.self_attn.q_proj.weight": ("F32", np.zeros(0, np.float32)) for n in range(100_000)})

    folder = changed(tmp_path, edit)
    started = time.process_time()
    assert "100000 unknown: 'x000000." in refusal(folder)
    assert time.process_time() - started < 6


def test_an_unknown_dtype_or_precision_of_load_is_named():
    for name in ("dtype", "precision"):
        with pytest.raises(InputError, match=f"{name}: came as 'int8'; want one of float"):
            npgemma.load(**{name: "int8"})
