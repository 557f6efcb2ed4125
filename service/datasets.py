"""Datasets in the service: an upload, from its first byte to its entry in the index."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson
import redis.asyncio
from fastapi import Request

from service.bodies import Form, Sink, header_fault, pour, stated_digest
from service.problems import (
    DatasetDamaged,
    DatasetExists,
    DatasetTooLarge,
    NotFound,
    StorageFull,
    Unavailable,
    UnsupportedMediaType,
)
from service.quota import Quota, limit_of
from service.readers import Readers, Reading
from service.reading_options import query_options, recognize_empty, require_fit, typed_options
from service.settings import Settings
from service.threads import Crew
from worker import store
from worker.contract.dataset import Dataset, Format, ReadingOptions
from worker.contract.reading import dataset_id
from worker.datasets import (
    MANIFEST,
    DamagedError,
    DatasetGoneError,
    RefusedError,
    Storage,
    StorageError,
    assemble,
    open_storage,
)
from worker.datasets.draft import CONTENT, Draft
from worker.datasets.manifest import bytes_on_disk, open_dataset, small_file
from worker.datasets.sniff import recognize
from worker.datasets.storage import BAD_DISK
from worker.store import Shelving

EARLY = 2**20  # bytes of a file after which it is read while it still comes
PUBLISHED = 3  # times that a dataset is published, should it be removed at that moment

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Arrival:
    """An upload on its way: where it is made, what it is, and its reader, if that has begun."""

    directory: Path
    options: ReadingOptions
    media_type: str
    sink: Sink
    kind: Format | None = None
    reading: Reading | None = None


class Datasets:
    """The datasets of one API process."""

    def __init__(self, settings: Settings, client: redis.asyncio.Redis, crew: Crew) -> None:
        self._settings, self._client, self._crew = settings, client, crew
        self.storage: Storage = open_storage(settings.storage_url, settings.data_dir, settings.cache_mb)
        self.quota = Quota(limit_of(settings, self.storage), evicting=settings.dataset_eviction)
        self._readers = Readers(
            settings.dataset_limits, settings.dataset_readers, _hidden(settings), settings.log_level
        )
        self._gates: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def close(self) -> None:
        """End the reader process."""
        self._readers.close()

    # Uploads.

    async def upload(self, request: Request) -> tuple[dict[str, Any], bool]:
        """Take in the body of a request; the dataset's document, and whether it is new. Raises a Problem."""
        stated = stated_digest(request)
        asked = query_options(request)
        await self._check_length(request)
        directory = await self._crew.uploads.run(self._room)
        with self.quota.arriving(directory):
            return await self._taken_in(request, directory, asked, stated)

    async def _taken_in(
        self, request: Request, directory: Path, asked: ReadingOptions, stated: bytes | None
    ) -> tuple[dict[str, Any], bool]:
        """The same, in a directory that is removed in the end."""
        uploads = self._crew.uploads
        try:
            async with self._arriving(request, directory, asked, wire=stated is not None) as (arrival, body):
                await pour(body, arrival.sink, uploads, lambda: self._advance(arrival))
                await uploads.carry_on(arrival.sink.finish)
                if stated is not None and stated != arrival.sink.wire_digest:
                    raise header_fault("content-digest", "mismatch", "The body that arrived has another SHA-256.")
                return await self._settle(arrival)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _disk_full() from None
            if error.errno in BAD_DISK:
                log.exception("the disk of the datasets fails")
                raise Unavailable("The disk of the service fails; tell its operators.") from None
            raise
        except StorageError:
            log.exception("the storage of datasets fails")
            raise Unavailable("The storage of datasets does not answer; try again.") from None
        finally:
            await uploads.carry_on(lambda: shutil.rmtree(directory, ignore_errors=True))

    def _room(self) -> Path:
        try:
            return self.storage.workshop.make()
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _disk_full() from None
            raise

    async def _check_length(self, request: Request) -> None:
        """Refuse early what would be refused later."""
        text = request.headers.get("content-length", "0")
        length = int(text) if text.isdigit() else 0
        limit = self._settings.dataset_limits.bytes
        close = {"Connection": "close"}
        if length > limit + EARLY:  # a form has a little more than its file
            raise DatasetTooLarge(f"A dataset may have {limit} bytes, and this one has {length}.", headers=close)
        if length > EARLY and request.headers.get("content-encoding", "identity") == "identity":
            await self.quota.refresh(self._client)
            room = self.quota.room(Path())  # behind all that arrive
            if room is not None and length > room + EARLY:
                raise self.quota.full(room, close)

    @asynccontextmanager
    async def _arriving(
        self, request: Request, directory: Path, asked: ReadingOptions, *, wire: bool
    ) -> AsyncIterator[tuple[Arrival, AsyncIterator[bytes]]]:
        media_type, _, parameters = request.headers.get("content-type", "").partition(";")
        media_type = media_type.strip().lower()
        body: AsyncIterator[bytes] = request.stream()
        form = None
        if media_type == "multipart/form-data":
            if request.headers.get("content-encoding", "identity") != "identity":
                raise UnsupportedMediaType("A form is sent without Content-Encoding.")
            if wire:
                raise header_fault("content-digest", "form", "Send the file itself as the body, to have it verified.")
            form = Form(request)
            body = form.content(body)
        elif not media_type:
            raise UnsupportedMediaType("Name the format by a Content-Type, or send application/octet-stream.")
        encoding = request.headers.get("content-encoding", "identity")
        options, limit = typed_options(asked, media_type, parameters), self._settings.dataset_limits.bytes
        sink = Sink(directory / CONTENT, encoding, limit, wire=wire)
        arrival = Arrival(directory, options, media_type, sink)
        if form is not None:
            arrival.media_type = ""
            body = _typed(body, form, arrival)
        try:
            yield arrival, body
        finally:
            sink.close()
            if arrival.reading is not None:
                await self._readers.end_early(arrival.reading)

    async def _advance(self, arrival: Arrival) -> None:
        """After each piece that is on the disk: recognize the format, start the reader, tell it what there is."""
        sink = arrival.sink
        if arrival.kind is None:
            await self.quota.refresh(self._client)
        self.quota.check(arrival.directory)
        if arrival.kind is None and sink.head:
            try:
                arrival.kind = recognize(arrival.media_type, sink.head)
            except RefusedError as refusal:
                raise UnsupportedMediaType(refusal.detail) from None
            require_fit(arrival.options, arrival.kind)
            if sink.size >= EARLY:
                room = self.quota.room(arrival.directory)
                begun = self._readers.begin_early(arrival.directory, arrival.kind, arrival.options, room)
                arrival.reading = await begun
        if arrival.reading is not None:
            if arrival.reading.over:
                await arrival.reading.draft()  # a refusal need not wait for the rest of the body
            arrival.reading.grown(sink.size)

    async def _settle(self, arrival: Arrival) -> tuple[dict[str, Any], bool]:
        """All bytes are there: find the dataset that they are, or make it."""
        sink = arrival.sink
        name = dataset_id(sink.sha256, arrival.options)
        kind = arrival.kind or recognize_empty(arrival.media_type)
        require_fit(arrival.options, kind)
        gate = self._gates[name]
        try:
            async with gate:
                if (known := await self._known(name, kind)) is not None:
                    return known, False
                return await self._make(arrival, name, kind)
        finally:
            if not gate.locked():
                self._gates.pop(name, None)

    async def _known(self, name: str, kind: Format) -> dict[str, Any] | None:
        """A dataset that is there already and sound, which counts as used now. Raises DatasetExists."""
        entry = await store.arun(self._client, store.dataset(name))
        if entry is None:
            return None
        try:
            manifest = await self._crew.files.carry_on(small_file, self.storage, name, MANIFEST)
            document = await self._document(manifest)
            _compare(document, kind)
            if entry.damaged is None:
                await self._crew.uploads.carry_on(self.storage.verify, name)
        except (DamagedError, DatasetGoneError) as error:
            log.warning("%s It is stored again.", error)
            return None
        if entry.damaged is not None:
            return None
        dataset = await self._crew.uploads.carry_on(open_dataset, manifest, name)
        added = await self._add(dataset, len(manifest))
        return document if added is Shelving.EXISTS else None

    async def _document(self, manifest: bytes) -> dict[str, Any]:
        document: dict[str, Any] = await self._crew.uploads.carry_on(orjson.loads, manifest)
        return document

    async def _make(self, arrival: Arrival, name: str, kind: Format) -> tuple[dict[str, Any], bool]:
        sink = arrival.sink
        if arrival.reading is not None:
            arrival.reading.grown(sink.size, complete=True)
            reading = arrival.reading.draft()
        else:
            room = self.quota.room(arrival.directory)
            reading = self._readers.read(arrival.directory, kind, arrival.options, sink.size, room)
        draft: Draft = await self.quota.watch(arrival.directory, reading)
        arguments = (arrival.directory, draft, kind, sink.size, sink.sha256, datetime.now(UTC), arrival.options)
        dataset = await self._crew.uploads.carry_on(assemble, *arguments)
        created = await self._publish(arrival.directory, dataset)
        manifest = await self._crew.files.carry_on(self.storage.read, name, MANIFEST)
        if manifest is None:
            raise Unavailable("The dataset was removed while it was made; try again.", headers={"Retry-After": "1"})
        return await self._document(manifest), created

    async def _publish(self, directory: Path, dataset: Dataset) -> bool:
        """Files first, the index after them; again, if somebody removes the files of an earlier one in between.

        One that is known to be damaged is replaced, one that is found damaged now, too.
        """
        created, described = False, (directory / MANIFEST).stat().st_size
        entry = await store.arun(self._client, store.dataset(dataset.id))
        damaged = entry is not None and entry.damaged is not None
        for _ in range(PUBLISHED):
            placed = await self._crew.uploads.carry_on(
                functools.partial(self.storage.publish, directory, dataset, replace=damaged)
            )
            if placed and damaged:
                await store.arun(self._client, store.mark_dataset(dataset.id, None))
            added = await self._add(dataset, described)
            if added is Shelving.FULL:
                await self._crew.uploads.carry_on(self.storage.delete, dataset.id)
                raise self.quota.full()
            created = created or added is Shelving.CREATED
            if placed or await self._crew.files.carry_on(self.storage.read, dataset.id, MANIFEST) is not None:
                break
        return created

    async def _add(self, dataset: Dataset, described: int) -> Shelving:
        """Enter a dataset into the index; `described`: bytes of its manifest."""
        size, evict = bytes_on_disk(dataset, described), self._settings.dataset_eviction
        entry = store.add_dataset(dataset.id, size, summary(dataset), quota=self.quota.limit, evict=evict)
        added = await store.arun(self._client, entry)
        if added is Shelving.CREATED:
            self.quota.added(size)
        return added

    # What is there.

    async def read(self, name: str, file: str, caller: Request) -> bytes:
        """A small file of a dataset, for a caller whose body has been read.

        Raises NotFound, DatasetDamaged, Unavailable, Busy.
        """
        entry = await store.arun(self._client, store.dataset(name))
        if entry is None:
            raise _unknown()
        if entry.damaged is not None:
            raise DatasetDamaged(entry.damaged)
        for last in (False, True):  # what is removed or replaced at this moment is not damaged
            try:
                return await self._crew.files.run(small_file, self.storage, name, file, caller=caller)
            except (DamagedError, DatasetGoneError) as error:
                if await store.arun(self._client, store.dataset(name)) is None:
                    raise _unknown() from None
                if last:
                    raise await self._damaged(name, error) from None
            except (StorageError, OSError):
                log.exception("the storage of datasets fails")
                raise Unavailable("The storage of datasets does not answer; try again.") from None
        raise AssertionError("the second look ends it")

    async def _damaged(self, name: str, error: Exception) -> DatasetDamaged:
        log.error("%s", error)
        await store.arun(self._client, store.mark_dataset(name, str(error)))
        return DatasetDamaged(str(error))


def _unknown() -> NotFound:
    return NotFound("There is no dataset with this id.")


def _hidden(settings: Settings) -> list[Path]:
    """The embedded server's files, and the socket of a job store that is reached by one."""
    data_dir = settings.data_dir.absolute()
    paths = [data_dir / "redis"]
    parts = urlsplit(settings.redis_url or "")
    if parts.scheme == "unix":
        place = Path(unquote(parts.path))
        needed = (data_dir, Path(sys.prefix), Path(sys.base_prefix))
        # the directory, as a server that starts again makes a new socket there
        paths.append(place if any(path.is_relative_to(place.parent) for path in needed) else place.parent)
    return paths


async def _typed(body: AsyncIterator[bytes], form: Form, arrival: Arrival) -> AsyncIterator[bytes]:
    """The content of a form's file; its type is known once its first bytes are."""
    async for part in body:
        if not arrival.media_type:
            media_type, _, parameters = (form.media_type or "").partition(";")
            arrival.media_type = media_type.strip().lower()
            arrival.options = typed_options(arrival.options, arrival.media_type, parameters)
        yield part


def _compare(known: dict[str, Any], kind: Format) -> None:
    """Raise DatasetExists where the same bytes were read as another format than is asked for now."""
    if known["format"] != kind:
        told = f"These bytes are the dataset {known['id']}, read as {known['format']}"
        raise DatasetExists(f"{told}; delete it first.")


def summary(dataset: Dataset) -> bytes:
    """What the index tells in a list."""
    fields = dataset.model_dump(
        mode="json", include={"id", "format", "bytes", "stored_bytes", "sha256", "rows", "created_at"}
    )
    return orjson.dumps({**fields, "columns": dataset.width})


def _disk_full() -> StorageFull:
    return StorageFull("The disk of the service is full; delete datasets, or tell its operators.")
