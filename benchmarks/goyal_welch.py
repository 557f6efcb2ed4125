"""Next month's equity premium from twelve predictors (Welch and Goyal 2008), forecast as time went on (Bengio 2000).

At each January from 1965 hyperparameters are tuned by walk-forward selection inside the months before it, and held for
that year; each month is forecast by a model refitted on all months before it. docs/guides/time-series.md explains.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from worker.core.hypergradient import Implicit
from worker.core.outer import Newton
from worker.core.penalties import PerFeature, Shared
from worker.core.rows.problem import Partition, Problem
from worker.core.search.plan import Plan, prepare
from worker.core.search.tune import tune
from worker.core.selection import WalkForward
from worker.core.training import Ridge
from worker.core.weights import SigmoidTime

FILE = Path("goyal_welch", "monthly_2005.csv")
FIRST_MONTH, FIRST_FORECAST = 192701, 196501  # yyyymm
SELECTION = WalkForward(initial=240, horizon=12)  # origins a year apart, the first after twenty years
OUTER = Newton()
METHODS = {
    "one shared penalty": Ridge(penalty=Shared()),
    "a penalty each": Ridge(penalty=PerFeature()),
    "one shared penalty, time weights": Ridge(penalty=Shared(), weights=SigmoidTime()),
    "a penalty each, time weights": Ridge(penalty=PerFeature(), weights=SigmoidTime()),
}


@dataclass(frozen=True)
class Series:
    """Months in order: `problem.y` is the premium of the month, `problem.X` was known at the end of the one before."""

    month: np.ndarray
    problem: Problem

    def until(self, end: int) -> Problem:
        """The first `end` months."""
        return replace(self.problem, X=self.problem.X[:end], y=self.problem.y[:end])


def read(path: Path) -> Series:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    c = {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}
    known = {
        "dividend_price": np.log(c["D12"]) - np.log(c["Index"]),
        "earnings_price": np.log(c["E12"]) - np.log(c["Index"]),
        "book_market": c["b/m"],
        "stock_variance": c["svar"],
        "net_issues": c["ntis"],
        "treasury_bill": c["tbl"],
        "long_yield": c["lty"],
        "long_return": c["ltr"],
        "term_spread": c["lty"] - c["tbl"],
        "default_yield": c["BAA"] - c["AAA"],
        "default_return": c["corpr"] - c["ltr"],
        "inflation": lagged(c["infl"]),  # published a month later
    }
    X = np.column_stack([lagged(column) for column in known.values()])
    y = np.log1p(c["CRSP_SPvw"]) - np.log1p(c["Rfree"])
    month = c["yyyymm"].astype(int)
    used = month >= FIRST_MONTH
    if not (np.isfinite(X[used]).all() and np.isfinite(y[used]).all()):
        raise ValueError(f"{path} has missing values after {FIRST_MONTH}")
    return Series(month[used], Problem(X[used], y[used], tuple(known)))


def lagged(column: np.ndarray) -> np.ndarray:
    return np.append(np.nan, column[:-1])


def running_mean(series: Series, begin: int, end: int) -> np.ndarray:
    return np.array([series.problem.y[:i].mean() for i in range(begin, end)])


def least_squares(series: Series, begin: int, end: int) -> np.ndarray:
    Z, y = np.insert(series.problem.X, 0, 1.0, axis=1), series.problem.y
    return np.array([Z[i] @ np.linalg.lstsq(Z[:i], y[:i])[0] for i in range(begin, end)])


@dataclass(frozen=True)
class Tuned:
    """Forecasts; for each year the hyperparameters in natural units, and the R2 that its walk-forward selection saw."""

    forecasts: np.ndarray
    chosen: np.ndarray
    seen: np.ndarray


def tuned(series: Series, training: Ridge, begin: int, end: int) -> Tuned:
    forecasts, chosen, seen = [], [], []
    for january in range(begin, end, 12):
        prepared = prepare(series.until(january), Plan(training, SELECTION, Implicit(), OUTER))
        *_, last = tune(prepared)
        chosen.append(prepared.objective.natural(last.best.best.rho))
        seen.append(1 - last.best.best.value / error_of_means(prepared.problem.y, prepared.partition))
        for i in range(january, min(january + 12, end)):
            system = training.refit(series.until(i), np.arange(i))
            fit = system.fit(chosen[-1])
            assert fit is not None  # the penalties keep it regular
            intercept, slopes = system.coefficients(fit.theta)
            forecasts.append(intercept + series.problem.X[i] @ slopes)
    return Tuned(np.array(forecasts), np.array(chosen), np.array(seen))


def error_of_means(y: np.ndarray, partition: Partition) -> float:
    """Mean squared error of the training mean over the validation rows of all splits."""
    rows = [(partition.rows(train), partition.rows(validation)) for train, validation in partition.splits]
    return float(np.mean(np.concatenate([(y[later] - y[earlier].mean()) ** 2 for earlier, later in rows])))


def report(name: str, actual: np.ndarray, forecasts: np.ndarray, mean: np.ndarray, seconds: float) -> None:
    """Out-of-sample R2 in percent, its standard error as of independent months, and both halves of the time."""
    ours, theirs = (actual - forecasts) ** 2, (actual - mean) ** 2
    error = np.std(theirs - ours, ddof=1) * np.sqrt(len(actual)) / theirs.sum()
    middle = len(actual) // 2
    halves = [1 - ours[part].sum() / theirs[part].sum() for part in (slice(middle), slice(middle, None))]
    print(
        f"{name:>33}: R2 {100 * (1 - ours.sum() / theirs.sum()):6.2f} % +- {100 * error:.2f}"
        f"   halves {100 * halves[0]:6.2f} % {100 * halves[1]:6.2f} %   {seconds:5.1f} s",
        flush=True,
    )


def main(*, short: bool, data: Path | None) -> None:
    if data is None:
        print("needs --data DIR or GRADTUNE_DATA, a directory with goyal_welch/monthly_2005.csv: left out")
        return
    series = read(data / FILE)
    begin = int(np.searchsorted(series.month, FIRST_FORECAST))
    end = begin + 24 if short else len(series.month)
    actual = series.problem.y[begin:end]
    print(f"forecasts {series.month[begin]} to {series.month[end - 1]}; R2 beside the running mean, which has 0")
    mean = running_mean(series, begin, end)
    began = time.process_time()
    report("expanding least squares", actual, least_squares(series, begin, end), mean, time.process_time() - began)
    for name, training in METHODS.items():
        began = time.process_time()
        result = tuned(series, training, begin, end)
        report(name, actual, result.forecasts, mean, time.process_time() - began)
        print(f"{'its selection saw, mean over the years':>40}: R2 {100 * result.seen.mean():6.2f} %")
        names = training.hyperparameters(series.problem).names
        for hyperparameter, *values in zip(names, *np.quantile(result.chosen, (0, 0.5, 1), axis=0), strict=True):
            shown = " ".join(f"{value:10.3g}" for value in values)
            print(f"{hyperparameter:>40}: {shown}   (lowest, median, highest year)")
