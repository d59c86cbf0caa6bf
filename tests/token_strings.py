"""Random answers about places: tokens in any order, and answers that are right but for a slip."""

import random

JOINTS = (" ; ", ";", " ;", "", " ", "\n;")
WORDS = ("cat", "red car", "<", "<loc", "<seg12>", "<loc1>", "<loc10234>", "ö", "\ufffd", "", "  ", "nothing", ";;")


def location(rng):
    """A location, now and then one that no vocabulary has."""
    return f"<loc{rng.choice((0, 511, 1023, rng.randrange(1024), rng.randrange(1024), rng.randrange(10_000))):04d}>"


def code(rng):
    """A code, now and then past the last."""
    return f"<seg{rng.randrange(128) if rng.random() < 0.98 else rng.randrange(1000):03d}>"


def some_object(rng):
    """Four locations in order, perhaps sixteen codes, a name; now and then with a slip."""
    top, left, bottom, right = (rng.randrange(1024) for _ in range(4))
    places = [min(top, bottom), min(left, right), max(top, bottom), max(left, right)]
    tokens = [f"<loc{place:04d}>" for place in places] + [code(rng) for _ in range(rng.choice((0, 16)))]
    if rng.random() < 0.3:
        slip = rng.choice(("drop", "swap", "twice"))
        one, two = rng.randrange(len(tokens)), rng.randrange(len(tokens))
        if slip == "drop":
            del tokens[one]
        elif slip == "swap":
            tokens[one], tokens[two] = tokens[two], tokens[one]
        else:
            tokens.insert(one, tokens[two])
    return "".join(tokens) + rng.choice(("", " ")) + rng.choice(WORDS)


def soup(rng):
    """Anything at all."""
    kinds = (location, code, lambda rng: rng.choice(WORDS), lambda rng: rng.choice(JOINTS))
    return "".join(rng.choice(kinds)(rng) for _ in range(rng.randrange(30)))


def token_string(seed):
    """An answer from its seed."""
    rng = random.Random(seed)
    if rng.random() < 0.3:
        return soup(rng)
    return rng.choice(JOINTS).join(some_object(rng) for _ in range(rng.randrange(1, 4)))
