"""Arrays by name that are another mapping's, but for how one of them is read."""

from collections.abc import Iterator, Mapping
from typing import Any


class Named(Mapping[str, Any]):
    """The names of ``arrays``; a child says what reading one does.

    Parameters
    ----------
    arrays : mapping of str to array
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = arrays

    def __getitem__(self, name: str) -> Any:
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)
