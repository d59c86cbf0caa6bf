"""What a manifest says of where its numbers come from."""

import hashlib

import numpy as np

from npgemma.base import half
from npgemma.base.device import Fetched


def blas():
    """Which library multiplies matrices."""
    found = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()


def weights_digest(model, tell=None):
    """The sha256 of all weights as they lie, in the order of their names; ``tell(weights done, weights)``."""
    digest = hashlib.sha256()
    arrays = Fetched(model.weights.arrays)
    for number, name in enumerate(sorted(arrays)):
        if tell is not None:
            tell(number, len(arrays))
        stored = arrays[name]
        whole = stored if half.is_stored(stored) else stored.astype(np.float32)
        digest.update(name.encode() + np.ascontiguousarray(whole).tobytes())
    return digest.hexdigest()
