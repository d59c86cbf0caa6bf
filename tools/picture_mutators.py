"""How the fuzzer damages pictures: chunks, segments and sizes under right lengths and checksums."""

import struct
import zlib

from mutators import mutate_bytes, odd_bytes

CHUNKS = (
    b"tRNS", b"gAMA", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"PLTE", b"sRGB", b"IHDR",
    b"IEND", b"cHRM", b"pHYs", b"IDAT", b"aaaa", b"AAAA",
)  # fmt: skip


def mutate_picture(data, rng):
    """Change a picture by its format's parts, or anything as bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    for begin, mutate in FORMATS.items():
        if data.startswith(begin):
            return mutate(data, rng)
    return mutate_bytes(data, rng)


def mutate_png(data, rng):
    """Change the chunks of a PNG; their checksums stay right."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + size]])
        at += 12 + size
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(chunks))
        kind, body = chunks[place]
        way = rng.randrange(7)
        if way == 0 and len(chunks) > 1:
            del chunks[place]
        elif way == 1:
            chunks.insert(place, list(rng.choice(chunks)))
        elif way == 2:
            chunks.insert(place, [rng.choice(CHUNKS), odd_chunk(rng)])
        elif way == 3:
            chunks[0][1] = with_number(chunks[0][1], rng, rng.choice((0, 4, 8, 9, 12)))
        elif way == 4 and kind in (b"IDAT", b"fdAT"):
            chunks[place][1] = repacked(body, rng, 4 if kind == b"fdAT" else 0)
        elif way == 5:
            rng.shuffle(chunks)
        else:
            chunks[place][1] = mutate_bytes(body, rng)
    return data[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )


def odd_chunk(rng):
    """What a chunk may hold: text, a bomb, EXIF, noise."""
    bomb = b"a\0\0" + zlib.compress(bytes(rng.choice((1000, 5_000_000))))
    return rng.choice((b"", b"a\0b", bomb, odd_exif(rng), rng.randbytes(rng.choice((1, 4, 8, 26, 256, 768)))))


def with_number(body, rng, at):
    """Put an odd number somewhere."""
    width = rng.choice((1, 2, 4))
    return (body[:at] + odd_bytes(rng, width) + body[at + width :])[: len(body)]


def repacked(body, rng, skip):
    """Compressed pixels with other bytes in them, more or fewer; valid as a stream."""
    try:
        return body[:skip] + zlib.compress(mutate_bytes(zlib.decompress(body[skip:]), rng), 1)
    except zlib.error:
        return mutate_bytes(body, rng)


def odd_exif(rng):
    """EXIF whose entries have any tag, type, count and value, perhaps an orientation among them."""
    order = rng.choice("<>")
    count = rng.choice((0, 1, 1, 2, 5, 65535))
    entries = b""
    for _ in range(min(count, 5)):
        tag = rng.choice((0x112, 0x112, 0x8769, 0x8825, 0x10F, 0xA005))
        kind = rng.choice((0, 1, 2, 3, 4, 5, 7, 9, 10, 12, 13, 99))
        size, value = rng.choice((0, 1, 1, 2, 2**31, 2**32 - 1)), rng.choice((0, 1, 6, 8, 2**32 - 1))
        entries += struct.pack(f"{order}HHII", tag, kind, size, value)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", rng.choice((8, 8, 8, 0, 2**32 - 1)))
    return rng.choice((b"Exif\0\0", b"")) + head + struct.pack(f"{order}H", count) + entries + bytes(rng.choice((0, 4)))


def mutate_jpeg(data, rng):
    """Change the segments of a JPEG before its first scan; their lengths stay right."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append([data[at + 1], data[at + 4 : at + 2 + size]])
        at += 2 + size
    rest = data[at:]
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, way = rng.randrange(len(segments)), rng.randrange(6)
        if way == 0 and len(segments) > 1:
            del segments[place]
        elif way == 1:
            segments.insert(place, list(rng.choice(segments)))
        elif way == 2:
            adobe = b"Adobe\0d\0\0\0\0" + bytes([rng.randrange(4)])
            body = rng.choice((b"Exif\0\0" + odd_exif(rng), adobe, odd_chunk(rng)))
            segments.insert(place, [rng.choice((0xE1, 0xEE, 0xE2, 0xED, 0xDB, 0xC4, 0xFE)), body[:60000]])
        elif way == 3:
            frame = next((each for each in segments if each[0] in (0xC0, 0xC2)), segments[place])
            frame[1] = with_number(frame[1], rng, rng.randrange(len(frame[1]) + 1))
        elif way == 4:
            rest = mutate_bytes(rest, rng)
        else:
            segments[place][1] = mutate_bytes(segments[place][1], rng)[:60000]
    return data[:2] + b"".join(
        bytes([0xFF, kind]) + (len(body) + 2).to_bytes(2, "big") + body for kind, body in segments
    ) + rest


def mutate_webp(data, rng):
    """Change the chunks of a WebP; their sizes stay right."""
    chunks, at = [], 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append([data[at : at + 4], data[at + 8 : at + 8 + size]])
        at += 8 + size + size % 2
    place, way = rng.randrange(len(chunks)), rng.randrange(5)
    if way == 0:
        chunks.insert(place, list(rng.choice(chunks)))
    elif way == 1 and len(chunks) > 1:
        del chunks[place]
    elif way == 2:
        chunks.append([rng.choice((b"EXIF", b"XMP ", b"ICCP", b"ALPH", b"ANMF", b"VP8X")), odd_exif(rng)])
    elif way == 3:
        chunks[place][1] = with_number(chunks[place][1], rng, rng.randrange(min(len(chunks[place][1]), 24) + 1))
    else:
        chunks[place][1] = mutate_bytes(chunks[place][1], rng)
    body = b"".join(kind + len(one).to_bytes(4, "little") + one + bytes(len(one) % 2) for kind, one in chunks)
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WEBP" + body


def mutate_sizes(data, rng):
    """Put odd numbers into the sizes of a BMP's header, or of a GIF's screen and frames."""
    places = [2, 10, 14, 18, 22, 26, 28, 30, 46] if data.startswith(b"BM") else [6, 8, 10]
    if data[0] == 0x47:
        places += [at + offset for at, byte in enumerate(data) if byte == 0x2C for offset in (1, 3, 5, 7, 9)]
    for _ in range(rng.choice((1, 1, 2))):
        data = with_number(data, rng, rng.choice(places))
    return data


FORMATS = {
    b"\x89PNG": mutate_png, b"\xff\xd8": mutate_jpeg, b"RIFF": mutate_webp, b"BM": mutate_sizes, b"GIF": mutate_sizes,
}  # fmt: skip
