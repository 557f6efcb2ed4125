"""The groups of a training criterion in features: names of columns and patterns are expanded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from worker.contract.feature_columns import FeatureColumns
from worker.contract.patterns import is_pattern
from worker.core.kernels import Kernel, Product, Simple, Sum, WidthPerGroup
from worker.core.penalties import ClassPenalty, PerFeature, PerGroup
from worker.core.training import LinearTraining, Training
from worker.core.training.kernel_machines import KernelTraining
from worker.core.training.linear import LinearPredictor


@dataclass(frozen=True, slots=True)
class _Names:
    """The features that each column of a dataset becomes."""

    columns: FeatureColumns
    features: Collection[str]

    def expanded(self, members: tuple[str, ...], named: Collection[str] = ()) -> tuple[str, ...]:
        """The features that names mean: a feature itself, those of a column, or of the columns that match a pattern.

        A column that is a feature of its own name, too, means all its features but those that are `named` as well.
        """
        return tuple(name for member in members for name in self._of(member, named))

    def _of(self, member: str, named: Collection[str]) -> tuple[str, ...]:
        if member in self.columns and member in self.features:
            return tuple(name for name in self.columns[member] if name == member or name not in named)
        if member in self.columns:
            return self.columns[member]
        if member in self.features or not is_pattern(member):
            return (member,)
        return tuple(name for part in self.columns.matching(member) for name in part) or (member,)

    def in_groups(self, groups: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """The members of each group, expanded."""
        named = {member for members in groups.values() for member in members}
        return {group: self.expanded(members, named) for group, members in groups.items()}


def grouped(training: Training, columns: FeatureColumns) -> Training:
    """The training criterion with its groups written out in features: columns and patterns are expanded."""
    penalty = training.penalty if isinstance(training, LinearPredictor) else None
    if not isinstance(training, KernelTraining) and not _names_groups(penalty):
        return training
    features: Sequence[str] = columns.features
    names = _Names(columns, frozenset(features) if isinstance(features, tuple) else features)
    if isinstance(training, KernelTraining):
        return replace(training, kernel=_kernel(training.kernel, names))
    assert isinstance(training, LinearPredictor) and isinstance(penalty, PerGroup | PerFeature)  # noqa: PT018
    return _penalized(training, penalty, names)


def _names_groups(penalty: ClassPenalty | None) -> bool:
    return isinstance(penalty, PerGroup) or (isinstance(penalty, PerFeature) and penalty.groups is not None)


def _penalized(training: LinearTraining, penalty: PerGroup | PerFeature, names: _Names) -> LinearTraining:
    if penalty.groups is None:
        splined = {spline.feature for spline in training.splines}
        rest = {name: tuple(made for made in all_ if made not in splined) for name, all_ in names.columns.items()}
        groups = {name: made for name, made in rest.items() if made}
        return replace(training, penalty=replace(penalty, groups=groups))
    return replace(training, penalty=replace(penalty, groups=names.in_groups(penalty.groups)))


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
        kernel = replace(kernel, features=names.expanded(kernel.features, frozenset(kernel.features)))
    if isinstance(kernel.widths, WidthPerGroup):
        kernel = replace(kernel, widths=replace(kernel.widths, groups=names.in_groups(kernel.widths.groups)))
    return kernel
