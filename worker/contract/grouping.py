"""Features of a training criterion written out: what names columns of a dataset, or patterns of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, replace

from worker.contract.columns import is_pattern
from worker.core.kernels import Kernel, Product, Simple, Sum, WidthPerGroup
from worker.core.penalties import PerGroup
from worker.core.training import LinearTraining, TableTraining
from worker.core.training.kernel import KernelTraining


@dataclass(frozen=True, slots=True)
class _Names:
    """The features that each column of a dataset becomes."""

    columns: Mapping[str, tuple[str, ...]]
    features: frozenset[str]

    def expanded(self, members: tuple[str, ...]) -> tuple[str, ...]:
        """The features that are meant: themselves, those of a column, or of the columns that match a pattern."""
        return tuple(name for member in members for name in self._of(member))

    def _of(self, member: str) -> tuple[str, ...]:
        if member in self.features or not (member in self.columns or is_pattern(member)):
            return (member,)
        if member in self.columns:
            return self.columns[member]
        matching = fnmatch.filter(self.columns, member)
        return tuple(name for column in matching for name in self.columns[column]) or (member,)


def grouped(training: TableTraining, columns: Mapping[str, tuple[str, ...]]) -> TableTraining:
    """The training criterion with its groups written out in features: columns and patterns are expanded."""
    names = _Names(columns, frozenset(name for made in columns.values() for name in made))
    if isinstance(training, KernelTraining):
        return replace(training, kernel=_kernel(training.kernel, names))
    penalty = training.penalty
    return _penalized(training, penalty, names) if isinstance(penalty, PerGroup) else training


def _penalized(training: LinearTraining, penalty: PerGroup, names: _Names) -> LinearTraining:
    if penalty.groups is None:
        splined = {spline.feature for spline in training.splines}
        rest = {name: tuple(made for made in all_ if made not in splined) for name, all_ in names.columns.items()}
        groups = {name: made for name, made in rest.items() if made}
        return replace(training, penalty=replace(penalty, groups=groups))
    groups = {group: names.expanded(members) for group, members in penalty.groups.items()}
    return replace(training, penalty=replace(penalty, groups=groups))


def _kernel(kernel: Kernel, names: _Names) -> Kernel:
    if isinstance(kernel, Sum):
        return replace(kernel, terms=tuple(_term(term, names) for term in kernel.terms))
    return _term(kernel, names)


def _term(kernel: Simple | Product, names: _Names) -> Simple | Product:
    if isinstance(kernel, Product):
        return replace(kernel, factors=tuple(_simple(factor, names) for factor in kernel.factors))
    return _simple(kernel, names)


def _simple(kernel: Simple, names: _Names) -> Simple:
    if kernel.features is not None:
        kernel = replace(kernel, features=names.expanded(kernel.features))
    if isinstance(kernel.widths, WidthPerGroup):
        groups = {group: names.expanded(members) for group, members in kernel.widths.groups.items()}
        kernel = replace(kernel, widths=replace(kernel.widths, groups=groups))
    return kernel
