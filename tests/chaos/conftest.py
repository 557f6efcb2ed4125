"""The marker of the tests that break the service on purpose."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "chaos: breaks a running service on purpose and judges it from the outside")
