"""Weights with an adapter: some matrices read ``base + scale * up @ down``.  Hu et al. 2022, sec. 4.1."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from npgemma.base import half

# A factor's name is its matrix's and one of these.
DOWN, UP = "down", "up"
# Matrices that are no plain product in Hugging Face's model: a convolution, a table.
NO_PRODUCT = ("vision.patches.weight", "text.embedded.weight")


@dataclass(frozen=True, repr=False)
class Adapted(Mapping):
    """Weights of which some are their base and a product of thin factors.

    Parameters
    ----------
    base : mapping of str to array
    factors : mapping of str to array
        ``NAME/down (r, D)`` and ``NAME/up (F, r)`` for each adapted matrix (F, D).
    scale : float
        alpha / r.
    """

    base: Mapping[str, Any]
    factors: Mapping[str, Any]
    scale: float

    def __getitem__(self, name: str) -> Any:
        up = self.factors.get(f"{name}/{UP}")
        if up is None:
            return self.base[name]
        # The thin factor is scaled, not the matrix, which is made anew at each reading.
        return half.widen(self.base[name]) + (self.scale * up) @ self.factors[f"{name}/{DOWN}"]

    def __contains__(self, name: object) -> bool:
        return name in self.base

    def __iter__(self) -> Iterator[str]:
        return iter(self.base)

    def __len__(self) -> int:
        return len(self.base)


def merged(adapted: Adapted) -> dict[str, Any]:
    """Plain weights that read the same: each adapted matrix whole."""
    return {name: adapted[name] for name in adapted}
