"""The one writer: whole or not at all, alone, by name."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from npgemma.base.errors import OutputError
from npgemma.files import writer
from npgemma.files.writer import growing, write_file, writing

ROOT = Path(__file__).resolve().parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_when_it_is_done(tmp_path):
    with writing(tmp_path / "a") as output:
        output.write(b"one ")
        assert names(tmp_path) == [".a.partial"]
        output.write(b"two")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"one two"


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, OSError])
def test_what_goes_wrong_leaves_nothing_and_is_told(tmp_path, problem):
    with pytest.raises(problem), writing(tmp_path / "a"):
        raise problem
    assert names(tmp_path) == []


def test_the_error_that_matters_is_not_hidden_by_cleaning_up(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError("no")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "a"):
        raise ZeroDivisionError


def test_what_is_there_stays_unless_it_is_forced(tmp_path):
    write_file(tmp_path / "a", b"mine")
    with pytest.raises(OutputError, match=r"a: exists already; choose another name, or force=True \(--force\)"):
        write_file(tmp_path / "a", b"yours")
    assert (tmp_path / "a").read_bytes() == b"mine"
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "a", force=True) as output:
        output.write(b"half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"mine"
    write_file(tmp_path / "a", b"yours", force=True)
    assert (tmp_path / "a").read_bytes() == b"yours" and names(tmp_path) == ["a"]


def test_what_is_no_regular_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/null"):
        with pytest.raises(OutputError, match="is no regular file"):
            write_file(path, b"", force=True)
        with pytest.raises(OutputError, match="is no regular file"), growing(path):
            pass


@pytest.mark.parametrize(
    "name, message",
    (("no/a", "there is no folder .*no; make it first"), ("x" * 300, "File name too long"), ("a\0", "null byte")),
)
def test_targets_that_cannot_be_are_named(tmp_path, name, message):
    with pytest.raises(OutputError, match=message) as caught:
        write_file(tmp_path / name, b"")
    assert str(tmp_path) in str(caught.value)


def test_only_one_process_writes_a_file(tmp_path):
    with writing(tmp_path / "a"):
        with pytest.raises(OutputError, match="a: another process is writing it"), writing(tmp_path / "a"):
            pass
    with growing(tmp_path / "b") as lines:
        lines.add(b"1\n")
        lines.replace([b"one\n"])  # the new file is locked too
        with pytest.raises(OutputError, match="b: another process is writing it"), growing(tmp_path / "b"):
            pass
    assert names(tmp_path) == ["a", "b"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    code = f"""
import os, sys
from npgemma.files.writer import writing
with writing({str(tmp_path / "a")!r}) as output:
    output.write(b"half")
    os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -signal.SIGKILL
    assert names(tmp_path) == [".a.partial"]
    # Were it hard-linked to something whole, that must stay.
    os.link(tmp_path / ".a.partial", tmp_path / "other")
    write_file(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a", "other"]
    assert (tmp_path / "a").read_bytes() == b"whole" and (tmp_path / "other").read_bytes() == b"half"


@pytest.mark.parametrize("writes, makes", [(writer.writing, "fresh"), (writer.writing_folder, "own_folder")])
def test_an_interrupt_between_making_and_knowing_leaves_nothing(tmp_path, monkeypatch, writes, makes):
    right, calls = getattr(writer, makes), []

    def interrupted(*args):
        made = right(*args)
        calls.append(made)
        if len(calls) == 1:
            os.close(made) if isinstance(made, int) else made.close()
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(writer, makes, interrupted)
    with pytest.raises(KeyboardInterrupt), writes(tmp_path / "a"):
        pass
    assert calls and names(tmp_path) == []


def test_an_interrupt_leaves_what_another_process_writes(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    for writes, makes in ((writer.writing, "fresh"), (writer.writing_folder, "own_folder")):
        with writes(tmp_path / makes):
            with monkeypatch.context() as patch:
                patch.setattr(writer, "fresh", interrupted)
                patch.setattr(writer, "own_folder", once(interrupted, writer.own_folder))
                with pytest.raises(KeyboardInterrupt), writes(tmp_path / makes):
                    pass
    assert names(tmp_path) == ["fresh", "own_folder"]


def once(first, after):
    """A function that is one at its first call, another later."""
    calls = iter([first])
    return lambda *args: next(calls, after)(*args)


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / ".a.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="a: cannot be written"):
        write_file(tmp_path / "a", b"x")
    assert (tmp_path / "mine").read_bytes() == b"mine"


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond 100 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    with full_disk(), pytest.raises(OutputError, match="a: cannot be written: File too large"):
        write_file(tmp_path / "a", b"x" * 200)
    assert names(tmp_path) == []


def test_a_line_that_does_not_fit_leaves_the_lines_before_it(tmp_path):
    with full_disk(), growing(tmp_path / "a") as lines:
        lines.add(b"first\n")
        with pytest.raises(OutputError, match="a: cannot be written: File too large"):
            lines.add(b"x" * 200 + b"\n")
        lines.add(b"second\n")
    assert (tmp_path / "a").read_bytes() == b"first\nsecond\n"


def test_too_little_room_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(OutputError, match=r"a: needs 1e\+06 GB, .* are free there"):
        with writing(tmp_path / "a", nbytes=10**15):
            pass
    assert names(tmp_path) == []


def test_lines_grow_and_a_run_that_came_to_nothing_leaves_nothing(tmp_path):
    with growing(tmp_path / "a"):
        pass
    assert names(tmp_path) == []
    with growing(tmp_path / "a") as lines:
        assert lines.read() == b""
        lines.add(b"1\n")
        lines.add(b"2\n")
    with growing(tmp_path / "a") as lines:
        assert lines.read() == b"1\n2\n"
        lines.cut(2)
        lines.add(b"3\n")
    assert (tmp_path / "a").read_bytes() == b"1\n3\n"


def test_a_link_to_a_file_of_lines_stays_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"1\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with growing(tmp_path / "link") as lines:
        lines.replace([b"one\n"])
        lines.add(b"2\n")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"one\n2\n"


def test_many_writers_of_one_name_leave_one_whole_file(tmp_path):
    def write(data):
        try:
            write_file(tmp_path / "a", data, force=True)
        except OutputError as problem:
            assert "another process is writing it" in str(problem)

    texts = [bytes([65 + n]) * 100_000 for n in range(16)]
    for _ in range(5):
        threads = [threading.Thread(target=write, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (tmp_path / "a").read_bytes() in texts and names(tmp_path) == ["a"]


def test_a_file_renamed_between_opening_and_locking_is_opened_again(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")
    real, calls = writer.lock, []

    def lock(file, path):
        if not calls:
            (tmp_path / "new").write_bytes(b"new")
            os.replace(tmp_path / "new", tmp_path / "a")
        calls.append(path)
        real(file, path)

    monkeypatch.setattr(writer, "lock", lock)
    with growing(tmp_path / "a") as lines:
        assert lines.read() == b"new" and len(calls) == 2
