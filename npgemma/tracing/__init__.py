"""Looking and judging: what a run computed, by name; stopping inside a layer; putting other tensors in place.

All of it is observers: ``observe(name, array)`` sees each tensor in order of execution, and what it returns, unless
that is None, goes on instead.
"""
