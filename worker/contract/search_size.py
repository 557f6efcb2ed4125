"""Limits of what a training criterion makes of many columns: hyperparameters, groups, features of kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from worker.contract.faults import Fault, pointer_of
from worker.contract.feature_columns import FeatureColumns
from worker.contract.feature_list import MOST_PIECES, pieces
from worker.contract.patterns import is_pattern, pattern_faults
from worker.core.kernels import Product, Simple, Sum, WidthPerFeature, WidthPerGroup
from worker.core.penalties import ClassPenalty, PerCoefficient, PerFeature, PerGroup, QuadraticForms
from worker.core.penalties.quadratic_forms import Difference, Identity, Matrix
from worker.core.training import Training
from worker.core.training.kernel_machines import KernelTraining
from worker.core.training.linear import LinearPredictor

MOST_HYPERPARAMETERS = 100_000
MOST_MEMBERS = 100_000  # features that are named by groups and kernels, columns and patterns written out
MOST_ENTRIES = 90_000  # of given matrices and bands: one of 300 features, which is decomposed to check it
MOST_IDENTITIES = 2_000_000  # features of forms that are identities
MOST_DIFFERENCES = 1_000_000  # entries of the squares of differences
MOST_SPLINES = 500  # each takes about a millisecond to check
MOST_KERNEL_FEATURES = 2_000_000  # features of all kernels of a sum or product together

MOST_OF_FORMS = {Identity: MOST_IDENTITIES, Difference: MOST_DIFFERENCES, Matrix: MOST_ENTRIES}

Listed = list[tuple[str, str]]  # pointers and names


def size_faults(training: Training, columns: FeatureColumns, classes: int) -> Iterator[Fault]:
    """Faults of what would be too large, before it is made. `classes`: number of classes, 0 for a number as target."""
    if (scattered := pieces(columns)) > MOST_PIECES:
        text = f"These features are {scattered} separate runs of columns, and {MOST_PIECES} is the most"
        yield Fault("/data/features", "too_scattered", f"{text}; choose more or fewer neighbours.")
        return
    kernels = list(_kernels(training))
    p = len(columns.features)
    yield from _count_faults(training, kernels, p, len(columns), max(classes, 1))
    in_kernels = sum(len(kernel.features or ()) or p for _, kernel in kernels)
    if in_kernels > MOST_KERNEL_FEATURES:
        text = f"The kernels have {in_kernels} features in all, and {MOST_KERNEL_FEATURES} is the most"
        yield Fault("/training/kernel", "too_large", f"{text}; choose fewer features.")
    listed = _listed(training, kernels)
    patterns = [(pointer, name) for pointer, name in listed if is_pattern(name) and name not in columns]
    if patterns and (found := list(pattern_faults(patterns, columns.texts))):
        yield from found
        return
    members = 0
    for pointer, name in listed:
        members += _members(columns, name)
        if members > MOST_MEMBERS:
            text = f"Up to here groups name {members} features, and {MOST_MEMBERS} is the most"
            yield Fault(pointer, "too_many_members", f"{text}; use a shared penalty or width, or fewer features.")
            return


def spline_faults(training: Training) -> Iterator[Fault]:
    """The fault of more splines than can be checked in a moment. It does not depend on the data."""
    if isinstance(training, LinearPredictor) and len(training.splines) > MOST_SPLINES:
        text = f"There are {len(training.splines)} splines, and {MOST_SPLINES} is the most"
        yield Fault("/training/splines", "too_many", f"{text}; leave some features linear.")


def form_faults(training: Training, p: int) -> Iterator[Fault]:
    """Faults of quadratic forms of p features whose matrices are too large to be checked by the API."""
    penalty = _penalty(training)
    forms = penalty.forms if isinstance(penalty, QuadraticForms) else ()
    total = dict.fromkeys((Identity, Difference, Matrix), 0)
    for i, form in enumerate(forms):
        m = p if form.features is None else len(form.features)
        kind = type(form) if isinstance(form, Identity | Difference) else Matrix
        total[kind] += m if kind is Identity else m * m
        most = MOST_OF_FORMS[kind]
        if total[kind] > most:
            text = f"Up to here such forms have {total[kind]} entries, and {most} is the most"
            yield Fault(f"/training/penalty/forms/{i}", "too_large", f"{text}; give each form fewer features.")
            return


def _count_faults(
    training: Training, kernels: list[tuple[str, Simple]], p: int, columns: int, classes: int
) -> Iterator[Fault]:
    """Faults of too many hyperparameters. Only those that grow with the features count: a spec lists all others."""
    penalty = _penalty(training)
    counts = [(f"{place}/widths", p) for place, one in kernels if _per_feature(one)]
    if isinstance(penalty, PerFeature):
        counts.append(("/training/penalty", p))
    elif isinstance(penalty, PerCoefficient):
        counts.append(("/training/penalty", p * classes))
    elif isinstance(penalty, PerGroup) and penalty.groups is None:
        counts.append(("/training/penalty", columns))
    if (total := sum(count for _, count in counts)) > MOST_HYPERPARAMETERS:
        text = f"This job would have {total} hyperparameters, and {MOST_HYPERPARAMETERS} is the most"
        yield Fault(counts[-1][0], "too_many_hyperparameters", f"{text}; choose shared, few groups, or fewer features.")


def _penalty(training: Training) -> ClassPenalty | None:
    """The penalty of the coefficients of features, if there are any."""
    return training.penalty if isinstance(training, LinearPredictor) else None


def _per_feature(kernel: Simple) -> bool:
    return kernel.features is None and isinstance(kernel.widths, WidthPerFeature)


def _kernels(training: Training) -> Iterator[tuple[str, Simple]]:
    """The simple kernels with their pointers."""
    if not isinstance(training, KernelTraining):
        return
    kernel, place = training.kernel, "/training/kernel"
    for i, term in enumerate(kernel.terms if isinstance(kernel, Sum) else (kernel,)):
        here = f"{place}/terms/{i}" if isinstance(kernel, Sum) else place
        if isinstance(term, Product):
            yield from ((f"{here}/factors/{j}", factor) for j, factor in enumerate(term.factors))
        else:
            yield here, term


def _listed(training: Training, kernels: list[tuple[str, Simple]]) -> Listed:
    """The names that groups and kernels list."""
    listed: Listed = []
    penalty = _penalty(training)
    if isinstance(penalty, PerGroup | PerFeature) and penalty.groups is not None:
        listed += _of_groups("/training/penalty/groups", penalty.groups)
    for place, kernel in kernels:
        listed += [(f"{place}/features/{i}", name) for i, name in enumerate(kernel.features or ())]
        if isinstance(kernel.widths, WidthPerGroup):
            listed += _of_groups(f"{place}/widths/groups", kernel.widths.groups)
    return listed


def _of_groups(place: str, groups: Mapping[str, tuple[str, ...]]) -> Listed:
    return [
        (f"{place}{pointer_of([group])}/{i}", name)
        for group, members in groups.items()
        for i, name in enumerate(members)
    ]


def _members(columns: FeatureColumns, name: str) -> int:
    """How many features a name means."""
    if name in columns:
        return len(columns[name])
    return sum(map(len, columns.matching(name))) if is_pattern(name) else 1
