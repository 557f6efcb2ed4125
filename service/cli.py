"""The command line: `gradtune serve | api | worker | demo | submit | jobs | datasets | keys | doctor`."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
from pydantic import ValidationError

from service import server
from service.cli_datasets import FILE, datasets, json_option, key_option, listed, url_option
from service.cli_doctor import doctor_command
from service.client import Client, ClientError
from service.demo import run_demo, spec_document
from service.keys import create_key
from service.preflight import require_store
from service.privacy import keep_private
from service.settings import ConfigurationError, Settings
from service.show import result_table
from service.supervisor import Part, Supervisor
from service.uploads import with_data
from worker.embedded import EmbeddedServer, ServerError

ANSWER = 1.0  # seconds for the API to say that it is ready; meanwhile nobody looks after it


_NUMBERS = {
    **dict.fromkeys(("port", "workers", "blas_threads", "starts_at_once", "max_queued"), int),
    **dict.fromkeys(("retention_days", "job_memory_mb"), float),
}


def _option(name: str) -> Callable[[Any], Any]:
    """The command-line option of a setting; without it the environment variable or the default holds."""
    field = Settings.model_fields[name]
    kind: Any = _NUMBERS.get(name)
    return click.option(
        f"--{name.replace('_', '-')}", name, type=kind, help=f"{field.description} [GRADTUNE_{name.upper()}]"
    )


def _settings(**flags: Any) -> Settings:
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False)
        )
        raise click.ClickException("A setting is wrong. " + "; ".join(faults)) from None


def _log(settings: Settings) -> None:
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(name)s %(message)s")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gradtune")
def main() -> None:
    """Hyperparameter tuning by gradients, as a service."""


@main.command()
@_option("host")
@_option("port")
@_option("workers")
@_option("data_dir")
@_option("redis_url")
@_option("blas_threads")
@_option("starts_at_once")
@_option("job_memory_mb")
@_option("max_queued")
@_option("retention_days")
@_option("log_level")
def serve(**flags: Any) -> None:
    """Run everything: API, workers and, without a Redis URL, an embedded server. Ctrl-C stops it all."""
    settings = _settings(**flags)
    _log(settings)
    try:
        server.check_exposure(settings)
        keep_private(settings.data_dir)
        with ExitStack() as stack:
            listener = stack.enter_context(server.bind(settings))
            embedded = None
            if settings.redis_url is None:
                embedded = stack.enter_context(EmbeddedServer(settings.data_dir, memory=settings.store_memory))
            else:
                require_store(settings.redis_url)
            redis_url = settings.redis_url or (embedded.url if embedded else "")
            _supervise(settings.model_copy(update={"redis_url": redis_url}), listener, embedded)
    except (ConfigurationError, ServerError) as error:
        raise click.ClickException(str(error)) from None


def _supervise(settings: Settings, listener: socket.socket, embedded: EmbeddedServer | None) -> None:
    listener.set_inheritable(True)
    api = Part("api", ("service.cli", "api", "--fd", str(listener.fileno())), (listener.fileno(),))
    url = server.address(settings, listener)
    assert settings.redis_url is not None
    environment = {**os.environ, **settings.environment()}
    supervisor = Supervisor(
        [api, *_worker_parts(settings)],
        environment,
        settings.redis_url,
        embedded,
        settings.retention,
        settings.kept_bytes,
    )
    client = Client(url, timeout=ANSWER)

    def announce() -> bool:
        try:
            client.get("/readyz")
        except ClientError:
            return False
        where = f"data in {settings.data_dir}" if embedded else "data in the given Redis"
        workers = f"{settings.workers} worker{'s' if settings.workers > 1 else ''}"
        click.echo(f"gradtune is ready at {url} ({workers}, {where})")
        return True

    supervisor.run(announce)


def _worker_parts(settings: Settings) -> list[Part]:
    return [Part(f"worker {number}", ("worker.main",)) for number in range(1, settings.workers + 1)]


@main.command()
@_option("host")
@_option("port")
@_option("redis_url")
@_option("max_queued")
@_option("retention_days")
@_option("log_level")
@click.option("--fd", type=int, hidden=True, help="A listening socket that this process was started with.")
def api(fd: int | None, **flags: Any) -> None:
    """Run the HTTP API alone, against a Redis-compatible server."""
    settings = _settings(**flags)
    _log(settings)
    try:
        url = _require_redis(settings)
        server.check_exposure(settings)
        keep_private(settings.data_dir)
        if fd is None:  # else the starter has looked
            require_store(url)
        with server.bind(settings) if fd is None else socket.socket(fileno=fd) as listener:
            server.serve_api(settings, listener)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None


@main.command()
@_option("workers")
@_option("redis_url")
@_option("blas_threads")
@_option("starts_at_once")
@_option("job_memory_mb")
@_option("retention_days")
@_option("log_level")
def worker(**flags: Any) -> None:
    """Run workers alone, against a Redis-compatible server."""
    settings = _settings(**flags)
    _log(settings)
    try:
        url = _require_redis(settings)
        keep_private(settings.data_dir)
        require_store(url)
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from None
    environment = {**os.environ, **settings.environment()}
    retention, kept = settings.retention, settings.kept_bytes
    Supervisor(_worker_parts(settings), environment, url, retention=retention, kept=kept).run()


def _require_redis(settings: Settings) -> str:
    if settings.redis_url is None:
        raise ConfigurationError("Set GRADTUNE_REDIS_URL or --redis-url; `gradtune serve` brings a server of its own.")
    return settings.redis_url


@main.command()
@click.option("--spec", is_flag=True, help="Print the demo's job spec, to POST it yourself, and do nothing else.")
def demo(*, spec: bool) -> None:
    """Tune a real job from start to result: ten penalties of a ridge regression on the diabetes data."""
    if spec:
        click.echo(json.dumps(spec_document()))
        return
    try:
        run_demo()
    except ClientError as error:
        raise click.ClickException(str(error)) from None


main.add_command(datasets)
main.add_command(doctor_command(_option, _settings))


@main.command()
@click.argument("spec", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", type=FILE, default=None, help="A table to upload first; the spec says what its columns are.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result.")
@url_option
@key_option
@json_option
def submit(spec: Path, *, data: Path | None, wait: bool, url: str, key: str | None, as_json: bool) -> None:
    """Send a job spec (a JSON file) to the service."""
    client = Client(url, key)
    try:
        reply = client.post("/v1/jobs", with_data(client, spec, data, quiet=as_json))
        job = reply.json
        while wait and not job["done"]:
            reply = client.wait(job["links"]["self"], None, 30)
            job = reply.json
        result = client.get(job["links"]["result"]).json if wait and not job["error"] else None
    except (ClientError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if job["error"]:
        raise click.ClickException(f"The job {job['id']} failed: {job['error']['detail']}")
    if result is None:
        click.echo(json.dumps(job) if as_json else job["id"])
        return
    click.echo(json.dumps(result) if as_json else result_table(result))


@main.command()
@click.option("--status", default=None, help="Only jobs with this status.")
@click.option("--limit", type=click.IntRange(1, 200), default=20, help="How many.")
@url_option
@key_option
@json_option
def jobs(*, status: str | None, limit: int, url: str, key: str | None, as_json: bool) -> None:
    """List jobs, newest first."""
    query = urlencode({"limit": limit} | ({"status": status} if status else {}))
    for job in listed(url, key, f"/v1/jobs?{query}", as_json=as_json):
        best = job["progress"]["best_value"]
        shown = "" if best is None else f"{best:.6g}"
        click.echo(f"{job['id']}  {job['status']:<10}  {job['created_at']}  {shown}")


@main.group()
def keys() -> None:
    """API keys."""


@keys.command()
@json_option
def create(*, as_json: bool) -> None:
    """Make an API key. The service needs its hash alone, in GRADTUNE_API_KEY_HASHES."""
    key, digest = create_key()
    if as_json:
        click.echo(json.dumps({"key": key, "hash": digest}))
    else:
        click.echo(f"key   {key}   (shown once; give it to the caller)\nhash  {digest}")


if __name__ == "__main__":
    main()
