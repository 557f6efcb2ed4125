"""The command line's `gradtune doctor`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from service.cli_datasets import json_option
from service.settings import Settings

_MARKS = {"ok": "ok", "warning": "warning", "wrong": "WRONG"}


def doctor_command(option: Callable[[str], Callable[[Any], Any]], settings: Callable[..., Settings]) -> click.Command:
    """Make the command, with the options of settings that other commands have."""

    @click.command("doctor")
    @option("data_dir")
    @option("redis_url")
    @click.option(
        "--repair", is_flag=True, help="Mend the append-only file of the embedded server; nothing is deleted."
    )
    @json_option
    def command(*, repair: bool, as_json: bool, **flags: Any) -> None:
        """Look at job store, storage and versions, and say what is wrong. Status 1 if anything is."""
        from service import doctor  # noqa: PLC0415 - numpy and pyarrow come with it, for every command

        chosen = settings(**flags)
        if repair and chosen.redis_url is not None:
            raise click.UsageError("--repair is for the embedded server; the files of the given one are its own.")
        found = []
        for check in doctor.repair(chosen.data_dir) if repair else doctor.checks(chosen):
            found.append(check)
            if not as_json:
                click.echo(f"{_MARKS[check.status]:<8} {check.name:<17} {check.detail}")
        well = all(check.status != "wrong" for check in found)
        if as_json:
            click.echo(json.dumps({"ok": well, "checks": [asdict(check) for check in found]}))
        if not well:
            raise SystemExit(1)

    return command
