"""`python -m tests.product.additions`: what becomes of each addition, as JSON: sentences of what went wrong."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):  # before numpy is loaded
    os.environ[_name] = "1"

from tests.product.additions.install import ADDITIONS, install  # noqa: E402

install()  # before anything reads the unions

from service.app import create_app  # noqa: E402
from service.catalog import catalog  # noqa: E402
from service.settings import Settings  # noqa: E402
from tests.product import naive  # noqa: E402
from tests.product.carry import error_of, submitted  # noqa: E402
from tests.product.choices import carried, is_refused  # noqa: E402
from tests.product.covering import Covering  # noqa: E402
from tests.product.factors import FACTORS, Choice, plain, request, shelve  # noqa: E402
from tests.product.served import Served, serving_jobs  # noqa: E402

naive.OF_DISTANCE["cauchy"] = lambda s, _, __: 1.0 / (1.0 + s)


def main() -> None:
    """Carry requests with each addition out in this process, and one each through a server and a worker."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ["GRADTUNE_DATA_DIR"] = directory
        shelve(Path(directory))
        schemas = json.dumps(create_app(Settings()).openapi())
        found = {kind: _of(family, kind, schemas) for kind, (family, _) in ADDITIONS.items()}
        program = "from tests.product.additions.install import install; install(); from worker.main import main; main()"
        with serving_jobs(Path(directory), ["-c", program]) as served:
            for kind, (family, _) in ADDITIONS.items():
                found[kind] += _through(served, family, kind)
    found["aic"] += _refusal_with_logistic()
    json.dump(found, sys.stdout)


def _of(family: str, kind: str, schemas: str) -> list[str]:
    assert kind in FACTORS[family].levels
    wrong = []
    if kind not in {entry["kind"] for entry in catalog()[family]}:
        wrong.append("the catalog does not list it")
    if f'"const": "{kind}"' not in schemas:
        wrong.append("the OpenAPI document does not list it")
    cases = Covering(is_refused, (family, kind))
    if len(cases.accepted) < 5:
        wrong.append(f"{len(cases.accepted)} requests with it are accepted")
    for choice in [*cases.accepted, *cases.refused]:
        error = error_of(lambda choice=choice: carried(choice))  # type: ignore[misc]
        wrong += [f"{choice}: {error}"] if error else []
    return wrong


def _refusal_with_logistic() -> list[str]:
    choice = plain({"training": "logistic", "selection": "aic"})
    assert choice is not None
    found = submitted(request(choice))
    told = [(one.pointer, one.detail) for one in found] if isinstance(found, list) else "nothing"
    wanted = "aic is for ridge; with logistic use laplace_evidence or k_fold."
    return [] if told == [("/selection/kind", wanted)] else [f"with logistic: {told}"]


def _through(served: Served, family: str, kind: str) -> list[str]:
    choice: Choice | None = plain({family: kind})
    assert choice is not None
    error = error_of(lambda: served.check(request(choice)))
    return [f"through a server: {error}"] if error else []


if __name__ == "__main__":
    main()
