"""Stored datasets that a power cut or a bad disk has touched: complete, absent, or refused until they are repaired."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.datasets.cuts import disk
from tests.datasets.files import samples
from worker.datasets import (
    MANIFEST,
    DamagedError,
    DatasetGoneError,
    LocalStorage,
    Table,
    add_file,
    open_table,
    verified,
)
from worker.datasets.manifest import SEAL, open_record, small_file, write
from worker.datasets.remote import remote_storage
from worker.datasets.storage import Storage

SAMPLES = samples()
KINDS = ("csv", "npy", "libsvm")


def put(storage: Storage, path: Path, name: str) -> str:
    kind, content = SAMPLES[name]
    path.write_bytes(content)
    return add_file(storage, path, kind, None, None).id


def same(table: Table, other: Table) -> bool:
    sparse = (table.sparse is None) == (other.sparse is None)
    if sparse and table.sparse is not None and other.sparse is not None:
        sparse = (table.sparse != other.sparse).nnz == 0
    return sparse and np.array_equal(table.dense, other.dense, equal_nan=True)


def copied(table: Table) -> Table:
    """In memory: a mapped file that shrinks ends the process."""
    sparse = None if table.sparse is None else table.sparse.copy()
    return Table(table.dataset, np.array(table.dense), sparse)


@pytest.mark.parametrize("name", ["libsvm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("csv", "npy"))])
def test_what_is_acknowledged_is_complete_after_a_cut_at_any_moment(tmp_path: Path, name: str):
    sound = LocalStorage(tmp_path / "sound")
    known = put(sound, tmp_path / "file", name)
    expected = open_table(sound, known)
    with disk(tmp_path / "data" / "datasets", tmp_path / "cuts") as watched:
        assert put(LocalStorage(tmp_path / "data" / "datasets"), tmp_path / "file", name) == known
        watched.cut("acknowledged")
    placed = watched.events.index(f"name datasets/{known}")
    before, after = watched.events[:placed], watched.events[placed + 1 :]
    files = [*expected.dataset.layout.files, MANIFEST]
    assert [event.rpartition("/")[2] for event in before[:-1]] == files  # and then their folder
    assert before[-1].startswith("sync datasets/tmp/")
    assert after[:2] == ["sync datasets", "sync ."]
    assert len(watched.cuts) > 2 * len(files)
    for moment, left in watched.cuts:
        storage = LocalStorage(left)
        try:
            assert same(open_table(storage, known), expected), moment
        except (DatasetGoneError, DamagedError):
            assert not moment.startswith("acknowledged")
        assert put(storage, tmp_path / "again", name) == known
        assert same(open_table(storage, known), expected)
        assert list(storage.ids()) == [known]
        LocalStorage(left).sweep()
        assert LocalStorage(left).workshop.unfinished() == storage.workshop.unfinished() == []


def test_a_repair_and_a_removal_are_whole_after_a_cut_at_any_moment(tmp_path: Path):
    root = tmp_path / "data" / "datasets"
    known = put(LocalStorage(root), tmp_path / "file", "npy")
    expected = np.array(open_table(LocalStorage(root), known).dense)
    (root / known / "content").write_bytes(b"bad")
    with disk(root, tmp_path / "cuts") as watched:
        for path in (root / known / "content", root / known / MANIFEST, root / known, root):
            durable_now(path)
        earlier = len(watched.cuts)
        put(LocalStorage(root), tmp_path / "file", "npy")
        watched.cut("acknowledged")
        LocalStorage(root).delete(known)
        watched.cut("removed")
    assert f"swap datasets/{known}" in watched.events
    seen = set()
    for moment, left in watched.cuts[earlier:]:
        try:
            assert np.array_equal(open_table(LocalStorage(left), known).dense, expected, equal_nan=True)
            seen.add("complete")
        except DatasetGoneError:
            seen.add("gone")
            assert not moment.startswith("acknowledged")
        except DamagedError:
            seen.add("damaged")
            assert not moment.startswith(("acknowledged", "removed"))
        if moment.startswith("removed"):
            assert known not in set(LocalStorage(left).ids())
    assert seen == {"complete", "gone", "damaged"}


def durable_now(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(8))


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    """One bit, and the file's time as it was."""
    content, at = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(1).bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: tuple[Callable[[Path], None], ...] = (truncate, extend, zero, flip, garbage, empty, folder, Path.unlink)


@pytest.mark.parametrize("place", ["manifest", "data"])
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_refused_and_repaired_by_the_same_file(tmp_path: Path, place: str, damage: Callable[[Path], None]):
    storage = LocalStorage(tmp_path / "datasets")
    for name in KINDS:
        known = put(storage, tmp_path / "file", name)
        sound = copied(open_table(storage, known))
        file = {"csv": "dense", "npy": "content", "libsvm": "data"}[name] if place == "data" else MANIFEST
        damage(storage.root / known / file)
        with pytest.raises(DamagedError, match=r"Upload the same file again"):
            open_table(storage, known)
        with pytest.raises(DamagedError):
            storage.verify(known)
        with pytest.raises(DamagedError):
            list(storage.scrub(known))
        assert put(storage, tmp_path / "file", name) == known
        assert same(open_table(storage, known), sound)
    assert storage.workshop.unfinished() == []


def test_a_sound_dataset_is_not_replaced(tmp_path: Path):
    storage = LocalStorage(tmp_path / "datasets")
    known = put(storage, tmp_path / "file", "npy")
    inode = (storage.root / known / "content").stat().st_ino
    put(storage, tmp_path / "file", "npy")
    assert (storage.root / known / "content").stat().st_ino == inode


def test_who_has_mapped_the_old_files_keeps_them(tmp_path: Path):
    storage = LocalStorage(tmp_path / "datasets")
    known = put(storage, tmp_path / "file", "npy")
    mapped = open_table(storage, known)
    values = np.array(mapped.dense)
    (storage.root / known / MANIFEST).write_bytes(b"{")
    put(storage, tmp_path / "file", "npy")
    assert np.array_equal(mapped.dense, values, equal_nan=True)


def test_every_single_bit_of_a_manifest_is_sealed(tmp_path: Path):
    storage = LocalStorage(tmp_path / "datasets")
    known = put(storage, tmp_path / "file", "npy")
    content = (storage.root / known / MANIFEST).read_bytes()
    open_record(content, known)
    for place in range(len(content)):
        bad = bytearray(content)
        bad[place] ^= 1 << place % 8
        with pytest.raises(DamagedError):
            open_record(bytes(bad), known)


@pytest.mark.parametrize(
    "file", ["../other/content", "/etc/hostname", "a/b", "..", "manifest.json", "", "x" * 300, "A\0"]
)
def test_a_manifest_names_no_file_out_of_its_folder(tmp_path: Path, file: str):
    """Sealed by whoever wrote it: the names are looked at nevertheless, wherever a manifest is read."""
    storage = LocalStorage(tmp_path / "datasets")
    known = put(storage, tmp_path / "file", "npy")
    other = storage.root / "other"
    shutil.copytree(storage.root / known, other)
    dataset = open_table(storage, known).dataset
    stored = dataset.layout.files["content"]
    assert dataset.layout.dense is not None
    layout = {"dense": dataset.layout.dense.model_copy(update={"file": file}), "files": {file: stored}}
    hostile = dataset.model_copy(update={"layout": dataset.layout.model_copy(update=layout)})
    write(storage.root / known, hostile)
    for use in (
        lambda: open_table(storage, known),
        lambda: storage.verify(known),
        lambda: list(storage.scrub(known)),
        lambda: small_file(storage, known, MANIFEST),
    ):
        with pytest.raises(DamagedError, match="manifest"):
            use()


@pytest.mark.parametrize("name", ["../outside", "outside", "", ".", "ds_" + "0" * 63 + "/", "ds_" + "0" * 64 + "\n"])
@pytest.mark.parametrize("remote", [False, True])
def test_what_is_no_id_is_never_joined_to_a_path(tmp_path: Path, remote: bool, name: str):
    """The last door: what a worker or the command line passes on has been checked by nobody before it."""
    storage: Storage = remote_storage("memory:///", tmp_path, 2**30) if remote else LocalStorage(tmp_path / "datasets")
    known = put(LocalStorage(tmp_path / "datasets"), tmp_path / "file", "npy")
    outside = tmp_path / "outside"
    shutil.copytree(tmp_path / "datasets" / known, outside)
    for use in (
        lambda: open_table(storage, name),
        lambda: storage.read(name, MANIFEST),
        lambda: storage.verify(name),
        lambda: list(storage.scrub(name)),
        lambda: storage.delete(name),
        lambda: storage.discard(name) if remote else storage.fetch(name),
    ):
        with pytest.raises(DatasetGoneError):
            use()
    assert (outside / MANIFEST).exists()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(verified, "_known", verified.Known())


def test_a_file_is_compared_once_in_a_process_and_its_forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    forget(monkeypatch)
    storage = LocalStorage(tmp_path / "datasets")
    known = put(storage, tmp_path / "file", "npy")
    hashed: list[str] = []
    digest = verified.hashlib.file_digest
    monkeypatch.setattr(verified.hashlib, "file_digest", lambda file, kind: hashed.append(kind) or digest(file, kind))
    horse = multiprocessing.get_context("fork").Process(target=open_table, args=(storage, known))
    horse.start()
    horse.join()
    assert horse.exitcode == 0
    open_table(storage, known)
    assert hashed == []  # the fork had told
    (storage.root / known / "content").touch()
    open_table(storage, known)
    open_table(storage, known)
    assert hashed == ["sha256"]
    forget(monkeypatch)
    open_table(storage, known)
    assert len(hashed) == 2


@pytest.mark.parametrize("code", [errno.EIO, errno.EBADMSG, errno.EMFILE])
def test_a_sector_that_cannot_be_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    """And no file descriptor left is not."""
    forget(monkeypatch)
    storage = LocalStorage(tmp_path / "datasets")
    known = put(storage, tmp_path / "file", "npy")

    def broken(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(verified.hashlib, "file_digest", broken)
    with pytest.raises(OSError if code == errno.EMFILE else DamagedError) as caught:
        open_table(storage, known)
    assert code == errno.EMFILE or "cannot be read from the disk" in str(caught.value)


def test_many_files_are_kept_in_mind():
    known = verified.Known()
    marks = [os.urandom(32) for _ in range(verified.SLOTS + 3)]
    for mark in marks:
        known.add(mark)
    assert all(mark in known for mark in marks[3:])
    assert not any(mark in known for mark in marks[:3])


def older(path: Path) -> None:
    """As a version without seals has stored it."""
    document: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
    del document["layout"]["files"][SEAL]
    (path / SEAL).unlink()
    (path / MANIFEST).write_text(json.dumps(document, separators=(",", ":")))


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "npz csc"])
def test_datasets_of_older_versions_are_read(tmp_path: Path, name: str):
    storage = LocalStorage(tmp_path / "datasets")
    known = put(storage, tmp_path / "file", name)
    table = open_table(storage, known)
    older(storage.root / known)
    assert same(open_table(storage, known), table)
    storage.verify(known)
    content = (storage.root / known / MANIFEST).read_bytes()
    rows = f'"rows":{table.dataset.rows}'.encode()
    assert content.count(rows) == 1
    (storage.root / known / MANIFEST).write_bytes(content.replace(rows, f'"rows":{table.dataset.rows + 1}'.encode()))
    with pytest.raises(DamagedError):
        open_table(storage, known)


def test_copies_of_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A copy that was damaged in the cache is made again; what is damaged in the store is refused, then replaced."""
    import obstore  # noqa: PLC0415

    forget(monkeypatch)
    storage = remote_storage("memory:///", tmp_path, 2**30)
    known = put(storage, tmp_path / "file", "npy")
    values = np.array(open_table(storage, known).dense)
    flip(storage.cache.root / known / "content")
    assert np.array_equal(open_table(storage, known).dense, values, equal_nan=True)
    sound = storage.read(known, "content")
    assert sound is not None
    obstore.put(storage.store, f"{known}/content", sound[:-1] + bytes([sound[-1] ^ 1]))
    storage.discard(known)
    with pytest.raises(DamagedError, match="hash"):
        open_table(storage, known)
    obstore.put(storage.store, f"{known}/content", sound[:-1])
    with pytest.raises(DamagedError, match="bytes instead of"):
        list(storage.scrub(known))
    put(storage, tmp_path / "file", "npy")
    assert np.array_equal(open_table(storage, known).dense, values, equal_nan=True)
    obstore.put(storage.store, f"{known}/{MANIFEST}", b"{")
    put(storage, tmp_path / "file", "npy")
    assert np.array_equal(open_table(storage, known).dense, values, equal_nan=True)
    obstore.delete(storage.store, f"{known}/content")
    storage.discard(known)
    with pytest.raises(DamagedError, match="is not there"):
        open_table(storage, known)


def test_a_lock_without_a_room_goes_when_it_is_old(tmp_path: Path):
    storage = LocalStorage(tmp_path / "datasets")
    storage.workshop.make()
    old, young = (storage.workshop.root / f"{name}.lock" for name in ("old", "young"))
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    storage.sweep()
    assert (old.exists(), young.exists()) == (False, True)
    assert len(list(storage.workshop.root.glob("*.lock"))) == 2
