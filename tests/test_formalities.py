"""What the documents promise is what there is."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.testing import assert_allclose
from threadpoolctl import threadpool_info

from service.catalog import FAMILIES
from service.settings import Settings
from worker import queue
from worker.contract.spec import JobSpec
from worker.core.family import kind_of, members
from worker.core.records import Outcome
from worker.core.search.descents import Descents
from worker.core.search.plan import prepare
from worker.core.search.procedure import carry_out
from worker.core.verdict.baseline import worth
from worker.core.verdict.conclude import conclude

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text()
PRIVATE_ALL_THE_SAME = {
    "os._exit": "documented: the end of a fork, without the clean-up of the process that it is a copy of",
    "scipy.optimize._lbfgsb": "the routine behind L-BFGS-B, whose state a checkpoint keeps: no public one gives it",
}


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    """Every module of the project by its dotted name; a package has that of its folder."""
    paths = [path for top in ("service", "worker", "benchmarks", "tests") for path in ROOT.glob(f"{top}/**/*.py")]
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text()) for name, path in dotted.items()}


def imported(module: ast.Module) -> Iterator[tuple[str, str]]:
    """What a module imports, at any depth: how the module calls it, and its dotted name."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from ((name.asname or name.name, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((name.asname or name.name, f"{node.module}.{name.name}") for name in node.names)


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def private_names(module: ast.Module) -> Iterator[str]:
    """Dotted names of the private things that a module imports, or takes as attributes of what it imports."""
    names = dict(imported(module))
    yield from filter(is_private, names.values())
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            text = ast.unparse(node)
            heads = (called for called in names if re.fullmatch(rf"{called}(\.\w+)+", text))
            yield from (names[called] + text.removeprefix(called) for called in heads)


def packages(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


def test_modules_do_not_import_each_other_in_a_circle(modules: Mapping[str, ast.Module]) -> None:
    """An import inside a function counts: it may be there to save time at the start, not to hide a circle.

    A module also depends on the packages in which the imported one lies, other than its own.
    """
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, module in modules.items():
        for _, found in imported(module):
            graph[name].add(found if found in modules else found.rpartition(".")[0])  # a module, or a name of one
            graph[name] |= packages(found) - packages(name) - {name}
    assert graph["worker.jobs"] > {"worker.store", "worker.core.search.plan", "worker.report"}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_private_names_stay_in_their_files(modules: Mapping[str, ast.Module]) -> None:
    """Those of scipy and Python, too."""
    found = [(module, name) for module, tree in modules.items() for name in private_names(tree)]
    assert [(module, name) for module, name in found if name not in PRIVATE_ALL_THE_SAME] == []
    assert {name for _, name in found} == set(PRIVATE_ALL_THE_SAME)


def test_linear_algebra_takes_one_thread_in_each_process_of_the_tests() -> None:
    libraries = {Path(found["filepath"]).name: found["num_threads"] for found in threadpool_info()}
    assert libraries
    assert set(libraries.values()) == {int(os.environ["OPENBLAS_NUM_THREADS"])}


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "deployment.md").read_text()
    missing = [name for name in Settings.model_fields if f"GRADTUNE_{name.upper()}" not in text]
    assert not missing
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_kind_has_help_and_stands_in_the_readme(family):
    for member in members(FAMILIES[family]):
        assert len(inspect.getdoc(member) or "") > 40
        if kind_of(member) != "auto":
            assert f"`{kind_of(member)}`" in README or kind_of(member) in README


def test_every_outcome_is_a_sentence():
    assert all(outcome.value[0].isupper() and outcome.value.endswith(".") for outcome in Outcome)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_request_in_the_readme_gives_the_answer_in_the_readme():
    request = re.search(r"python - > job.json <<'END'\n(.*?)\nEND\n", README, re.DOTALL)
    answer = re.search(r"```json\n(\{\n  \"job_id\".*?)\n```", README, re.DOTALL)
    assert request
    assert answer
    command = [sys.executable, "-c", request[1]]
    body = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout
    spec, shown = JobSpec.model_validate_json(body), json.loads(answer[1])
    prepared = prepare(spec.problem(), spec.plan())
    *_, last = carry_out(prepared)
    best, box = last.best.best, prepared.objective.hyperparameters
    for item in shown["hyperparameters"]:
        assert_allclose(np.log10(item["value"]), best.rho[box.names.index(item["name"])] / np.log(10), atol=0.01)
    found = worth(prepared, last)
    assert found.baseline
    assert last.choice
    assert_allclose(shown["selection"]["value"], best.selection, rtol=1e-5)
    assert_allclose(shown["selection"]["corrected_value"], found.corrected, rtol=1e-5)
    assert_allclose(shown["baseline"]["value"], found.baseline.value, rtol=1e-5)
    assert_allclose(shown["baseline"]["difference"], found.baseline.difference, rtol=1e-4)
    path = [[point["spread"], point["value"], point["corrected_value"]] for point in shown["spread"]["path"]]
    assert_allclose(path, [[one.spread, one.value, one.corrected] for one in last.choice.path], rtol=1e-5)
    assert_allclose(
        shown["nested"]["value"], sum(f.value * f.rows for f in last.folds) / len(spec.problem().y), rtol=1e-5
    )
    model = conclude(prepared, last.best, Descents(prepared).of(last.best, last.starts)).model
    assert model
    assert_allclose(shown["model"]["intercept"], model.intercept, rtol=1e-5)
    assert_allclose(shown["counts"]["evaluations"], last.evaluations, rtol=0.1)  # rounding may change the path
    assert last.ended
    assert shown["stop_reason"] == last.ended.code


def test_the_function_that_the_service_enqueues_by_name_exists():
    module, _, name = queue.JOB.rpartition(".")
    assert callable(getattr(__import__(module, fromlist=[name]), name))


def test_compose_file_passes_only_settings_that_there_are():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert {"redis", "api", "worker"} == set(services)
    known = {f"GRADTUNE_{name.upper()}" for name in Settings.model_fields}
    for service in services.values():
        given = {name for name in service["environment"] if name.startswith("GRADTUNE_")}
        assert given <= known
        assert "healthcheck" in service or service["command"][1] == "api"  # the image brings that of the API
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert set(re.findall(r"GRADTUNE_\w+", dockerfile)) <= known


def test_copied_paths_of_the_dockerfile_exist():
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()


def test_the_service_has_no_thread_but_those_that_are_bounded(modules: Mapping[str, ast.Module]) -> None:
    """Neither asyncio's default executor nor the framework's own, which also run every route without `async`."""
    words = re.compile(r"\b(to_thread|run_in_executor|run_in_threadpool|run_sync)\b")
    serving = {name: tree for name, tree in modules.items() if name.startswith("service")}
    assert [name for name, tree in serving.items() if words.search(ast.unparse(tree))] == []
    routes = [route for tree in serving.values() for route in functions(tree) if is_route(route)]
    assert len(routes) > 10
    assert [route.name for route in routes if not isinstance(route, ast.AsyncFunctionDef)] == []


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def is_route(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(one).startswith("router.") for one in function.decorator_list)


@pytest.mark.parametrize("page", ["security.md", "reliability.md"])
def test_each_test_that_a_promise_names_is_there(page: str) -> None:
    files = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    lines = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| ")]
    found = 0
    for line in lines:
        file = ""
        for given, name in re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)?(?:::)?(test_\w+)?`", line):
            file = given or file
            if file or name:
                assert not name or f"def {name}(" in files[file], (page, file, name)
                found += bool(file)
    assert found > 10


def test_no_path_of_a_machine_and_no_unfinished_business():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|/(work|farm|root)/")
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".toml", ".yml", ".md"} and path != Path(__file__) and path.exists():
            found = words.search(path.read_text())
            assert found is None, (name, found)
