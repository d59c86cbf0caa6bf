"""How the fuzzer damages bytes and JSON; ``tools/file_mutators.py`` damages files that have a form of their own.

Each mutator takes a valid file and a random generator, and gives a file that may be anything.
"""

import contextlib
import json

ODD_NUMBERS = (
    0, -1, 1, 2, 7, 255, 256, 2**15, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**20,
    -(2**63), 1.5, -0.0, 1e-320, 1e308, 0.1,
)
WHOLE_NUMBERS = ODD_NUMBERS[:18]
ODD_TEXTS = ("", "a", "../../etc/passwd", "\0", "a\nb", "\x1b[2J", "é", "🙂", "x" * 300, "NaN", "-", "1", "\ud800")
ODD_JSON = (
    b"NaN", b"Infinity", b"1e999", b"9" * 400, b'"\\ud800"', b"[" * 80, b"[" * 5000, b"{" * 80, b"\xff", b"\\", b'""',
    b"", b'{"a":1,"a":2}', b"null", b"-", b"01", b"\xef\xbb\xbf",
)
ODD_LITERALS = (
    "NaN", "-Infinity", "1e999", "-1e-999", "9" * 299, "9" * 301, "1." + "0" * 400, "-0", "1E+2", "0.0", str(2**64),
    '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude42"', '"\\u0000"', '"\\x41"', "'a'", "True", "0x10", "1_000", "+1",
    "/**/1", "[1,]", '{"a":1,"a":1}', '{"":1}', '{"a" 1}', '"\t"', '"\x7f"', "[[[[]]]]", "nullnull", "",
)  # fmt: skip
DEPTHS = (2, 60, 63, 64, 65, 200, 3000, 100_000)


def odd_value(rng):
    """A JSON value that may stand nowhere, or anywhere."""
    kinds = (None, True, False, [], {}, [[]], {"": None}, [1] * 9, rng.choice(ODD_NUMBERS), rng.choice(ODD_TEXTS))
    return rng.choice(kinds)


def mutate_bytes(data, rng):
    """Change, add, remove or repeat some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 64, 1024))
        way = rng.randrange(7)
        if way == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1 and at < len(data):
            data[at] = rng.randrange(256)
        elif way == 2:
            del data[at : at + size]
        elif way == 3:
            data[at:at] = rng.randbytes(size)
        elif way == 4:
            start = rng.randrange(len(data) + 1)
            data[at : at + rng.choice((0, size))] = data[start : start + size]
        elif way == 5:
            width = rng.choice((1, 2, 4, 8))
            data[at : at + width] = odd_bytes(rng, width)
        else:
            del data[at:]
    return bytes(data)


def odd_bytes(rng, width):
    """An odd number of that many bytes."""
    return (rng.choice(WHOLE_NUMBERS) % 256**width).to_bytes(width, rng.choice(("little", "big")))


# --- JSON ------------------------------------------------------------------------------------------------------------


def places(value, found=None):
    """Each place within a JSON value: what holds it, and its key."""
    found = [] if found is None else found
    for key, child in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(child, dict | list):
            places(child, found)
    return found


def mutate_value(value, rng):
    """Change a few places of a JSON value: another value, key, order, or nothing."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        every = places(value)
        if not every:
            return value
        holder, key = rng.choice(every)
        way = rng.randrange(7)
        if way <= 2:
            holder[key] = odd_value(rng)
        elif way == 3:
            del holder[key]
        elif way == 4 and isinstance(holder, dict):
            holder[rng.choice(ODD_TEXTS)] = holder.pop(key)
        elif way == 5:
            holder[key] = near(holder[key], rng)
        else:
            other, place = rng.choice(every)
            with contextlib.suppress(KeyError, IndexError):
                holder[key] = json.loads(json.dumps(other[place]))
    return value


def near(value, rng):
    """A value of the same kind, somewhat different: what passes the checks of types."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, -value, 2 * value, value * 1000, float(value), str(value), [value]))
    if isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        longer = value[:at] + rng.choice(ODD_TEXTS) + value[at:]
        return rng.choice((value[:at], value[at:], longer, value * 50, [value]))
    if isinstance(value, list):
        return rng.choice((value[::-1], value * 2, value[1:], value[:-1], value * 200, [value], sorted(value, key=str)))
    return dict(rng.sample(sorted(value.items()), len(value))) if isinstance(value, dict) else rng.choice(ODD_NUMBERS)


def write_oddly(value, rng):
    """Write a JSON value with one place, drawn by chance, in a way that no writer would."""
    left = rng.randrange(len(places([value])))  # the value itself is a place

    def write(node):
        nonlocal left
        left -= 1
        odd = left == -1
        if isinstance(node, dict):
            pairs = [f"{json.dumps(key)}: {write(child)}" for key, child in node.items()]
            text = "{" + ", ".join(crowded(pairs, rng) if odd else pairs) + "}"
        elif isinstance(node, list):
            children = [write(child) for child in node]
            text = "[" + ", ".join(crowded(children, rng) if odd else children) + "]"
        else:
            text = json.dumps(node)
        return odd_text(text, rng) if odd and rng.random() < 0.7 else text

    return write(value).encode("utf-8", "surrogatepass")


def crowded(parts, rng):
    """Parts of an object or list, one of them twice (so a key), with or without another value."""
    if not parts:
        return parts
    part = rng.choice(parts)
    again = part.partition(": ")[0] + ": " + rng.choice(ODD_LITERALS) if rng.random() < 0.5 else part
    return rng.choice(([*parts, again], [again, *parts]))


def odd_text(text, rng):
    """Another text in the place of a value's."""
    way = rng.randrange(4)
    if way == 0:
        return rng.choice(ODD_LITERALS)
    if way == 1:
        depth, pair = rng.choice(DEPTHS), rng.choice(("[]", ('{"a":', "}")))
        return pair[0] * depth + text + pair[1] * rng.choice((depth, depth, depth - 1))
    if way == 2 and text.startswith('"'):
        return '"' + "".join(f"\\u{ord(character):04x}" for character in text[1:-1] if ord(character) < 65536) + '"'
    around = (" \t\r\n" + text, text + ",", "," + text, json.dumps(text), text + "e5", "-" + text, f"[{text}]")
    return rng.choice(around)


def mutate_json(data, rng):
    """Change a JSON text: as a value, in how it is written, as bytes, or by odd JSON in the place of something."""
    way = rng.randrange(6)
    if way < 2:
        value = json.loads(data)
        value = mutate_value(value, rng) if isinstance(value, dict | list) else odd_value(rng)
        return json.dumps(value, ensure_ascii=rng.random() < 0.9).encode(errors="replace")
    if way < 4:
        return write_oddly(json.loads(data), rng)
    if way == 4:
        return mutate_bytes(data, rng)
    ends = [at for at, byte in enumerate(data) if byte in b",:]}"]
    start, end = sorted(rng.choice(ends) for _ in range(2)) if ends else (0, 0)
    return data[:start] + rng.choice(ODD_JSON) + data[start if rng.random() < 0.5 else end :]


def mutate_lines(data, rng):
    """Change one line of JSON, or the lines' order, number and ends."""
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    way = rng.randrange(8)
    if way == 0:
        return mutate_bytes(data, rng)
    if way == 1:
        lines[at:at] = [rng.choice(lines)]
    elif way == 2:
        del lines[at]
    elif way == 3:
        end = rng.choice((b"\r\n", b"\r", b"\0\n", b"\n\n", b"", b"\xe2\x80\xa8", b"\x0b", b"\x85"))
        return data.replace(b"\n", end, rng.choice((1, -1)))
    else:
        lines[at] = mutate_json(lines[at].rstrip(b"\n"), rng) + (b"\n" if rng.random() < 0.9 else b"")
    return b"".join(lines)
