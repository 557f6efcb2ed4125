"""Choices in which every two levels of any two factors meet, as far as the service takes a request with both.

Greedy, with a fixed seed. A level that a request is refused for hides all that it meets there, so each pair is looked
for in a request that is not refused: what is refused is cut down to the levels that do not go together, which are
avoided from then on. A pair that is refused beside plain levels, with any training and any selection criterion, is
among the refused cases.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tests.product.factors import FACTORS, MEMBERS, Choice, plain, restricted

Level = tuple[str, str]
Pair = frozenset[Level]
MOST = ("training", "selection")  # factors on which the place and the meaning of most others depend
TRIES = 4  # completions of a pair that are tried before it stands beside plain levels


@dataclass(slots=True)
class Covering:
    """`accepted` choices, `refused` ones, and the smallest sets of levels that do not go together."""

    is_refused: Callable[[Choice], bool]
    of: Level | None = None  # only pairs of this level with members of families
    seed: int = 0
    accepted: list[Choice] = field(default_factory=list)
    refused: list[Choice] = field(default_factory=list)
    misfits: list[Pair] = field(default_factory=list)
    left: dict[Pair, None] = field(default_factory=dict)
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)
        pairs = [pair for pair in _pairs() if self._is_asked_for(pair)]
        self.left = dict.fromkeys(pairs[i] for i in self._rng.permutation(len(pairs)))
        while self.left:
            self._cover(next(iter(self.left)))

    def _is_asked_for(self, pair: Pair) -> bool:
        if self.of is None:
            return True
        return self.of in pair and all(name in MEMBERS for name, _ in pair)

    def _cover(self, pair: Pair) -> None:
        """Add a case of the pair."""
        begin = self._begin(dict(pair))
        if begin is None:
            del self.left[pair]
            return
        for _ in range(TRIES):
            choice = self._completed(begin, dict(pair))
            if not self.is_refused(choice):
                break
            self._learn(choice)
        else:
            choice = begin
        self.accepted.append(choice)
        for met in itertools.combinations(choice.items(), 2):
            self.left.pop(frozenset(met), None)

    def _begin(self, wanted: Choice) -> Choice | None:
        """Plain levels beside those of a pair that are not refused. A pair without any is among the refused ones."""
        first = None
        for base in _beside(wanted):
            if self._misfit_in(base):
                first = first or base
            elif self.is_refused(base):
                self._learn(base)
                first = first or base
            else:
                return base
        if first is not None:
            self.refused.append(first)
        return None

    def _completed(self, begin: Choice, fixed: Choice) -> Choice:
        """The choice with other levels beside the fixed ones: those that meet most that have not met yet."""
        choice = dict(begin)
        for name in self._rng.permutation([name for name in FACTORS if name not in fixed]).tolist():
            if name not in choice:
                continue
            levels = self._rng.permutation(FACTORS[name].levels).tolist()
            best, most = choice[name], -1
            for level in levels:
                other = restricted({**choice, name: level})
                if not fixed.items() <= other.items() or self._misfit_in(other):
                    continue
                gain = sum(frozenset({(name, level), one}) in self.left for one in other.items() if one[0] != name)
                if gain > most:
                    best, most = level, gain
            choice = restricted({**choice, name: best})
        return choice

    def _misfit_in(self, choice: Choice) -> bool:
        levels = set(choice.items())
        return any(misfit <= levels for misfit in self.misfits)

    def _learn(self, choice: Choice) -> None:
        """Remember the levels of a refused choice that do not go together."""
        if self._misfit_in(choice):
            return
        cut = smallest(choice, self.is_refused)
        for free in (set(MOST), {"training"}, {"selection"}):
            fewer = {name: level for name, level in cut.items() if name not in free}
            if free <= cut.keys() and all(map(self._is_misfit, _beside(fewer))):
                cut = fewer
        self.misfits.append(frozenset(cut.items()))

    def _is_misfit(self, choice: Choice) -> bool:
        return self._misfit_in(choice) or self.is_refused(choice)


def smallest(choice: Choice, is_bad: Callable[[Choice], bool]) -> Choice:
    """Levels of a choice that are bad for beside plain ones, the criteria among them: without any other it is not."""
    kept = {name: level for name, level in choice.items() if name in MOST or level != _plain_level(name)}
    for size in (size for size in (8, 4, 2, 1) if size < max(len(kept), 2)):
        for part in _batched([name for name in kept if name not in MOST], size):
            fewer = {name: level for name, level in kept.items() if name not in part}
            whole = plain(fewer)
            if whole is not None and is_bad(whole):
                kept = fewer
    return kept


def _plain_level(name: str) -> str:
    return FACTORS[name].levels[0]


def _beside(wanted: Choice) -> Iterator[Choice]:
    """The levels that are wanted beside plain ones, with each of the criteria that are not."""
    levels = [FACTORS[name].levels if name not in wanted else (wanted[name],) for name in MOST]
    for criteria in itertools.product(*levels):
        choice = plain({**wanted, **dict(zip(MOST, criteria, strict=True))})
        if choice is not None:
            yield choice


def _batched(names: list[str], size: int) -> Iterator[list[str]]:
    for begin in range(0, len(names), size):
        yield names[begin : begin + size]


def _pairs() -> Iterator[Pair]:
    """Every two levels of any two factors."""
    for (one, factor), (other, second) in itertools.combinations(FACTORS.items(), 2):
        for a, b in itertools.product(factor.levels, second.levels):
            yield frozenset({(one, a), (other, b)})
