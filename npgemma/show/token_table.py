"""The tokens of a prompt as a table: index, piece, role, position, and what each may look at."""

from collections.abc import Sequence

import numpy as np

from npgemma import masks
from npgemma.config import Config


def token_table(cfg: Config, tokenizer, ids, token_types, attention_mask, positions) -> str:
    """Write one row of a batch as a table; a run of image tokens is one line.

    Parameters
    ----------
    cfg : Config
    tokenizer : Tokenizer or None
        Without one, ids stand for the pieces.
    ids, token_types, attention_mask, positions : (T)
    """
    roles = roles_of(cfg, ids, token_types, attention_mask)
    pieces = pieces_of(cfg, tokenizer, ids)
    looks = masks.prefix_lm(np.asarray(token_types)[None], np.asarray(attention_mask)[None], len(ids))[0]
    lines = [f"{'index':>11}  {'id':>7}  {'piece':18} {'role':8} {'position':>11}  looks at"]
    for low, high in groups(roles):
        size = high - low
        piece = pieces[low] if size == 1 else f"{pieces[low]} x {size}"
        index, position = span(low, high - 1), span(positions[low], positions[high - 1])
        seen = spans_of(looks[high - 1])
        lines.append(f"{index:>11}  {ids[low]:>7}  {piece:18} {roles[low]:8} {position:>11}  {seen}")
    window = cfg.text.sliding_window
    if window is not None and window < len(ids):
        lines.append(f"In sliding blocks a suffix token looks at no more than {window} tokens, itself included.")
    return "\n".join(lines)


def roles_of(cfg: Config, ids, token_types, attention_mask) -> list[str]:
    """``image``, ``bos``, ``prefix``, ``suffix`` or ``padding`` for each token."""
    roles = []
    for token, kind, real in zip(ids, token_types, attention_mask, strict=True):
        if not real:
            roles.append("padding")
        elif kind:
            roles.append("suffix")
        else:
            roles.append({cfg.image_token_id: "image", cfg.bos_id: "bos"}.get(int(token), "prefix"))
    return roles


def pieces_of(cfg: Config, tokenizer, ids) -> list[str]:
    """What each token is as text, quoted, so that a newline stays on its line; ids without a tokenizer."""
    if tokenizer is None:
        return ["<image>" if token == cfg.image_token_id else f"#{token}" for token in ids]
    known = [tokenizer.piece(int(token)) if token < tokenizer.vocab_size else f"#{token}" for token in ids]
    return [piece if piece.startswith("<") else repr(piece.replace("\u2581", " ")) for piece in known]


def groups(roles: Sequence[str]) -> list[tuple[int, int]]:
    """First and behind-the-last index of each line: runs of image tokens and of padding together, others alone."""
    found: list[tuple[int, int]] = []
    for index, role in enumerate(roles):
        if found and role in ("image", "padding") and roles[index - 1] == role:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return found


def span(first, last) -> str:
    """``7``, or ``0-255``."""
    return str(first) if first == last else f"{first}-{last}"


def spans_of(row: np.ndarray) -> str:
    """The places that are True, as runs: ``0-7, 9``."""
    padded = np.concatenate([[False], row, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2)
    return ", ".join(span(int(low), int(high) - 1) for low, high in edges) or "nothing"
