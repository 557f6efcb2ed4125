"""mgcv through `Rscript`: the same P-splines (`bs = "ps"`), smoothing parameters by GCV, in CPU seconds of R."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.peers.tasks import Task

SCRIPT = """
suppressMessages(library(mgcv))
a <- commandArgs(TRUE)
d <- as.matrix(read.csv(a[1], header = FALSE)); k <- ncol(d) - 1; m <- as.integer(a[2])
data <- data.frame(d); names(data) <- c("y", paste0("x", 1:k))
f <- as.formula(paste("y ~", paste(sprintf('s(x%d, bs = "ps", k = %d, m = c(2, 2))', 1:k, m), collapse = " + ")))
knots <- setNames(lapply(1:k, function(j) {
  x <- data[[j + 1]]; h <- diff(range(x)) / (m - 3); min(x) + h * (-3:m) }), paste0("x", 1:k))
if (a[3] == "mgcv_gcv") {
  time <- system.time(fit <- gam(f, data = data, knots = knots, method = "GCV.Cp"))
} else { # the core alone: set-up of the model not counted
  G <- gam(f, data = data, knots = knots, method = "GCV.Cp", fit = FALSE)
  time <- system.time(fit <- magic(G$y, G$X, G$sp, G$S, G$off, L = G$L, lsp0 = G$lsp0, C = G$C,
                                   control = list(tol = 1e-7, step.half = 15, rank.tol = .Machine$double.eps^0.5)))
}
scale <- if (a[3] == "mgcv_gcv") sapply(fit$smooth, function(s) s$S.scale) else sapply(G$smooth, function(s) s$S.scale)
cat(sprintf("%.6f\\n", time[1] + time[2])); cat(sprintf("%.17g\\n", log(fit$sp / scale)))
"""


def search(task: Task, method: str) -> list[tuple[float, list[float]]]:
    """CPU seconds, and the point on our scale. `gam` rescales each penalty by `S.scale`."""
    assert task.covariates is not None
    with tempfile.TemporaryDirectory() as directory:
        table, script = Path(directory, "table.csv"), Path(directory, "fit.R")
        np.savetxt(table, np.column_stack([task.y, task.covariates]), delimiter=",", fmt="%.17g")
        script.write_text(SCRIPT)
        m = task.X.shape[1] // task.k + 1
        done = subprocess.run(
            ["Rscript", str(script), str(table), str(m), method],
            capture_output=True,
            text=True,
            check=True,
            timeout=900,
        )  # fmt: skip
    seconds, *rho = map(float, done.stdout.split())
    return [(seconds, [r - float(np.log(len(task.y))) for r in rho])]
