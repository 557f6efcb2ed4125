"""The reverse sweep through a Cholesky factor beside the factorization, and beside torch's where it is installed."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import numpy as np

from worker.core.linalg import cholesky

ROUNDS = 3


def seconds(f: Callable[[], object]) -> float:
    """The least CPU seconds of some rounds after a first one."""
    took = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        f()
        took.append(time.process_time() - began)
    return min(took[1:])


def torch_seconds(H: np.ndarray, L_bar: np.ndarray) -> tuple[float, float]:
    """Forward, and forward with backward, of `torch.linalg.cholesky`."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    A, bar = torch.from_numpy(H), torch.from_numpy(L_bar)

    def both() -> None:
        leaf = A.clone().requires_grad_()
        (torch.linalg.cholesky(leaf) * bar).sum().backward()

    return seconds(lambda: torch.linalg.cholesky(A)), seconds(both)


def main(*, short: bool) -> None:
    for p in (500,) if short else (1000, 2000, 4000):
        rng = np.random.default_rng(0)
        A = rng.normal(size=(p, p + 10))
        H, L_bar = np.asfortranarray(A @ A.T / p + np.eye(p)), np.tril(rng.normal(size=(p, p)))
        L = cholesky.factor_in_place(H.copy(order="F"))
        assert L is not None
        factor = seconds(lambda H=H: cholesky.factor_in_place(H.copy(order="F")))
        sweep = seconds(lambda L=L, L_bar=L_bar: cholesky.pullback(L, L_bar))
        print(f"p = {p:5d}: factorization {factor:6.3f} s, reverse sweep {sweep / factor:5.2f} of it", flush=True)
        if importlib.util.find_spec("torch"):
            forward, both = torch_seconds(H, L_bar)
            print(f"           torch: {forward / factor:5.2f} forward, backward {(both - forward) / factor:5.2f} of it")
