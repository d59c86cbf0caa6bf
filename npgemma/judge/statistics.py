"""Figures of one tensor, over all of its values: what a manifest says of it."""

import math

import numpy as np


def statistics(x):
    """Count, range, mean, root mean square, exact sum, where the largest is, what is not finite, the ends.

    Parameters
    ----------
    x : (...)

    Returns
    -------
    found : dict
    """
    flat = np.asarray(x).reshape(-1)
    ends = {"first8": [plain(each) for each in flat[:8]], "last8": [plain(each) for each in flat[-8:]]}
    if flat.dtype.kind != "f":
        return {"n": flat.size, "sum": int(np.sum(flat)), **ends}
    finite = flat[np.isfinite(flat)].astype(np.float64)
    largest = int(np.argmax(np.abs(flat))) if flat.size else 0
    found = {
        "n": flat.size,
        "min": plain(finite.min(initial=math.inf)),
        "max": plain(finite.max(initial=-math.inf)),
        "mean": plain(finite.mean()) if finite.size else None,
        "rms": plain(math.sqrt(float(np.mean(np.square(finite))))) if finite.size else None,
        # Exact, so that it is the same in every order.
        "sum_f64": math.fsum(finite.tolist()),
        "absmax_at": [int(i) for i in np.unravel_index(largest, np.shape(x))] if flat.size else [],
        "nan": int(np.isnan(flat).sum()),
        "inf": int(np.isinf(flat).sum()),
    }
    return found | ends


def plain(value):
    """A number as JSON has it; None for what is not finite."""
    number = value.item() if hasattr(value, "item") else value
    return number if not isinstance(number, float) or math.isfinite(number) else None
