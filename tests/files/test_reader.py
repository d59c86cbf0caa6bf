"""The one reader: what is no file of a sane size, and no strict JSON, is refused by name."""

import io
import json
import os
import sys
import time
from types import SimpleNamespace

import pytest

from npgemma.base.errors import ConfigError, InputError
from npgemma.files.folder import model_file
from npgemma.files.reader import parse_json, read_file, read_input


def refusal(call, *args, error=InputError):
    with pytest.raises(error) as caught:
        call(*args)
    return str(caught.value)


def test_a_file_is_read_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert read_file(tmp_path / "a", 3, InputError) == b"abc"
    (tmp_path / "a").write_bytes(b"")
    assert read_file(tmp_path / "a", 3, InputError) == b""


def test_row_40_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    for path, message in (
        (tmp_path, "is a folder; want a regular file"),
        (tmp_path / "pipe", "is a pipe or a device; want a regular file"),
        ("/dev/zero", "is a pipe or a device"),
        (tmp_path / "no", "no such file; check the path"),
        (tmp_path / "gone", "is a link to nothing: the download did not finish"),
        (tmp_path / "circle", "cannot be read: Too many levels of symbolic links"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        (tmp_path / "a\0b", "cannot be read: embedded null byte"),
        (tmp_path / "\ud800", "cannot be read: 'utf-8' codec can't encode"),
    ):
        assert message in refusal(read_file, path, 10, InputError)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(10**12)  # a hole: no disk is filled
    assert "has 1,000,000,000,000 bytes, more than the 100" in refusal(read_file, tmp_path / "a", 100, InputError)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abc")
    real = os.fstat

    def earlier(descriptor):
        found = real(descriptor)
        with (tmp_path / "a").open("ab") as file:
            file.write(b"d")
        return found

    monkeypatch.setattr(os, "fstat", earlier)
    assert "changed while it was read (3 bytes" in refusal(read_file, tmp_path / "a", 100, InputError)


def test_standard_input_has_a_limit_and_may_be_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"abcd")))
    assert "standard input has more than the 3 bytes" in refusal(read_input, 3, InputError)
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in refusal(read_input, 3, InputError)


@pytest.mark.parametrize(
    "text, message",
    (
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
        ('{"x": [{"a": 1, "a": 1}]}', "the key 'a' occurs twice"),
        ('{"a": NaN}', "has the number NaN; want finite numbers"),
        ('{"a": -Infinity}', "has the number -Infinity"),
        ('{"a": 1e999}', "has the number 1e999"),
        ('{"a": ' + "9" * 400 + "}", "want finite numbers of at most 300 digits"),
        ('{"a": 0.' + "1" * 400 + "}", "want finite numbers of at most 300 digits"),
        (r'{"a": "\ud800"}', r"the text '\ud800' has half of a surrogate pair"),
        (r'{"x": [{"\uDC00": 1}]}', r"the text '\udc00' has half of a surrogate pair"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "nested too deeply; want at most 64 levels"),
        ('{"a": ' * 70 + "1" + "}" * 70, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("[1]", "holds a JSON list; want an object {...}"),
        ("{", "not JSON at character 1"),
        ("\ufeff{}", "not JSON at character 0"),
        ("", "it is an empty file"),
        ("<html>", "it is an HTML page"),
    ),
)
def test_row_35_json_is_strict(text, message):
    found = refusal(parse_json, text.encode(), "place", ConfigError, error=ConfigError)
    assert found.startswith("place: ") and message in found and len(found) < 400


def test_row_10_bytes_that_are_no_utf8_are_placed():
    assert "byte 2 is not UTF-8" in refusal(parse_json, b'{"\xff": 1}', "place", InputError)


def test_what_is_within_the_limits_is_read_as_it_stands():
    text = r'{"a": [1, -2.5, 1e30, true, null, "\ud83d\ude42"], "b": 1000000000000000019884624838656}'
    assert parse_json(text.encode(), "place", InputError) == json.loads(text)
    assert parse_json(b'"text"', "place", InputError, object) == "text"
    deep = "[" * 63 + "]" * 63
    assert parse_json(deep.encode(), "place", InputError, object) == json.loads(deep)


def test_many_keys_of_which_one_is_double_take_no_time():
    text = json.dumps({str(n): n for n in range(200_000)})
    started = time.process_time()
    refusal(parse_json, (text[:-1] + ', "199999": 1}').encode(), "place", InputError)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "/etc/passwd", "C:\\a", "a\0", "\ud800", "x" * 300])
def test_row_32_only_plain_names_are_looked_for(tmp_path, name):
    assert "is not a plain name; want a file of this folder" in refusal(model_file, tmp_path, name, InputError)


def test_row_39_links_in_a_circle_and_out_of_the_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "out").symlink_to(tmp_path / "else")
    assert model_file(folder, "circle", InputError) == folder / "circle"  # within; the reader refuses it
    assert "outside the model's folder" in refusal(model_file, folder, "out", InputError)


def test_a_disk_that_fails_while_it_is_read_is_named(tmp_path, monkeypatch):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setattr("builtins.open", lambda descriptor, mode: os.close(descriptor) or Failing())
    assert "a: cannot be read: Input/output error" in refusal(read_file, tmp_path / "a", 10, InputError)
