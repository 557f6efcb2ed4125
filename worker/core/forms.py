"""Arithmetic of penalties `1/2 sum_j lam_j theta^T S_j theta`: diagonal parts and dense blocks on some columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.linalg import eigh, svd

from worker.core import cholesky
from worker.core.records import Array

DENSE_INCIDENCE = 16_384  # entries up to which a dense product is faster than a sparse one
RANK = 1e-9  # share of the largest eigenvalue of a given matrix below which a direction is not penalized
TOGETHER = 1e-10  # the same for singular values of several roots below each other, each over its largest


@dataclass(frozen=True, slots=True)
class Block:
    """The symmetric matrix `S = root^T root` of hyperparameter `j` on the given columns, of known rank.

    The rank cannot be read off S where its eigenvalues differ by more than rounding allows, as those of differences of
    hundreds of coefficients do, or those of columns of different scales.
    """

    j: int
    columns: Int[Array, " m"]
    S: Float[Array, "m m"]
    root: Float[Array, "r m"]
    rank: int

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
        return replace(self, S=self.S * np.outer(scale, scale), root=self.root * scale)

    def times(self, lam: float) -> Block:
        """`lam` times the form."""
        return replace(self, S=lam * self.S, root=np.sqrt(lam) * self.root)


@dataclass(frozen=True, slots=True)
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

    def beside(self, roots: Sequence[tuple[Float[Array, "_ _"], int]]) -> PenaltyForms:
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
        scaled = [b.times(lam[b.j]) for b in self.blocks]
        return Penalized(self, lam, self.diagonals.T @ lam, tuple(scaled))


@dataclass(frozen=True, slots=True)
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

    def log_determinant(self) -> LogDeterminant:
        """`log |P|_+`, the product of the eigenvalues on the range of P, which does not depend on lam > 0."""
        alone, share = self._alone()
        value, gradient, rank = float(np.log(self.diagonal[alone]).sum()), share.sum(axis=1), int(alone.sum())
        for columns in _components(self.of):
            part = _Component.build(self, columns)
            value, rank = value + part.value, rank + part.rank
            for j, solved in part.solved.items():
                gradient[j] += np.trace(solved)
        return LogDeterminant(value, gradient, rank)

    def log_determinant_hessian(self) -> Float[Array, "k k"]:
        """The second derivative of `log |P|_+` in rho: zero where every S_j has its own columns."""
        _, share = self._alone()
        out = np.diag(share.sum(axis=1)) - share @ share.T
        for columns in _components(self.of):
            solved = _Component.build(self, columns).solved
            for j, first in solved.items():
                out[j, j] += np.trace(first)
                for i, second in solved.items():
                    out[j, i] -= np.vdot(first, second.T)
        return out

    def _alone(self) -> tuple[Bool[Array, " p"], Float[Array, "k a"]]:
        """The penalized columns that no block touches, and the share of each hyperparameter in their diagonal."""
        alone = self.diagonal > 0
        for b in self.blocks:
            alone[b.columns] = False
        share = self.of.diagonals[:, np.flatnonzero(alone)]
        share = share if isinstance(share, np.ndarray) else share.toarray()
        return alone, share * self.lam[:, None] / self.diagonal[alone]


@dataclass(frozen=True, slots=True)
class LogDeterminant:
    """`log |P|_+` with its gradient in `rho`, and the rank of P."""

    value: float
    gradient: Float[Array, " k"]
    rank: int


def _components(of: PenaltyForms) -> list[Int[Array, " m"]]:
    """The columns that blocks connect with each other, in sets without a common column."""
    if not of.blocks:
        return []
    members = [(b.columns[0], column) for b in of.blocks for column in b.columns]
    rows, columns = np.array(members).T
    graph = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(of.p, of.p))
    _, label = sparse.csgraph.connected_components(graph, directed=False)
    touched = np.unique(columns)
    return [touched[label[touched] == which] for which in np.unique(label[touched])]


@dataclass(frozen=True, slots=True)
class _Component:
    """The columns of one component, inside the range of `sum_j S_j`: `log |P|` and `P^-1 P_j` there.

    With the roots B of all P_j below each other, `P = B^T B`, and its thin singular value decomposition `U s V^T`, the
    determinant is that of `s^2` and `P^-1 P_j` is `U_j^T U_j` in the basis `V / s`, U_j the rows of j.
    """

    value: float
    rank: int
    solved: dict[int, Float[Array, "r r"]]

    @classmethod
    def build(cls, at: Penalized, columns: Int[Array, " m"]) -> _Component:
        """By a singular value decomposition, whose rank does not depend on scales or hyperparameters."""
        place = np.full(at.of.p, -1)
        place[columns] = np.arange(len(columns))
        rows = at.of.diagonals[:, columns]
        rows = rows if isinstance(rows, np.ndarray) else rows.toarray()
        blocks = [b for b in at.blocks if place[b.columns[0]] >= 0]
        owners, roots = [], []
        for b in blocks:
            root = np.zeros((len(b.root), len(columns)))
            root[:, place[b.columns]] = b.root
            owners.append(np.full(len(root), b.j))
            roots.append(root)
        for j in np.flatnonzero(rows.any(axis=1)):
            root = np.diag(np.sqrt(at.lam[j] * rows[j]))[rows[j] > 0]
            owners.append(np.full(len(root), j))
            roots.append(root)
        rank = blocks[0].rank if len(roots) == 1 else _joint_rank(roots)
        owner, (U, s, _) = np.concatenate(owners), svd(np.vstack(roots), full_matrices=False)
        of_each = {int(j): U[owner == j, :rank] for j in np.unique(owner)}
        return cls(2.0 * float(np.log(s[:rank]).sum()), rank, {j: part.T @ part for j, part in of_each.items()})


def _joint_rank(roots: list[Float[Array, "_ m"]]) -> int:
    """The rank of roots below each other, whatever the scales of columns and of roots."""
    columns = np.linalg.norm(np.vstack(roots), axis=0)
    together = np.vstack([part / np.linalg.norm(part, axis=1).max() for part in (root / columns for root in roots)])
    together /= np.linalg.norm(together, axis=0)
    values = svd(together, compute_uv=False)
    return int(np.count_nonzero(values > TOGETHER * values[0]))
