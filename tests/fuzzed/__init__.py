"""What the fuzzer feeds: for each kind of file, valid examples and a function that reads one as npgemma does.

``tools/fuzz.py`` mutates the examples; what it finds lies in ``tests/found`` and is read again by
``tests/test_found.py``.
"""

from fuzzed import folders, pictures, ports, runs, taught
from fuzzed.target import Target, outcome

TARGETS: dict[str, Target] = folders.TARGETS | pictures.TARGETS | runs.TARGETS | ports.TARGETS | taught.TARGETS

__all__ = ["TARGETS", "outcome"]
