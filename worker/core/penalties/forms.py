"""Arithmetic of penalties `1/2 sum_j lam_j theta^T S_j theta`; each S_j is diagonal parts and dense blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.linalg import eigh

from worker.core.hyperparameters import units_of
from worker.core.linalg import cholesky
from worker.core.penalties.log_determinant import Component, LogDeterminant
from worker.core.records import Array

LARGEST_DENSE_INCIDENCE = 16_384  # entries; up to this size a dense product is faster than a sparse one
LARGEST_ZERO_EIGENVALUE = 1e-9  # of a given matrix, relative to its largest; up to it a direction is not penalized


@dataclass(frozen=True, slots=True)
class Block:
    """The symmetric matrix `S = B^T B` of hyperparameter `j` on the given columns; `B = root * scale`, of known rank.

    The rank is the one of the given root. It cannot be computed from S if the eigenvalues of S spread beyond working
    precision. Differences of hundreds of coefficients, or columns of different scales, have such eigenvalues.
    """

    j: int
    columns: Int[Array, " m"]
    S: Float[Array, "m m"]
    root: Float[Array, "r m"]
    rank: int
    scale: Float[Array, " m"] | float = 1.0

    @classmethod
    def of_root(cls, j: int, columns: Int[Array, " m"], root: Float[Array, "r m"], rank: int) -> Block:
        """The block of a root with its rank."""
        return cls(j, columns, root.T @ root, root, rank)

    @classmethod
    def of_matrix(cls, j: int, columns: Int[Array, " m"], S: Float[Array, "m m"]) -> Block:
        """The block of a semidefinite matrix, whose rank is the number of its nonzero eigenvalues."""
        values, vectors = eigh(S)
        kept = values > LARGEST_ZERO_EIGENVALUE * values[-1]
        return cls(j, columns, S, (vectors[:, kept] * np.sqrt(values[kept])).T, int(kept.sum()))

    def scaled(self, scale: Float[Array, " m"]) -> Block:
        """The block of the same form in `scale * theta`."""
        return replace(self, S=self.S * np.outer(scale, scale), scale=self.scale * scale)


@dataclass(frozen=True)
class PenaltyForms:
    """The matrices S_j: `diagonals[j]` is the diagonal part of S_j, and `blocks` hold the rest.

    `one_column_each`: S_j has a single entry, on the diagonal in column j. Some products are then much cheaper.
    """

    diagonals: Float[Array, "k p"] | sparse.csr_array
    blocks: tuple[Block, ...] = ()
    one_column_each: bool = False

    @classmethod
    def build(
        cls, k: int, p: int, entries: tuple[Int[Array, " m"], Int[Array, " m"]], blocks: Sequence[Block] = ()
    ) -> PenaltyForms:
        """The forms with diagonal entries 1 at the pairs (hyperparameter, column), and with the blocks."""
        j, columns = entries
        one_column_each = k == p == len(j) and bool((j == columns).all()) and not blocks
        incidence = sparse.csr_array((np.ones(len(j)), (j, columns)), shape=(k, p))
        dense = k * p <= LARGEST_DENSE_INCIDENCE
        return cls(incidence.toarray() if dense else incidence, tuple(blocks), one_column_each)

    @classmethod
    def shared(cls, p: int) -> PenaltyForms:
        """The identity as the only form, as `build` makes it, without an array of its pairs."""
        if p <= LARGEST_DENSE_INCIDENCE:
            return cls(np.ones((1, p)), (), one_column_each=p == 1)
        whole = np.ones(p), np.arange(p, dtype=np.int32), np.array([0, p], np.int32)
        return cls(sparse.csr_array(whole, shape=(1, p)))

    def extended_by(self, roots: Sequence[tuple[Float[Array, "_ _"], int]]) -> PenaltyForms:
        """These forms, followed by one more hyperparameter with its own columns for each root and its rank."""
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
        dense = shape[0] * shape[1] <= LARGEST_DENSE_INCIDENCE
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
        """Whether P is a diagonal matrix with a positive diagonal, so that division by it is possible."""
        if self.blocks:
            return False
        if isinstance(self.diagonals, np.ndarray):
            return bool((self.diagonals.sum(axis=0) > 0).all())
        covered = np.zeros(self.p, bool)
        covered[self.diagonals.indices[self.diagonals.data > 0]] = True
        return bool(covered.all())

    def scaled(self, scale: Float[Array, " p"]) -> PenaltyForms:
        """The same forms in `scale * theta`."""
        blocks = [b.scaled(scale[b.columns]) for b in self.blocks]
        return PenaltyForms(self._scale_columns(self.diagonals, scale**2), tuple(blocks), self.one_column_each)

    def units(self, variances: Float[Array, " p"]) -> Float[Array, " k"]:
        """The unit of each hyperparameter: the mean over the columns c of its form of `variances_c / (S_j)_cc`.

        If a column is multiplied by a number, and S_j changes so that the penalty stays the same form of the fitted
        function, `variances_c / (S_j)_cc` stays as it is. If S_j does not change, it is multiplied by the square.
        """
        diagonal = sparse.coo_array(self.diagonals)
        blocks = [(np.full(len(b.columns), b.j), b.columns, np.diag(b.S)) for b in self.blocks]
        parts = [(*diagonal.coords, diagonal.data), *blocks]
        owner, columns, entries = (np.concatenate(part) for part in zip(*parts, strict=True))
        kept = entries > 0
        return units_of(owner[kept], self.k, variances[columns[kept]] / entries[kept])

    def after_intercept(self) -> PenaltyForms:
        """The same forms in a theta with an unpenalized entry in front."""
        return self.placed([np.arange(1, self.p + 1)], self.p + 1)

    def placed(self, copies: Sequence[Int[Array, " p"]], size: int) -> PenaltyForms:
        """The forms in a longer theta, summed over copies; each has the places of the p entries. Others are free."""
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

    def repeated(self, m: int) -> PenaltyForms:
        """The forms of m vectors of coefficients, one after the other, which share their hyperparameters."""
        return self if m == 1 else self.placed([c * self.p + np.arange(self.p) for c in range(m)], m * self.p)

    @staticmethod
    def _scale_columns(A: Array | sparse.csr_array, scale: Float[Array, " p"]) -> Array | sparse.csr_array:
        return A * scale if isinstance(A, np.ndarray) else sparse.csr_array(A.multiply(scale[None, :]))

    def at(self, lam: Float[Array, " k"]) -> Penalized:
        """The forms at the hyperparameters `lam`."""
        scaled = [replace(b, S=lam[b.j] * b.S) for b in self.blocks]
        return Penalized(self, lam, self.diagonals.T @ lam, tuple(scaled))

    @cached_property
    def components(self) -> tuple[Component, ...]:
        """The connected components of the columns that blocks touch; a block connects its columns."""
        if not self.blocks:
            return ()
        members = [(b.columns[0], column) for b in self.blocks for column in b.columns]
        rows, columns = np.array(members).T
        graph = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(self.p, self.p))
        _, label = sparse.csgraph.connected_components(graph, directed=False)
        touched = np.unique(columns)
        return tuple(self._component(touched[label[touched] == which]) for which in np.unique(label[touched]))

    def _component(self, columns: Int[Array, " m"]) -> Component:
        """The component on these columns, with the roots of all blocks and diagonal parts there."""
        place = np.full(self.p, -1)
        place[columns] = np.arange(len(columns))
        blocks = [b for b in self.blocks if place[b.columns[0]] >= 0]
        owners, given, scaled = [b.j for b in blocks], [], []
        for b in blocks:
            given.append(np.zeros((len(b.root), len(columns))))
            scaled.append(given[-1].copy())
            given[-1][:, place[b.columns]], scaled[-1][:, place[b.columns]] = b.root, b.root * b.scale
        diagonals = self.diagonals[:, columns]
        diagonals = diagonals if isinstance(diagonals, np.ndarray) else diagonals.toarray()
        for j in np.flatnonzero(diagonals.any(axis=1)):
            kept = diagonals[j] > 0
            owners.append(int(j))
            given.append(np.eye(len(columns))[kept])
            scaled.append(np.diag(np.sqrt(diagonals[j]))[kept])
        return Component.build(owners, given, scaled, blocks[0].rank)


@dataclass(frozen=True)
class Penalized:
    """`P = sum_j lam_j S_j` and its derivatives `P_j = dP/d log(lam_j) = lam_j S_j`.

    `diagonal` is the sum of the diagonal parts. The factors `lam_j` are included in it and in `S` of the blocks.
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

    def root(self) -> Float[Array, "r p"]:
        """B with `B^T B = P`, of the diagonal parts and of each block."""
        p = len(self.diagonal)
        parts = [np.diag(np.sqrt(self.diagonal))[self.diagonal > 0]]
        for b in self.blocks:
            parts.append(np.zeros((len(b.root), p)))
            parts[-1][:, b.columns] = np.sqrt(self.lam[b.j]) * b.root * b.scale
        return np.vstack(parts)

    def whole_diagonal(self) -> Float[Array, " p"]:
        """The diagonal of P, blocks included."""
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
        """The symmetric part of the matrix `tr(P_j P P_l S)` over the pairs (j, l); P and S are symmetric."""
        if self.of.one_column_each:
            return self.diagonal[:, None] * (P * S) * self.diagonal
        A = self.of.diagonals
        out = self.lam[:, None] * (A @ (A @ (P * S)).T) * self.lam
        if self.blocks:
            columns = np.concatenate([b.columns for b in self.blocks])
            first = np.cumsum([0, *(len(b.columns) for b in self.blocks[:-1])])
            owner = np.array([b.j for b in self.blocks])
            left, right = self._rows_of_blocks(P), self._rows_of_blocks(S)
            # two blocks: left in the rows of one and the columns of the other, times the same part of right transposed
            both = np.add.reduceat(np.add.reduceat(left[:, columns] * right[:, columns].T, first), first, axis=1)
            np.add.at(out, (owner[:, None], owner), both)
            mixed = self.lam * (A @ np.add.reduceat(left * S[columns], first).T).T  # a block and a diagonal part
            np.add.at(out, owner, mixed)
            np.add.at(out.T, owner, mixed)
        return (out + out.T) / 2

    def _rows_of_blocks(self, M: Float[Array, "p p"]) -> Float[Array, "m p"]:
        """The rows of `P_b M` for each block b, stacked."""
        return np.vstack([b.S @ M[b.columns] for b in self.blocks])

    @cached_property
    def log_determinant(self) -> LogDeterminant:
        """`|P|_+` is the product of the nonzero eigenvalues of P; the range of P does not depend on lam > 0."""
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
        """The second derivative of `log |P|_+` in rho: zero if no two S_j share a column."""
        reciprocal = self._reciprocal(self._alone())
        fractions = sparse.csr_array(sparse.csr_array(self.of.diagonals) * self.lam[:, None] * reciprocal)
        out = np.diag(fractions.sum(axis=1)) - (fractions @ fractions.T).toarray()
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
        """`1 / diagonal` in the chosen columns, zero elsewhere."""
        return np.divide(1.0, self.diagonal, out=np.zeros(len(chosen)), where=chosen)
