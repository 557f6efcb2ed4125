"""What is wrong with the append-only file of a server that does not run, and how it is mended. Nothing is ever deleted.

A file is cut where it cannot be read. What is cut off is kept beside it: both parts, one after the other, are the file
as it was. Later files of commands are put aside whole, since commands after a gap may say the wrong thing.
"""

import functools
import logging
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker import append_only
from worker.append_only import Arities, Layout, Part, Scan

_SOUND: Final = re.compile(r"\[offset (\d+)\].*RDB looks OK")
_UNSOUND: Final = re.compile(r"RDB ERROR DETECTED ---\n\[offset (\d+)\] (.*)")
_NO_KEYS: Final = 512
"""Bytes; the first snapshot of an empty server is smaller."""
_PATIENCE: Final = 10.0
"""Seconds for an empty server to say which commands it knows."""

log = logging.getLogger(__name__)


class DamageError(Exception):
    """The server cannot start on its files; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong, and what remains in use when it is mended."""

    sentence: str
    directory: Path
    mendable: bool
    harmless: bool = False
    """Only what was being written when the power failed: the server may start after it is mended, unasked."""
    parts: tuple[Part, ...] = ()
    """What remains in use."""
    cut: tuple[Path, int] | None = None
    """A file and the byte at which it is cut."""
    aside: tuple[Path, ...] = ()
    """Files that are put aside whole."""
    manifest: bool = False
    """Whether the manifest has to be written anew."""


def examine(directory: Path, binary: str) -> Damage | None:
    """Read the whole append-only file in a server's data directory. The first thing that is wrong; None: nothing.

    `binary` is the server: it knows its snapshots and its commands. Raises: `OSError`.
    """
    found = append_only.layout(directory)
    if found.fault is not None:
        return _wrong_list(directory, found)
    arities = commands(binary)
    for number, part in enumerate(found.parts):
        if not part.path.exists():
            return _missing(directory, found, number, arities)
        length = _snapshot(part, binary)
        if isinstance(length, str):
            return _lost(directory, f"The snapshot {part.path} cannot be read by this server: {length}.")
        read = append_only.scan(part.path, length, arities)
        if read.damage is not None:
            return _unreadable(directory, found, number, read, arities)
    return None


@functools.cache
def commands(binary: str) -> Arities | None:
    """Ask an empty server of its own which commands there are; None: it does not say."""
    with tempfile.TemporaryDirectory(prefix="gradtune-") as empty:
        socket = str(Path(empty) / "s")
        words = ["--port", "0", "--unixsocket", socket, "--dir", empty, "--save", "", "--appendonly", "no"]
        process = subprocess.Popen(  # noqa: S603 - a fixed binary and our own options
            [binary, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            with redis.Redis(unix_socket_path=socket, retry=Retry(NoBackoff(), 0), socket_timeout=_PATIENCE) as client:
                deadline = time.monotonic() + _PATIENCE
                while process.poll() is None and time.monotonic() < deadline:
                    with suppress(redis.RedisError):
                        known = client.command()
                        return {name.lower().encode(): int(about["arity"]) for name, about in known.items()}
                    time.sleep(0.005)
            return None
        finally:
            process.kill()
            process.wait()


def _snapshot(part: Part, binary: str) -> int | str:
    """The length of the snapshot at the beginning of a file, or what is said against it."""
    snapshot = append_only.is_snapshot(part.path)
    if part.kind == "incr" or not snapshot:
        return "it does not begin as one" if part.path.suffix == ".rdb" else 0
    words = ["redis-check-rdb", str(part.path)]  # called by this name a server, of whatever make, only checks
    done = subprocess.run(words, executable=binary, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if match := _SOUND.search(done.stdout):
        return int(match[1])
    if "Checking RDB file" not in done.stdout:  # it is no server, but a script that starts one
        return part.path.stat().st_size
    fault = _UNSOUND.search(done.stdout)
    return f"at byte {fault[1]}, {fault[2]}" if fault else f"its check ended with status {done.returncode}"


def _unreadable(directory: Path, found: Layout, number: int, read: Scan, arities: Arities | None) -> Damage:
    part, later = found.parts[number], found.parts[number + 1 :]
    following = read.following + _commands(later, arities)
    if not following or part.path.suffix == ".rdb":  # a snapshot is complete without what stands after it
        return Damage(
            f"The append-only file {part.path} ended in {read.size - read.whole} bytes that are no whole command, from "
            f"byte {read.whole} on, as after a power cut.",
            directory, mendable=True, harmless=True, parts=found.parts, cut=(part.path, read.whole),
        )  # fmt: skip
    return Damage(
        f"The append-only file {part.path} is damaged at byte {read.damage}: no whole command can be read there, "
        f"and {_counted(following)} after it.",
        directory,
        mendable=True,
        parts=found.parts[: number + 1],
        cut=(part.path, read.whole),
        aside=tuple(each.path for each in later if each.path.exists()),
        manifest=bool(later),
    )


def _counted(following: int) -> str:
    return "1 whole command stands" if following == 1 else f"{following} whole commands stand"


def _commands(parts: tuple[Part, ...], arities: Arities | None) -> int:
    scans = [append_only.scan(part.path, 0, arities) for part in parts if part.path.exists()]
    return sum(each.commands + each.following for each in scans)


def _missing(directory: Path, found: Layout, number: int, arities: Arities | None) -> Damage:
    part, later = found.parts[number], found.parts[number + 1 :]
    if number == 0:
        return _lost(directory, f"The file {part.path} is missing, with which the server's data begin.")
    return Damage(
        f"The append-only file {part.path} is missing, and with it all that was stored in it; "
        f"{_counted(_commands(later, arities))} in files after it.",
        directory,
        mendable=True,
        parts=found.parts[:number],
        aside=tuple(each.path for each in later if each.path.exists()),
        manifest=True,
    )


def _wrong_list(directory: Path, found: Layout) -> Damage:
    sentence = f"The list of append-only files {found.manifest} {found.fault}."
    if found.certain:
        # Killed in its first start: what there is stays in use.
        fresh = found.empty and found.parts[0].path.stat().st_size <= _NO_KEYS
        return Damage(sentence, directory, mendable=True, harmless=fresh, parts=found.parts, manifest=True)
    names = ", ".join(part.path.name for part in found.parts) or "none"
    return _lost(directory, f"{sentence} Which of the files beside it belong to it is not certain: {names}.")


def _lost(directory: Path, sentence: str) -> Damage:
    return Damage(sentence, directory, mendable=False)


def make_loadable(directory: Path, binary: str) -> bool:
    """Cut off what a power cut has left, and log it; whether anything was. Raises: `DamageError` for other damage."""
    mended = False
    try:
        while (damage := examine(directory, binary)) is not None:
            if not damage.harmless:
                raise DamageError(f"{damage.sentence} {remedy(damage)}")
            kept = " and ".join(map(str, mend(damage)))
            log.warning("%s %s", damage.sentence, f"They are kept in {kept}." if kept else "It was made again.")
            mended = True
    except OSError as error:
        raise DamageError(f"The append-only file in {directory} cannot be read or mended: {error}.") from None
    return mended


def remedy(damage: Damage) -> str:
    """What its operator can do."""
    if damage.mendable:
        command = f"gradtune doctor --repair --data-dir {shlex.quote(str(damage.directory.parent))}"
        return (
            f"The server was not started, so that nothing is lost unseen. `{command}` mends this and keeps all parts."
        )
    return (
        f"This cannot be repaired. Put a backup of {damage.directory} back, or move it away: the service then begins "
        "without jobs, and datasets stay."
    )


def mend(damage: Damage) -> list[Path]:
    """Mend it, and keep what is taken out of use: the files that it is kept in. Raises: `OSError`."""
    assert damage.mendable
    kept = []
    if damage.cut is not None:
        kept.append(_keep(*damage.cut))
    for path in damage.aside:  # in this order: mending that was interrupted can begin again
        kept.append(path.rename(_beside(path)))
        _settle(path.parent)
    if damage.manifest:
        kept += _write_manifest(damage)
    if damage.cut is not None:
        path, at = damage.cut
        with path.open("r+b") as file:
            file.truncate(at)
            os.fsync(file.fileno())
    return kept


def _beside(path: Path) -> Path:
    """A name that is not taken, next to a file."""
    stem = f"{path.name}.cut-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 1000))]
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def _keep(path: Path, at: int) -> Path:
    """Copy what stands from byte `at` on into a file of its own, readable by this user only."""
    kept = _beside(path)
    with path.open("rb") as source, _private(kept, os.O_EXCL) as target:
        source.seek(at)
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
    _settle(path.parent)
    return kept


def _write_manifest(damage: Damage) -> list[Path]:
    manifest = damage.directory / append_only.FOLDER / append_only.MANIFEST
    kept = [_keep(manifest, 0)] if manifest.exists() else []
    new = manifest.with_name(f"temp-gradtune-{manifest.name}")
    with _private(new, os.O_TRUNC) as file:
        file.write("".join(part.line for part in damage.parts).encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(manifest)
    _settle(manifest.parent)
    return kept


def _private(path: Path, flag: int) -> IO[bytes]:
    """A new file that only this user can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600), "wb")


def _settle(folder: Path) -> None:
    """Make names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
