"""The command line's `gradtune datasets upload | list | show | delete`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from service.client import Client, ClientError
from service.uploads import column_table, upload

url_option = click.option("--url", envvar="GRADTUNE_URL", default="http://127.0.0.1:8000", help="Where the service is.")
key_option = click.option("--key", envvar="GRADTUNE_API_KEY", default=None, help="API key. [GRADTUNE_API_KEY]")
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
@url_option
@key_option
@json_option
def upload_file(file: Path, *, media_type: str | None, url: str, key: str | None, as_json: bool) -> None:
    """Send a table (CSV, Parquet, Arrow, NPY, NPZ, LIBSVM; also .gz and .zst), unless it is there already."""
    try:
        document, sent = upload(Client(url, key), file, media_type, quiet=as_json)
    except (ClientError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(document))
        return
    state = "" if sent else ", was there already"
    click.echo(f"{document['id']}  {document['rows']} rows{state}\n{column_table(document)}")


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
        click.echo(f"{item['id']}  {item['format']:<8} {shape:>20}  {size:>12}  {item['created_at']}")


@datasets.command()
@click.argument("dataset")
@url_option
@key_option
@json_option
def show(dataset: str, *, url: str, key: str | None, as_json: bool) -> None:
    """Show the columns of a dataset."""
    try:
        document = Client(url, key).get(f"/v1/datasets/{quote(dataset, safe='')}").json
    except ClientError as error:
        raise click.ClickException(str(error)) from None
    click.echo(json.dumps(document) if as_json else f"{document['rows']} rows\n{column_table(document)}")


@datasets.command()
@click.argument("dataset")
@url_option
@key_option
def delete(dataset: str, *, url: str, key: str | None) -> None:
    """Delete a dataset that no unfinished job needs."""
    try:
        Client(url, key).delete(f"/v1/datasets/{quote(dataset, safe='')}")
    except ClientError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{dataset} is deleted")
