"""Texts as codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from worker.datasets.refusal import too_large

MOST = 1_000_000  # different texts of one column


class Categories:
    """The different texts of one column, numbered as they come; in the end by their sorted order."""

    def __init__(self, name: str, what: str = "texts", remedy: str = "leave it out, or send it as numbers") -> None:
        self.name, self._what, self._remedy = name, what, remedy
        self._codes: dict[str, int] = {}

    def check(self, count: int) -> None:
        """Raise RefusedError for more different texts than one column may have."""
        if count > MOST:
            raise too_large(f"Column {self.name!r} has more than {MOST} different {self._what}; {self._remedy}.")

    def codes(self, texts: Sequence[str], positions: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """Codes of `texts[positions]`, in order of first appearance; a negative position is a missing value."""
        known = self._codes
        table = np.array([known.setdefault(text, len(known)) for text in texts] + [np.nan])
        self.check(len(known))
        return table[np.where(positions < 0, len(texts), positions)]

    def __len__(self) -> int:
        return len(self._codes)

    def __iter__(self) -> Iterator[str]:
        """The texts in order of first appearance."""
        return iter(self._codes)

    def sorted(self) -> list[str]:
        """The texts in the order of their final codes."""
        return sorted(self._codes)

    def ranks(self) -> npt.NDArray[np.float64] | None:
        """The final code of each code; None when they are the same."""
        ranks = np.empty(len(self._codes))
        for rank, text in enumerate(self.sorted()):
            ranks[self._codes[text]] = rank
        return None if (ranks == np.arange(len(ranks))).all() else ranks
