"""Too little memory is said before anything is loaded."""

import math

import pytest
from made_checkpoints import tensors, write_folder

from npgemma.base.errors import CheckpointError, SlowWarning
from npgemma.base.precision import PRECISIONS
from npgemma.base.tensors import schema
from npgemma.checkpoints import memory
from npgemma.checkpoints.checkpoint import load_weights
from npgemma.checkpoints.hf_config import read_config


def load(folder, dtype):
    return load_weights(folder, read_config(folder), dtype)


def test_row_42_too_little_memory_is_told_before_loading(tmp_path, monkeypatch):
    write_folder(tmp_path, dtype="BF16")
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, "float32")
    total = sum(array.size for _, array in tensors().values()) * 4
    message = str(caught.value)
    assert f"float32 needs {total / 1e9:.3g} GB of memory, 1e-05 GB are available; --dtype bfloat16" in message


def test_row_42_no_mode_is_advised_that_does_not_fit_either(tmp_path, monkeypatch):
    write_folder(tmp_path, dtype="F16")
    monkeypatch.setattr(memory, "available_memory", lambda: 100)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(CheckpointError, match=f"{dtype} needs .* no mode fits"):
            load(tmp_path, dtype)


def test_what_will_be_read_from_disk_for_each_token_is_said(tmp_path, monkeypatch, recwarn):
    write_folder(tmp_path, dtype="BF16")
    parameters = schema(read_config(tmp_path)).values()
    matrices = sum(math.prod(parameter.shape) for parameter in parameters if parameter.matrix)
    others = sum(math.prod(parameter.shape) for parameter in parameters if not parameter.matrix)
    needed = 2 * matrices + 4 * others  # bytes: matrices as stored, all else widened
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    load(tmp_path, "bfloat16")
    assert not recwarn.list
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.warns(SlowWarning, match="of matrices stay in the file, .* every token reads from disk") as caught:
        load(tmp_path, "bfloat16")
    assert f"{2 * matrices / 1e9:.3g} GB of matrices" in str(caught[0].message)


def test_row_42_float64_counts_the_matrix_that_it_widens(tmp_path, monkeypatch):
    write_folder(tmp_path, dtype="BF16")
    sizes = [(parameter.matrix, math.prod(parameter.shape)) for parameter in schema(read_config(tmp_path)).values()]
    kept = 8 * sum(size for is_matrix, size in sizes if not is_matrix)
    largest = 12 * max(size for _, size in sizes)  # bytes: float64 beside the float32 that it is made from
    monkeypatch.setattr(memory, "available_memory", lambda: kept + largest - 1)
    with pytest.raises(CheckpointError, match="float64 needs"):
        load_weights(tmp_path, read_config(tmp_path), "float64", PRECISIONS["float64"])
    monkeypatch.setattr(memory, "available_memory", lambda: kept + largest)
    with pytest.warns(SlowWarning):
        load_weights(tmp_path, read_config(tmp_path), "float64", PRECISIONS["float64"])


def test_memory_is_not_guessed_where_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    load(write_folder(tmp_path), "float32")


GROUPS = {
    "version 2": ("0::/work/box\n", "", "memory.max", "memory.current", "active_file 70\ninactive_file 30\n"),
    "version 1": (
        "9:name=systemd:/\n4:memory:/work/box\n0::/\n", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "cache 5\ntotal_active_file 70\ntotal_inactive_file 30\n",
    ),
}


@pytest.mark.parametrize("version", GROUPS)
@pytest.mark.parametrize("place", ["work/box", "work", ""])
def test_the_limit_of_a_container_is_counted_wherever_it_stands(tmp_path, version, place):
    listing, folder, limit_name, used_name, stat = GROUPS[version]
    (tmp_path / "cgroup").write_text(listing)
    limited = tmp_path / "sys" / folder / place
    limited.mkdir(parents=True)
    (limited / limit_name).write_text("1000\n")
    (limited / used_name).write_text("400\n")
    (limited / "memory.stat").write_text(stat)
    assert memory.left_by_groups(tmp_path / "cgroup", tmp_path / "sys") == [700]  # 1000 - 400 + 70 + 30


@pytest.mark.parametrize("version", GROUPS)
def test_groups_without_a_limit_leave_the_figure_of_the_machine(tmp_path, version):
    listing, folder, limit_name, used_name, _ = GROUPS[version]
    (tmp_path / "cgroup").write_text(listing)
    (tmp_path / "sys" / folder).mkdir(parents=True)
    (tmp_path / "sys" / folder / limit_name).write_text("max\n")
    (tmp_path / "sys" / folder / used_name).write_text("400\n")
    assert memory.left_by_groups(tmp_path / "cgroup", tmp_path / "sys") == []
    assert memory.left_by_groups(tmp_path / "none", tmp_path / "none") == []


def test_the_tightest_limit_counts(monkeypatch):
    monkeypatch.setattr(memory, "left_by_groups", lambda: [5000, 3000])
    assert memory.available_memory() == 3000


@pytest.mark.parametrize(
    "listing",
    ["", "\n\n", "0", "0::", "0:", "memory", "4:memory:\n", "0::/a\0b\n", "0::/\x1c\n", "\xff:\xff:/x", "0::/../..\n"],
)
def test_odd_lists_of_groups_are_no_limit(tmp_path, listing):
    (tmp_path / "cgroup").write_text(listing, encoding="latin-1")
    assert memory.left_by_groups(tmp_path / "cgroup", tmp_path / "sys") == []


@pytest.mark.parametrize("odd", ["max", "", " \n", "abc", "\u00b2", "-5", "9" * 5000])
@pytest.mark.parametrize("name", ["memory.max", "memory.current"])
def test_what_is_no_number_is_no_limit(tmp_path, name, odd):
    (tmp_path / "cgroup").write_text("0::/\n")
    for other in ("memory.max", "memory.current"):
        (tmp_path / other).write_text("1000\n")
    (tmp_path / name).write_text(odd, encoding="utf-8")
    (tmp_path / "memory.stat").write_text("active_file x\ninactive_file\n\n")
    assert memory.left_by_groups(tmp_path / "cgroup", tmp_path) == []


def test_a_group_that_uses_more_than_its_limit_leaves_nothing(tmp_path):
    (tmp_path / "cgroup").write_text("3:memory,hugetlb:/\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("1000")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("1200")
    assert memory.left_by_groups(tmp_path / "cgroup", tmp_path) == [0]


def test_lines_of_the_kernel_are_read_as_numbers(tmp_path):
    text = "MemTotal:       24684084 kB\nMemAvailable:   24162600 kB\nHugePages_Total: 0\n\n"
    (tmp_path / "meminfo").write_text(text)
    found = memory.numbers(tmp_path / "meminfo")
    assert found == {"MemTotal:": 24684084, "MemAvailable:": 24162600, "HugePages_Total:": 0}
