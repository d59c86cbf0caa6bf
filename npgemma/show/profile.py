"""Where the time goes: seconds, FLOP/s and bytes/s of each named tensor, read off an observer's clock.

A tensor's time is what passes between the one kept before it and itself, so the layers need no instruments.  Blocks
of one tower share a line.  An observed run assembles whole attention scores, which at 896 pixels costs some of both.
"""

import re
import time
from dataclasses import dataclass

from npgemma.base.device import wait_for
from npgemma.base.elsewhere import rows_of
from npgemma.base.expressions import full_name, multiplied
from npgemma.base.tensors import Call
from npgemma.config import Config

HEADING = f"{'call':<9}{'tensor':<34}{'times':>6}{'seconds':>10}{'share':>8}{'GFLOP/s':>10}{'GB/s':>8}"


@dataclass
class Line:
    """What one name cost, summed over blocks and calls."""

    times: int = 0
    seconds: float = 0.0
    flops: int = 0
    nbytes: int = 0


class Profile:
    """An observer with a clock: pass it as ``observe``, then print :meth:`table`.

    Parameters
    ----------
    arrays : mapping of str to array
        The model's weights: a tensor that has a matrix of its own name is a product with it.
    cfg : Config
    """

    def __init__(self, arrays, cfg: Config) -> None:
        self.arrays = arrays
        self.cfg = cfg
        self.lines: dict[tuple[str, str], Line] = {}
        self.calls = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.last = time.perf_counter()

    def __call__(self, name, x) -> None:
        """Charge the time since the last tensor to this one."""
        wait_for(x)
        now = time.perf_counter()
        if name == "ids":
            self.calls += 1
        call = "step" if self.calls > 1 else "prefill" if self.calls else "vision"
        line = self.lines.setdefault((call, re.sub(r"\.\d+\.", ".*.", name)), Line())
        flops, nbytes = self.cost(name, x)
        line.times += 1
        line.seconds += now - self.last
        line.flops += flops
        line.nbytes += nbytes
        self.last = time.perf_counter()

    def cost(self, name, x):
        """Give multiply-adds, counted as two, and the bytes of the matrices read; elementwise work counts as none."""
        self.shapes[name] = x.shape
        flops, nbytes, known = 0, 0, {**self.shapes, **self.arrays}
        for short in multiplied(name, rows_of(self.cfg)[name].expression, self.cfg, Call()):
            full = full_name(short, name, known)
            is_weight = full in self.arrays
            flops += 2 * x.size * (self.arrays[full].shape if is_weight else self.shapes[full])[-1]
            nbytes += self.arrays[full].nbytes if is_weight else 0
        return flops, nbytes

    def table(self) -> str:
        """Draw a line for each tensor that took a thousandth of the time or more, in order of execution."""
        whole = sum(line.seconds for line in self.lines.values())
        drawn = [HEADING]
        for (call, name), line in self.lines.items():
            if line.seconds >= 1e-3 * whole:
                rates = [f"{count / line.seconds / 1e9:.1f}" if count else "" for count in (line.flops, line.nbytes)]
                drawn.append(
                    f"{call:<9}{name:<34}{line.times:>6}{line.seconds:>10.4f}{line.seconds / whole:>8.1%}"
                    f"{rates[0]:>10}{rates[1]:>8}"
                )
        for call in dict.fromkeys(call for call, _ in self.lines):
            lines = [line for (of, _), line in self.lines.items() if of == call]
            drawn.append(f"{call:<9}{'all':<40}{sum(line.seconds for line in lines):>10.4f}")
        return "\n".join(drawn)
