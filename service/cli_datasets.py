"""The command line's `gradtune datasets upload | list | show | delete`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from service.client import Client, ClientError, exposes_key
from service.uploads import column_table, upload, warning_lines
from worker.contract.dataset import DATASET_ID, ReadingOptions
from worker.contract.reading import parse_options


def _warn(context: click.Context, _option: click.Parameter, key: str | None) -> str | None:
    """Say so where a key goes over a network in the clear."""
    if key and exposes_key(context.params["url"]):
        click.echo("warning: the URL is http://, so anybody on the way can read the key; use https://", err=True)
    return key


url_option = click.option(
    "--url", envvar="GRADTUNE_URL", default="http://127.0.0.1:8000", help="Where the service is.", is_eager=True
)
key_option = click.option(
    "--key", envvar="GRADTUNE_API_KEY", default=None, help="API key. [GRADTUNE_API_KEY]", callback=_warn
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def listed(url: str, key: str | None, path: str, *, as_json: bool) -> list[dict[str, Any]]:
    """The items of a page; or none, when it is printed as JSON."""
    try:
        page = Client(url, key).get(path).json
    except ClientError as error:
        raise click.ClickException(str(error)) from None
    if not as_json:
        return list(page["data"])
    click.echo(json.dumps(page))
    return []


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def datasets() -> None:
    """Tables that the service keeps, to tune on as often as you like."""


@datasets.command("upload")
@click.argument("file", type=FILE)
@click.option("--type", "media_type", default=None, help="Content type; default: by the name, or by the content.")
@click.option("--missing", multiple=True, help="A text for missing values, as NA. Default: the usual ones.")
@click.option("--decimal", type=click.Choice([".", ","]), help="The decimal mark of a CSV file.")
@click.option("--thousands", help="The mark between thousands, as in 1,234,567.")
@click.option("--encoding", help="The character encoding, as windows-1252. Default: UTF-8.")
@click.option("--delimiter", help="The delimiter: one character, or tab. Default: found by itself.")
@click.option("--header/--no-header", default=None, help="Whether the first row holds names.")
@click.option("--types", multiple=True, help="Types of columns, as zip:category or age:number.")
@url_option
@key_option
@json_option
def upload_file(
    file: Path, *, media_type: str | None, url: str, key: str | None, as_json: bool, **options: Any
) -> None:
    """Send a table (CSV, Parquet, Arrow, NPY, NPZ, LIBSVM; also .gz and .zst), unless it is there already."""
    try:
        document, sent = upload(Client(url, key), file, media_type, _options(options), quiet=as_json)
    except (ClientError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(document))
        return
    state = "" if sent else ", was there already"
    click.echo(f"{document['id']}  {document['rows']} rows{state}\n{column_table(document)}")
    for line in warning_lines(document):
        click.echo(line, err=True)


def _options(given: Mapping[str, Any]) -> ReadingOptions:
    """The reading options of a command line. Raises BadParameter."""
    pairs: list[tuple[str, str]] = []
    for name, value in given.items():
        several = value if isinstance(value, tuple) else () if value is None else (str(value),)
        pairs += [(name, one.lower() if name == "header" else one) for one in several]
    options = parse_options(pairs)
    if isinstance(options, list):
        raise click.BadParameter(" ".join(fault.detail for fault in options))
    return options


@datasets.command("list")
@click.option("--limit", type=click.IntRange(1, 200), default=20, help="How many.")
@url_option
@key_option
@json_option
def list_all(*, limit: int, url: str, key: str | None, as_json: bool) -> None:
    """List datasets, newest first."""
    for item in listed(url, key, f"/v1/datasets?{urlencode({'limit': limit})}", as_json=as_json):
        shape = f"{item['rows']} x {item['columns']}"
        size = f"{item['stored_bytes'] / 2**20:.1f} MiB"
        state = "  damaged: upload it again" if item["damaged"] else ""
        click.echo(f"{item['id']}  {item['format']:<8} {shape:>20}  {size:>12}  {item['created_at']}{state}")


def _require_id(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """An id, which becomes a part of a path: anything else could make another one. Raises BadParameter."""
    if not re.fullmatch(DATASET_ID, value):
        raise click.BadParameter("an id is ds_ and 64 digits from 0 to f, as `gradtune datasets list` prints it.")
    return value


dataset_argument = click.argument("dataset", callback=_require_id)


@datasets.command()
@dataset_argument
@url_option
@key_option
@json_option
def show(dataset: str, *, url: str, key: str | None, as_json: bool) -> None:
    """Show the columns of a dataset."""
    try:
        document = Client(url, key).get(f"/v1/datasets/{dataset}").json
    except ClientError as error:
        raise click.ClickException(str(error)) from None
    shown = "\n".join([f"{document['rows']} rows", column_table(document), *warning_lines(document)])
    click.echo(json.dumps(document) if as_json else shown)


@datasets.command()
@dataset_argument
@url_option
@key_option
def delete(dataset: str, *, url: str, key: str | None) -> None:
    """Delete a dataset that no unfinished job needs."""
    try:
        Client(url, key).delete(f"/v1/datasets/{dataset}")
    except ClientError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{dataset} is deleted")
