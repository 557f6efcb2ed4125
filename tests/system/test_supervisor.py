"""The supervisor looks after its children from the first moment, whether the service has announced itself or not."""

import os
import sys
import time
from pathlib import Path

from service.supervisor import SLOWEST_RESTART, Part, Supervisor
from tests.servers import server


def test_what_dies_before_the_announcement_is_started_again(tmp_path: Path) -> None:
    module = tmp_path / "dies.py"
    born = tmp_path / "born"
    module.write_text(f"import os, sys; open({str(born)!r}, 'a').write('.'); sys.exit(3)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    announced: list[bool] = []

    with server(tmp_path / "data") as embedded:
        supervisor = Supervisor([Part("it", ("dies",))], environment, embedded.url)

        def announce() -> bool:
            """Succeed once the child was started three times, and stop everything soon after."""
            done = born.exists() and len(born.read_text()) >= 3
            if done:
                announced.append(True)
                supervisor.stopping = True
            return done

        supervisor.run(announce)
    assert announced == [True]


def test_only_what_dies_at_once_is_started_later_and_later(tmp_path: Path) -> None:
    (tmp_path / "sleeps.py").write_text("import time; time.sleep(600)")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    part = Part("it", ("sleeps",))
    part.start(environment)
    try:
        for lived, deaths, delay in ((0.0, 1, 0.1), (0.0, 2, 0.2), (0.0, 3, 0.4), (SLOWEST_RESTART, 1, 0.1)):
            assert part.process is not None
            part.started_at = time.monotonic() - lived
            part.process.kill()
            part.process.wait()
            before = time.monotonic()
            part.look_after(environment)
            assert part.deaths == deaths
            assert before + delay <= part.restart_at <= time.monotonic() + delay
            assert part.process is None
            part.restart_at = 0.0
            part.look_after(environment)
    finally:
        if part.process is not None:
            part.process.kill()
            part.process.wait()
