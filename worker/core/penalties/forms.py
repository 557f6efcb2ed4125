"""Arithmetic of penalties `1/2 sum_j lam_j theta^T S_j theta`: diagonal parts and dense blocks on some columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.linalg import eigh, qr, svd

from worker.core.linalg import cholesky
from worker.core.records import Array

DENSE_INCIDENCE = 16_384  # entries up to which a dense product is faster than a sparse one
RANK = 1e-9  # share of the largest eigenvalue of a given matrix below which a direction is not penalized
TOGETHER = 1e-10  # the same for singular values of several given roots below each other, each over its largest entry


@dataclass(frozen=True, slots=True)
class Block:
    """The symmetric matrix `S = B^T B` of hyperparameter `j` on the given columns; `B = root * scale`, of known rank.

    The rank cannot be read off S where its eigenvalues differ by more than rounding allows, as those of differences of
    hundreds of coefficients do, or those of columns of different scales: it is that of the root as it was given.
    """

    j: int
    columns: Int[Array, " m"]
    S: Float[Array, "m m"]
    root: Float[Array, "r m"]
    rank: int
    scale: Float[Array, " m"] | float = 1.0

    @classmethod
    def of_root(cls, j: int, columns: Int[Array, " m"], root: Float[Array, "r m"], rank: int) -> Block:
        """From a root and its rank."""
        return cls(j, columns, root.T @ root, root, rank)

    @classmethod
    def of_matrix(cls, j: int, columns: Int[Array, " m"], S: Float[Array, "m m"]) -> Block:
        """From a semidefinite matrix, whose rank is that of its eigenvalues."""
        values, vectors = eigh(S)
        kept = values > RANK * values[-1]
        return cls(j, columns, S, (vectors[:, kept] * np.sqrt(values[kept])).T, int(kept.sum()))

    def scaled(self, scale: Float[Array, " m"]) -> Block:
        """The same form of `scale * theta`."""
        return replace(self, S=self.S * np.outer(scale, scale), scale=self.scale * scale)


@dataclass(frozen=True)
class PenaltyForms:
    """The matrices S_j: `diagonals[j]` is the diagonal part of S_j, `blocks` hold the rest.

    `one_column_each`: S_j is the diagonal matrix with one entry, on column j. It makes some products much cheaper.
    """

    diagonals: Float[Array, "k p"] | sparse.csr_array
    blocks: tuple[Block, ...] = ()
    one_column_each: bool = False

    @classmethod
    def build(
        cls, k: int, p: int, entries: tuple[Int[Array, " m"], Int[Array, " m"]], blocks: Sequence[Block] = ()
    ) -> PenaltyForms:
        """From the pairs (hyperparameter, column) of the diagonal entries, each 1, and the blocks."""
        j, columns = entries
        one_column_each = k == p == len(j) and bool((j == columns).all()) and not blocks
        incidence = sparse.csr_array((np.ones(len(j)), (j, columns)), shape=(k, p))
        dense = k * p <= DENSE_INCIDENCE
        return cls(incidence.toarray() if dense else incidence, tuple(blocks), one_column_each)

    def extended_by(self, roots: Sequence[tuple[Float[Array, "_ _"], int]]) -> PenaltyForms:
        """These forms, and behind their columns those of further hyperparameters, one for each root with its rank."""
        if not roots:
            return self
        k, p = self.k, self.p
        ends = p + np.cumsum([root.shape[1] for root, _ in roots])
        blocks = [
            Block.of_root(k + i, np.arange(end - root.shape[1], end), root, rank)
            for i, ((root, rank), end) in enumerate(zip(roots, ends, strict=True))
        ]
        shape = k + len(roots), int(ends[-1])
        old = sparse.csr_array(self.diagonals)
        indptr = np.append(old.indptr, np.full(len(roots), old.indptr[-1]))
        diagonals = sparse.csr_array((old.data, old.indices, indptr), shape=shape)
        dense = shape[0] * shape[1] <= DENSE_INCIDENCE
        return PenaltyForms(diagonals.toarray() if dense else diagonals, self.blocks + tuple(blocks))

    @property
    def k(self) -> int:
        """Number of hyperparameters."""
        return int(self.diagonals.shape[0])

    @property
    def p(self) -> int:
        """Number of columns."""
        return int(self.diagonals.shape[1])

    @property
    def is_positive_diagonal(self) -> bool:
        """Whether the total penalty is a diagonal matrix with no zero on it, so that it can be divided by."""
        return not self.blocks and bool((self.diagonals.sum(axis=0) > 0).all())

    def scaled(self, scale: Float[Array, " p"]) -> PenaltyForms:
        """The same forms of `scale * theta`."""
        blocks = [b.scaled(scale[b.columns]) for b in self.blocks]
        return PenaltyForms(self._times(self.diagonals, scale**2), tuple(blocks), self.one_column_each)

    def after_intercept(self) -> PenaltyForms:
        """The same forms of a theta with an unpenalized first entry."""
        return self.placed([np.arange(1, self.p + 1)], self.p + 1)

    def placed(self, copies: Sequence[Int[Array, " p"]], size: int) -> PenaltyForms:
        """The same forms of a longer theta: of the entries at each of the given places, summed; the others are free."""
        blocks = tuple(replace(b, columns=to[b.columns]) for b in self.blocks for to in copies)
        if isinstance(self.diagonals, np.ndarray):
            dense = np.zeros((self.k, size))
            for to in copies:
                dense[:, to] = self.diagonals
            return PenaltyForms(dense, blocks)
        old = sparse.coo_array(self.diagonals)
        j = np.tile(old.coords[0], len(copies))
        columns = np.concatenate([to[old.coords[1]] for to in copies])
        entries = np.tile(old.data, len(copies)), (j, columns)
        return PenaltyForms(sparse.csr_array(entries, shape=(self.k, size)), blocks)

    @staticmethod
    def _times(A: Array | sparse.csr_array, columns: Float[Array, " p"]) -> Array | sparse.csr_array:
        return A * columns if isinstance(A, np.ndarray) else sparse.csr_array(A.multiply(columns[None, :]))

    def at(self, lam: Float[Array, " k"]) -> Penalized:
        """The forms at the hyperparameters `lam`."""
        scaled = [replace(b, S=lam[b.j] * b.S) for b in self.blocks]
        return Penalized(self, lam, self.diagonals.T @ lam, tuple(scaled))

    @cached_property
    def components(self) -> tuple[_Component, ...]:
        """The columns that blocks connect with each other, in sets without a common column."""
        if not self.blocks:
            return ()
        members = [(b.columns[0], column) for b in self.blocks for column in b.columns]
        rows, columns = np.array(members).T
        graph = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(self.p, self.p))
        _, label = sparse.csgraph.connected_components(graph, directed=False)
        touched = np.unique(columns)
        return tuple(_Component.build(self, touched[label[touched] == which]) for which in np.unique(label[touched]))


@dataclass(frozen=True)
class Penalized:
    """`P = sum_j lam_j S_j` and its derivatives `P_j = dP/d log(lam_j) = lam_j S_j`.

    `diagonal` is that of the diagonal parts; the blocks carry their `lam_j`.
    """

    of: PenaltyForms
    lam: Float[Array, " k"]
    diagonal: Float[Array, " p"]
    blocks: tuple[Block, ...]

    def add_to(self, H: Float[Array, "p p"]) -> None:
        """`H += P`."""
        cholesky.diagonal_of(H)[...] += self.diagonal
        for b in self.blocks:
            H[np.ix_(b.columns, b.columns)] += b.S

    def whole_diagonal(self) -> Float[Array, " p"]:
        """The diagonal of P, that of the blocks included."""
        out = self.diagonal.copy()
        for b in self.blocks:
            out[b.columns] += np.diag(b.S)
        return out

    def apply(self, v: Float[Array, " p *m"]) -> Float[Array, " p *m"]:
        """`P v`."""
        out = (v.T * self.diagonal).T
        for b in self.blocks:
            out[b.columns] += b.S @ v[b.columns]
        return out

    def products(self, v: Float[Array, " p"], chosen: Int[Array, " f"]) -> Float[Array, "p f"]:
        """The columns `P_j v` for the chosen j, ascending."""
        rows = self.of.diagonals[chosen]
        columns = rows if isinstance(rows, np.ndarray) else rows.toarray()
        out = np.asfortranarray((columns * self.lam[chosen, None] * v).T)
        place = {int(j): f for f, j in enumerate(chosen)} if self.blocks else {}
        for b in self.blocks:
            if b.j in place:
                out[b.columns, place[b.j]] += b.S @ v[b.columns]
        return out

    def contract(self, u: Float[Array, " p"], v: Float[Array, " p"]) -> Float[Array, " k"]:
        """`u^T P_j v` for each j."""
        out = self.lam * (self.of.diagonals @ (u * v))
        for b in self.blocks:
            out[b.j] += u[b.columns] @ (b.S @ v[b.columns])
        return out

    def contract_columns(self, u: Float[Array, " p"], D: Float[Array, "p f"]) -> Float[Array, "k f"]:
        """`u^T P_j D_l` for each j and each column of D."""
        if self.of.one_column_each:
            return (self.diagonal * u)[:, None] * D
        out = self.lam[:, None] * (self.of.diagonals @ (u[:, None] * D))
        for b in self.blocks:
            out[b.j] += (u[b.columns] @ b.S) @ D[b.columns]
        return out

    def contract_matrix(self, H_bar: Float[Array, "p p"]) -> Float[Array, " k"]:
        """`<H_bar, P_j>` for each j; H_bar symmetric."""
        out = self.contract_diagonal(np.diag(H_bar))
        for b in self.blocks:
            out[b.j] += np.vdot(H_bar[np.ix_(b.columns, b.columns)], b.S)
        return out

    def contract_diagonal(self, bar: Float[Array, " p"]) -> Float[Array, " k"]:
        """`<diag(bar), P_j>` of the diagonal parts."""
        return self.lam * (self.of.diagonals @ bar)

    def forms(self, W: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """`w_i^T P_j w_i` for each row of W and each j."""
        if self.of.one_column_each:
            return W**2 * self.diagonal
        out = (self.of.diagonals @ (W**2).T).T * self.lam
        for b in self.blocks:
            part = W[:, b.columns]
            out[:, b.j] += np.einsum("ij,ij->i", part @ b.S, part)
        return out

    def pairs(self, P: Float[Array, "p p"], S: Float[Array, "p p"]) -> Float[Array, "k k"]:
        """`tr(P_j P P_l S)` for each pair, summed with its transpose's half: symmetric. P and S symmetric."""
        if self.of.one_column_each:
            return self.diagonal[:, None] * (P * S) * self.diagonal
        A = self.of.diagonals
        out = self.lam[:, None] * (A @ (A @ (P * S)).T) * self.lam
        if self.blocks:
            columns = np.concatenate([b.columns for b in self.blocks])
            first = np.cumsum([0, *(len(b.columns) for b in self.blocks[:-1])])
            owner = np.array([b.j for b in self.blocks])
            left, right = self._rows_of_blocks(P), self._rows_of_blocks(S)
            # of two blocks: the rows of left in one and the columns in the other, times those of right transposed
            both = np.add.reduceat(np.add.reduceat(left[:, columns] * right[:, columns].T, first), first, axis=1)
            np.add.at(out, (owner[:, None], owner), both)
            mixed = self.lam * (A @ np.add.reduceat(left * S[columns], first).T).T  # of a block and a diagonal part
            np.add.at(out, owner, mixed)
            np.add.at(out.T, owner, mixed)
        return (out + out.T) / 2

    def _rows_of_blocks(self, M: Float[Array, "p p"]) -> Float[Array, "m p"]:
        """The rows of `P_b M` for each block b, one below the other."""
        return np.vstack([b.S @ M[b.columns] for b in self.blocks])

    @cached_property
    def log_determinant(self) -> LogDeterminant:
        """`log |P|_+`, the product of the eigenvalues on the range of P, which does not depend on lam > 0."""
        alone = self._alone()
        value, rank = float(np.log(self.diagonal[alone]).sum()), int(alone.sum())
        gradient = self.contract_diagonal(self._reciprocal(alone))
        for component in self.of.components:
            part = component.at(self.lam)
            value, rank = value + part.value, rank + component.rank
            for j, solved in part.solved.items():
                gradient[j] += np.trace(solved)
        return LogDeterminant(value, gradient, rank)

    def log_determinant_hessian(self) -> Float[Array, "k k"]:
        """The second derivative of `log |P|_+` in rho: zero where every S_j has its own columns."""
        reciprocal = self._reciprocal(self._alone())
        shares = sparse.csr_array(sparse.csr_array(self.of.diagonals) * self.lam[:, None] * reciprocal)
        out = np.diag(shares.sum(axis=1)) - (shares @ shares.T).toarray()
        for component in self.of.components:
            solved = component.at(self.lam).solved
            for j, first in solved.items():
                out[j, j] += np.trace(first)
                for i, second in solved.items():
                    out[j, i] -= np.vdot(first, second.T)
        return out

    def _alone(self) -> Bool[Array, " p"]:
        """The penalized columns that no block touches."""
        alone = self.diagonal > 0
        for b in self.blocks:
            alone[b.columns] = False
        return alone

    def _reciprocal(self, chosen: Bool[Array, " p"]) -> Float[Array, " p"]:
        """Of the diagonal; zero elsewhere."""
        return np.divide(1.0, self.diagonal, out=np.zeros(len(chosen)), where=chosen)


@dataclass(frozen=True, slots=True)
class LogDeterminant:
    """`log |P|_+` with its gradient in `rho`, and the rank of P."""

    value: float
    gradient: Float[Array, " k"]
    rank: int


@dataclass(frozen=True, slots=True)
class _Solved:
    """`log |P|_+` of a component, and `P^-1 P_j` in some basis of its range for each of its hyperparameters j."""

    value: float
    solved: dict[int, Float[Array, "r r"]]


@dataclass(frozen=True, slots=True)
class _Component:
    """Some columns of the roots of all S_j below each other; `owner` is the hyperparameter of each row.

    Their rank depends neither on the scales of the columns nor on the hyperparameters, and is that of the given roots.
    """

    B: Float[Array, "r m"]
    owner: Int[Array, " r"]
    rank: int

    @classmethod
    def build(cls, of: PenaltyForms, columns: Int[Array, " m"]) -> _Component:
        """The roots of all blocks and diagonal parts on these columns."""
        place = np.full(of.p, -1)
        place[columns] = np.arange(len(columns))
        owners, given, roots = [], [], []
        for b in of.blocks:
            if place[b.columns[0]] >= 0:
                owners.append(np.full(len(b.root), b.j))
                given.append(np.zeros((len(b.root), len(columns))))
                roots.append(given[-1].copy())
                given[-1][:, place[b.columns]], roots[-1][:, place[b.columns]] = b.root, b.root * b.scale
        rank = next(b.rank for b in of.blocks if place[b.columns[0]] >= 0)
        diagonals = of.diagonals[:, columns]
        diagonals = diagonals if isinstance(diagonals, np.ndarray) else diagonals.toarray()
        for j in np.flatnonzero(diagonals.any(axis=1)):
            kept = diagonals[j] > 0
            owners.append(np.full(np.count_nonzero(kept), j))
            given.append(np.eye(len(columns))[kept])
            roots.append(np.diag(np.sqrt(diagonals[j]))[kept])
        if len(given) > 1:
            values = svd(np.vstack([root / np.abs(root).max() for root in given]), compute_uv=False)
            rank = int(np.count_nonzero(values > TOGETHER * values[0]))
        return cls(np.vstack(roots), np.concatenate(owners), rank)

    def at(self, lam: Float[Array, " k"]) -> _Solved:
        """By a QR decomposition `Q R` of the roots B of all P_j below each other: `P = B^T B`.

        With pivots and the longest rows first each row keeps its own digits, however different the rows are (Cox and
        Higham 1998). The determinant is that of `R R^T`, and `P^-1 P_j` is `Q_j^T Q_j` in the basis `R^-1`, Q_j the
        rows of j.
        """
        B = np.sqrt(lam[self.owner, None]) * self.B
        order = np.argsort(-np.abs(B).max(axis=1), kind="stable")
        Q, R, _ = qr(B[order], mode="economic", pivoting=True)
        owner, R = self.owner[order], R[: self.rank]
        corner = R if self.rank == R.shape[1] else qr(R.T, mode="r")[0]
        parts = {int(j): Q[owner == j, : self.rank] for j in np.unique(owner)}
        value = 2.0 * float(np.log(np.abs(np.diag(corner))).sum())
        return _Solved(value, {j: part.T @ part for j, part in parts.items()})
