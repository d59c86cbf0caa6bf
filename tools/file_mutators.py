"""How the fuzzer damages checkpoints, archives and tokenizers: what it breaks lies behind lengths that fit."""

import io
import json
import warnings
import zipfile
from functools import cache

from mutators import ODD_TEXTS, WHOLE_NUMBERS, mutate_bytes, mutate_json

# --- safetensors -----------------------------------------------------------------------------------------------------

DTYPES = ("F32", "BF16", "F16", "F64", "I64", "I32", "U8", "BOOL", "F8_E4M3", "X9", "C64")
BAD_FLOATS = (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\xff\xff\x7f\x7f", b"\x01\x00\x00\x00")


def mutate_safetensors(data, rng):
    """Change the header of a file as JSON, its tensors under a header that fits them, or anything as bytes."""
    length = int.from_bytes(data[:8], "little")
    way = rng.random()
    if way < 0.2 or 8 + length > len(data):
        return mutate_bytes(data, rng)
    if way < 0.5:
        return rebuilt_safetensors(data, rng)
    header = data[8 : 8 + length]
    header = mutate_bytes(header, rng) if way < 0.6 else mutate_json(header, rng)
    said = len(header) if rng.random() < 0.95 else rng.choice(WHOLE_NUMBERS) % 2**64
    return said.to_bytes(8, "little") + header + data[8 + length :]


def rebuilt_safetensors(data, rng):
    """A file that is valid as such, with a tensor other than it should be."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.pop("__metadata__", None)
    tensors = [
        [name, each["dtype"], each["shape"], body[slice(*each["data_offsets"])]] for name, each in header.items()
    ]
    for _ in range(rng.choice((1, 1, 2, 3))):
        change_tensor(tensors, rng)
    if metadata and rng.random() < 0.3:
        metadata = changed_metadata(metadata, rng)
    entries, parts, end = {} if metadata is None else {"__metadata__": metadata}, [], 0
    for name, dtype, shape, numbers in tensors:
        if name not in entries:
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(numbers)]}
            parts.append(numbers)
            end += len(numbers)
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def change_tensor(tensors, rng):
    """Change one tensor so that its bytes still fit its shape, or the list of them."""
    if not tensors:
        return
    at, way = rng.randrange(len(tensors)), rng.randrange(9)
    name, dtype, shape, numbers = tensors[at]
    if way == 0:
        del tensors[at]
    elif way == 1:
        other = rng.choice((name + "x", name.replace(".", "/"), name[:-1], *ODD_TEXTS[:6]))
        tensors.append([other, dtype, shape, numbers])
    elif way == 2:
        tensors[at][0] = rng.choice(tensors)[0] + rng.choice(("", ".", "_scale", "\n"))
    elif way == 3:
        tensors[at][2] = rng.choice((shape[::-1], [*shape, 1], [1, *shape], [len(numbers) // 4 or 1], [0, *shape]))
        tensors[at][3] = numbers if 0 not in tensors[at][2] else b""
    elif way == 4:
        size = rng.randrange(1, 9)
        tensors[at][2], tensors[at][3] = [size], rng.randbytes(size * (2 if dtype in ("BF16", "F16") else 4))
    elif way == 5:
        tensors[at][1] = rng.choice(DTYPES)
    elif way == 6:
        bad = rng.choice(BAD_FLOATS)
        place = 4 * rng.randrange(len(numbers) // 4 + 1)
        tensors[at][3] = (numbers[:place] + bad + numbers[place + 4 :])[: len(numbers)]
    elif way == 7:
        tensors[at][3] = bytes(len(numbers)) if rng.random() < 0.5 else rng.randbytes(len(numbers))
    else:
        rng.shuffle(tensors)


def changed_metadata(metadata, rng):
    """Metadata whose values are texts still, and JSON or not."""
    name = rng.choice(sorted(metadata))
    try:
        text = mutate_json(metadata[name].encode(), rng).decode("utf-8", "replace")
    except ValueError:
        text = rng.choice(ODD_TEXTS[:-1])
    return metadata | {name: text}


# --- archives and arrays of NumPy ------------------------------------------------------------------------------------

DESCRIPTIONS = (
    "'|O'", "'<f8'", "'>f4'", "'<f2'", "'<U5'", "'|V2'", "'|b1'", "'<i8'", "'<M8[s]'", "'<c8'",
    "[('a', '<f4')]", "'<f4'", "'x'", "None", "'<f16'", "('<f4', (2,))", "'|S0'", "'|V0'", "'" + "x" * 3000 + "'",
)  # fmt: skip
SHAPES = ("()", "(0,)", "(-1,)", "(2**62,)", "(4611686018427387904,)", "(1,) * 70", "(True,)", "(1.0,)", "('a',)", "3",
          "(65536, 65536)", "(3, 2)", "(" + "1, " * 80 + ")")  # fmt: skip


def mutate_npy(data, rng):
    """Change the header of an array under its right length, or its numbers."""
    wide = data[6:7] == b"\x02"
    size = int.from_bytes(data[8 : 12 if wide else 10], "little")
    begin = 12 if wide else 10
    text, numbers = data[begin : begin + size].decode("latin1"), data[begin + size :]
    way = rng.randrange(6)
    if way == 0:
        return mutate_bytes(data, rng)
    if way == 1:
        text = f"{{'descr': {rng.choice(DESCRIPTIONS)}, " + text.partition(", ")[2]
    elif way == 2:
        text = text.partition("'shape'")[0] + f"'shape': {rng.choice(SHAPES)}, }}"
    elif way == 3:
        text = mutate_bytes(text.encode("latin1"), rng).decode("latin1")
    elif way == 4:
        text = rng.choice((text.replace("False", "True"), "(" * 500 + text, "{}", "", "__import__('os')", text * 2))
    else:
        numbers = mutate_bytes(numbers, rng)
    header = text.encode("latin1")[:60000]
    return data[:8] + len(header).to_bytes(begin - 8, "little") + header + numbers


@cache
def members_of(data):
    """Names and contents of an archive's members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def mutate_zip(data, rng):
    """Change the members of an archive of arrays, which stays one; or its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    members = [list(each) for each in members_of(data)]
    for _ in range(rng.choice((1, 1, 2))):
        place, way = rng.randrange(len(members)), rng.randrange(7)
        name, body = members[place]
        if way == 0 and len(members) > 1:
            del members[place]
        elif way == 1:
            other = rng.choice((name, "../x.npy", "/x.npy", ".npy", "a\nb.npy", "x", name * 20))
            members.append([other, body])
        elif way == 2:
            bare = name.removesuffix(".npy") or "x"
            members[place][0] = rng.choice((bare, name.upper(), "x.npy", rng.choice(members)[0]))
        elif way == 3:
            members[place][1] = mutate_bytes(body, rng)
        elif way == 4:
            members[place][1] = body + bytes(rng.choice((1, 1000, 20_000_000)))
        else:
            members[place][1] = mutate_npy(body, rng)
    file = io.BytesIO()
    plain, packed = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    way = rng.choice((plain,) * 8 + (packed,) * 8 + (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", way) as archive:
        warnings.simplefilter("ignore")  # of a name that comes twice
        for name, body in members:
            archive.writestr(name, body, compresslevel=1)
    return file.getvalue() if rng.random() < 0.8 else mutate_bytes(file.getvalue(), rng)


# --- protocol buffers ------------------------------------------------------------------------------------------------


def mutate_message(data, rng, depth=0):
    """Change the fields of a message, and of those within; their lengths stay right."""
    if depth == 0 and rng.random() < 0.25:
        return mutate_bytes(data, rng)
    fields = fields_of(data)
    if not fields:
        return mutate_bytes(data, rng)
    place, way = rng.randrange(len(fields)), rng.randrange(8)
    number, kind, value = fields[place]
    if way == 0:
        del fields[place]
    elif way == 1:
        fields.insert(rng.randrange(len(fields) + 1), fields[place])
    elif way == 2:
        fields[place] = (rng.choice((0, 1, 2, 3, 4, 35, 2**29 - 1)), kind, value)
    elif way == 3 and kind == 2:
        texts = (b"", b"\xff", b"\xed\xa0\x80", b"a", b"\0", b"<0x41>", "▁".encode(), b"<image>", value * 2)
        fields[place] = (number, kind, rng.choice(texts))
    elif kind == 2 and depth < 2:
        fields[place] = (number, kind, mutate_message(value, rng, depth + 1))
    elif kind == 0:
        fields[place] = (number, kind, rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 2**31, 2**64 - 1)))
    else:
        fields[place] = (number, kind, rng.choice((*BAD_FLOATS, b"1234")).ljust(8 if kind == 1 else 4, b"\0"))
    return b"".join(field_bytes(*each) for each in fields)


def fields_of(data):
    """The fields of a message: number, kind, value; none if it is no message."""
    found, at = [], 0
    try:
        while at < len(data):
            key, at = varint(data, at)
            if key & 7 == 0:
                value, at = varint(data, at)
            else:
                size, at = varint(data, at) if key & 7 == 2 else ({1: 8, 5: 4}[key & 7], at)
                value, at = data[at : at + size], at + size
            found.append((key >> 3, key & 7, value))
    except (IndexError, KeyError):
        return []
    return found if at == len(data) else []


def varint(data, at):
    """A number at a place, and the place behind it."""
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def written(number):
    """A number as :func:`varint` reads it."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def field_bytes(number, kind, value):
    """One field."""
    key = written(number << 3 | kind)
    if kind == 0:
        return key + written(value)
    return key + (written(len(value)) if kind == 2 else b"") + value
