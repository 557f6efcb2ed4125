"""Before anything else is imported: one thread for each test process, and hypothesis is repeatable.

Array shapes of the core are checked at run time in its own tests; elsewhere that would be most of the time.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):  # for what is loaded later, and children
    os.environ.setdefault(_name, "1")

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import threadpoolctl  # noqa: E402

from tests import shapes  # noqa: E402
from tests.perturbed import use_perturbed_draws  # noqa: E402

threadpoolctl.threadpool_limits(int(os.environ["OPENBLAS_NUM_THREADS"]))  # plugins of pytest have loaded numpy before
shapes.install()
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")
CORE = Path(__file__).parent / "core"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Inputs with other last bits."""
    help_ = "change random inputs of tests by a few units in the last place, which stands for another processor"
    parser.addoption("--perturb", type=int, metavar="SEED", default=None, help=help_)


def pytest_configure(config: pytest.Config) -> None:
    """Before test modules are imported, some of which draw their data at once."""
    if (seed := config.getoption("perturb")) is not None:
        use_perturbed_draws(seed)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes, unless `-n` says how many: one for single files, and for the long suites, which need the machine."""
    chosen = config.option.markexpr not in config.getini("addopts")
    if chosen or all(".py" in argument for argument in config.args):
        return 0
    return min((os.cpu_count() or 1) + 1, 4)  # many tests wait for servers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which order it was: the line of the plugin that shuffles the tests is not shown with `-q`."""
    seed = terminalreporter.config.getoption("randomly_seed", None)
    if seed is not None:
        terminalreporter.write_line(f"in the order of --randomly-seed={seed}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures of the test are made."""
    shapes.check(item.path.is_relative_to(CORE) and item.get_closest_marker("unchecked") is None)


@pytest.fixture(scope="session", autouse=True)
def _own_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whoever is not told where to keep data keeps it here, and not where this machine's user does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def _process_is_left_as_it_was() -> Iterator[None]:
    """Else what a test finds would depend on those before it."""
    before = _process()
    yield
    assert _process() == before


def _process() -> dict[str, Any]:
    """What tests could change for those that come after them in the same process."""
    return {
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "directory": Path.cwd(),
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)},
        "numpy": np.geterr(),
    }
