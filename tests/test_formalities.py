"""What the documents promise is what there is."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from numpy.testing import assert_allclose

from service.catalog import FAMILIES
from service.settings import Settings
from worker import queue
from worker.contract.spec import JobSpec
from worker.core.conclude import conclude
from worker.core.family import kind_of, members
from worker.core.records import Outcome
from worker.core.tune import prepare, tune

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text()


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
    request = re.search(r"-d '(\{.*?\n\})'", README, re.DOTALL)
    answer = re.search(r"```json\n(\{\n  \"job_id\".*?)\n```", README, re.DOTALL)
    assert request
    assert answer
    spec, shown = JobSpec.model_validate_json(request[1]), json.loads(answer[1])
    prepared = prepare(spec.problem(), spec.plan())
    *_, last = tune(prepared)
    best = last.best.best
    lam = prepared.objective.hyperparameters.natural(best.rho)
    assert_allclose([item["value"] for item in shown["hyperparameters"]], lam, rtol=1e-3)
    assert_allclose(shown["selection"]["value"], best.value, rtol=1e-5)
    model = conclude(prepared, last.best).model
    assert model
    assert_allclose(shown["model"]["intercept"], model.intercept, rtol=1e-5)
    assert shown["counts"]["evaluations"] == last.evaluations
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
