"""The janitor of the datasets: removes what has to go, never what a job needs that has not ended."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import RedisError

from service.datasets import summary
from service.settings import Settings
from service.threads import Threads
from worker import store
from worker.contract.dataset import Dataset
from worker.datasets import MANIFEST, DamagedError, Storage, StorageError
from worker.datasets.manifest import bytes_on_disk, open_dataset

SWEEP = 60.0  # seconds between sweeps

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Janitor:
    """Looks after the storage and its index. Every API process has one; what they do is safe to be done twice."""

    settings: Settings
    client: redis.asyncio.Redis
    storage: Storage
    threads: Threads
    quota: int | None = None

    async def remove_files(self, name: str) -> None:
        """Remove the files of a removed dataset; should that fail, a sweep does it later."""
        if not await store.arun(self.client, store.doomed(name)):
            return  # it was added again
        try:
            await self.threads.carry_on(self.storage.delete, name)
            await store.arun(self.client, store.forget_doomed(name))
        except (StorageError, OSError):
            log.exception("the files of dataset %s are still there", name)

    async def adopt(self) -> None:
        """Enter datasets into the index that are in the storage alone: the index was lost, or an API was killed."""
        for name in await self.threads.carry_on(lambda: list(self.storage.ids())):
            known = await store.arun(self.client, store.dataset(name))
            if known is not None or await store.arun(self.client, store.doomed(name)):
                continue
            if (found := await self._stored(name)) is None:
                continue
            dataset, size = found
            entry = store.add_dataset(name, size, summary(dataset))
            await store.arun(self.client, entry)

    async def _stored(self, name: str) -> tuple[Dataset, int] | None:
        """What the storage has under this name, and its bytes; None, with a line in the log, if it cannot be read."""
        try:
            manifest = await self.threads.carry_on(self.storage.read, name, MANIFEST)
        except DamagedError as error:
            log.warning("%s Until then it is not listed.", error)
            return None
        try:
            if manifest is None:
                return None
            dataset = open_dataset(manifest, name)
        except StorageError as error:  # or it is of a newer version
            log.warning("%s Until then it is not listed.", error)
            return None
        return dataset, bytes_on_disk(dataset, len(manifest))

    async def sweep(self) -> None:
        """Remove what is kept too long, what is over the quota, and what processes that are gone have left."""
        settings = self.settings
        retention = None if settings.dataset_retention_days is None else settings.dataset_retention_days * 86_400
        quota = self.quota if settings.dataset_eviction else None
        for name in await store.arun(self.client, store.sweep_datasets(retention, quota)):
            await self.remove_files(name)
        await self.threads.carry_on(self.storage.sweep)

    async def run(self) -> None:
        """Adopt once, then sweep, until cancelled."""
        adopted = False
        while True:
            try:
                if not adopted:
                    await self.adopt()
                    adopted = True
                await self.sweep()
            except RedisError as error:
                store.note(self.client, error)
            except (StorageError, OSError):
                log.warning("datasets cannot be looked after now", exc_info=True)
            await asyncio.sleep(SWEEP if adopted else 2.0)
