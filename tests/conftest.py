"""Before anything else is imported: array shapes of the core are checked at run time, and hypothesis is repeatable."""

from collections.abc import Iterator

import hypothesis
import jaxtyping
import pytest

jaxtyping.install_import_hook("worker.core", "beartype.beartype")
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _own_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever is not told where to keep data keeps it here, and not where this machine's user does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield
