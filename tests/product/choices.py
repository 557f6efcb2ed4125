"""Choices on their way: carried out, drawn at random, and cut down when something goes wrong."""

from __future__ import annotations

import numpy as np

from tests.product.carry import carry, check_faults, error_of, refused, submitted
from tests.product.covering import smallest
from tests.product.factors import FACTORS, FILES, Choice, plain, request, restricted
from worker.load import LoadError

SHARE = 0.3  # of the factors that are drawn


def is_refused(choice: Choice) -> bool:
    """Whether the request of a choice has faults."""
    return refused(request(choice))


def carried(choice: Choice) -> None:
    """Raises whatever goes wrong with the request of a choice."""
    asked = request(choice)
    checked = submitted(asked)
    if isinstance(checked, list):
        check_faults(asked, checked)
        return
    try:
        carry(checked)
    except LoadError as error:  # of a file the service has seen no values yet; those of a table it has
        if choice.get("data") not in FILES or error.code != "data-do-not-fit":
            raise
        if choice["data"] != "where" and not is_refused({**choice, "data": "inline"}):
            raise


def failure(choice: Choice) -> str | None:
    """What goes wrong, with the fewest levels with which it does; None if nothing does."""
    error = error_of(lambda: carried(choice))
    if error is None:
        return None
    same = error[:50]
    cut = smallest(choice, lambda other: (error_of(lambda: carried(other)) or "").startswith(same))
    return f"{cut}\n    {error}"


def drawn(fixed: Choice, rng: np.random.Generator) -> Choice | None:
    """The fixed levels among others that are drawn, or beside plain ones if that is refused; None without a place."""
    begin = plain(fixed)
    if begin is None:
        return None
    others = {name: str(rng.choice(factor.levels)) for name, factor in FACTORS.items() if rng.random() < SHARE}
    choice = restricted({**begin, **others, **fixed})
    return choice if fixed.items() <= choice.items() and not is_refused(choice) else begin
