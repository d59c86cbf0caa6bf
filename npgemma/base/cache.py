"""What is remembered of past positions: keys and values, one record a block, and who may be looked at.

A record owns a buffer with room to grow, so that a step copies nothing.  Appending writes in place only at the
buffer's newest length; on an older record, from which another continuation has already grown, it copies.
"""

from dataclasses import dataclass

import numpy as np

# Room that a new buffer has beyond what it holds, in positions: a typical answer.
HEADROOM = 64


@dataclass(frozen=True)
class Past:
    """Rotated keys, and values, of the first ``length`` positions of a block.

    Parameters
    ----------
    key_buffer, value_buffer : (B, capacity, K, H)
    length : int
        Positions that belong to this record.
    newest : list of int
        One number shared by all records on these buffers: how far they are written.
    """

    key_buffer: np.ndarray
    value_buffer: np.ndarray
    length: int
    newest: list[int]

    @property
    def keys(self):
        """The keys so far, (B, length, K, H)."""
        return self.key_buffer[:, : self.length]

    @property
    def values(self):
        """The values so far, (B, length, K, H)."""
        return self.value_buffer[:, : self.length]


def append(past, keys, values):
    """Add the keys and values of this call behind those of the past.

    Parameters
    ----------
    past : Past or None
        None at the first call.
    keys, values : (B, T, K, H)

    Returns
    -------
    present : Past
        Of ``past.length + T`` positions; ``past`` itself stays as it was.
    """
    length = 0 if past is None else past.length
    total = length + keys.shape[1]
    if past is None or past.newest[0] != length or total > past.key_buffer.shape[1]:
        past = with_room(past, keys, total + HEADROOM + total // 2)
    past.key_buffer[:, length:total] = keys
    past.value_buffer[:, length:total] = values
    past.newest[0] = total
    return Past(past.key_buffer, past.value_buffer, total, past.newest)


def with_room(past, example, capacity):
    """Copy a record into new buffers of ``capacity`` positions; ``example`` gives the other sizes and the device."""
    B, _, K, H = example.shape
    buffers = [np.empty((B, capacity, K, H), dtype=example.dtype, like=example) for _ in range(2)]
    length = 0 if past is None else past.length
    if past is not None:
        buffers[0][:, :length] = past.keys
        buffers[1][:, :length] = past.values
    return Past(buffers[0], buffers[1], length, [length])


def take_rows(past, rows):
    """Give the record whose batch rows are ``past``'s rows ``rows``, in a buffer of its own.

    Parameters
    ----------
    past : Past
    rows : (B')
        Indices of batch rows, repeats allowed.

    Returns
    -------
    taken : Past
    """
    return Past(past.key_buffer[rows], past.value_buffer[rows], past.length, [past.length])


@dataclass(frozen=True)
class State:
    """What a step needs of all positions before it: keys and values of each block, and who may be looked at.

    Parameters
    ----------
    blocks : tuple of Past
    token_types : (B, S)
        0 prefix, 1 suffix.
    attention_mask : (B, S)
        1 real, 0 padding.
    """

    blocks: tuple[Past, ...]
    token_types: np.ndarray
    attention_mask: np.ndarray


def take_state(state, rows):
    """Give the state whose batch rows are ``state``'s rows ``rows``: repeats share a prompt, beams reorder.

    Parameters
    ----------
    state : State
    rows : (B')

    Returns
    -------
    taken : State
        In buffers of its own.
    """
    blocks = tuple(take_rows(past, rows) for past in state.blocks)
    return State(blocks, state.token_types[rows], state.attention_mask[rows])


def reorder_behind(state, rows, length):
    """Give the state whose batch rows are ``state``'s rows ``rows``, alike in the first ``length`` positions.

    Beams share their prompt: only what lies behind it moves, a few positions instead of hundreds.

    Parameters
    ----------
    state : State
        Is overwritten: nobody may go on from it.
    rows : (B)
        As many as the state has.
    length : int

    Returns
    -------
    reordered : State
        In the same buffers.
    """
    for past in state.blocks:
        for buffer in (past.key_buffer, past.value_buffer):
            buffer[:, length : past.length] = buffer[rows, length : past.length]
    return State(state.blocks, state.token_types[rows], state.attention_mask[rows])
