"""The scrubber of the datasets: reads slowly what lies on the disk, and marks what is not what was stored."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import RedisError

from service.threads import Threads
from worker import store
from worker.datasets import DamagedError, DatasetGoneError, Storage, StorageError

PERIOD = 7 * 86_400.0  # seconds from one look at a dataset to the next
PAUSE = 60.0  # seconds until it is asked again whether there is something to look at
BREATH = 1.0  # seconds between two datasets: the store looks through its list for each

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scrubber:
    """Looks at one dataset after the other, the one longest unseen first; of every API process another one.

    `rate`: bytes a second, 0: none at all.
    """

    rate: float
    client: redis.asyncio.Redis
    storage: Storage
    threads: Threads

    async def run(self) -> None:
        """Look at what is due, until cancelled."""
        while self.rate > 0:
            found = None
            try:
                found = await store.arun(self.client, store.due_dataset(PERIOD))
                if found is not None:
                    await self.look(found)
            except RedisError as error:
                store.note(self.client, error)
            except (StorageError, OSError):
                log.warning("datasets cannot be looked through now", exc_info=True)
                found = None
            await asyncio.sleep(PAUSE if found is None else BREATH)

    async def look(self, name: str) -> None:
        """Compare all files of a dataset with what was stored, and note in the index what was found.

        Damage is what is seen twice: a dataset that is replaced meanwhile looks damaged once, and one that is removed
        is not in the index any more.
        """
        try:
            try:
                await self._read(name)
            except (DamagedError, DatasetGoneError):
                await self._read(name)
        except (DamagedError, DatasetGoneError) as error:
            log.error("%s", error)  # noqa: TRY400 - the sentence says all
            await store.arun(self.client, store.mark_dataset(name, str(error)))
        else:
            await store.arun(self.client, store.mark_dataset(name, None))

    async def _read(self, name: str) -> None:
        pieces = self.storage.scrub(name)
        while (size := await self.threads.carry_on(next, pieces, None)) is not None:  # noqa: ASYNC110 - it keeps the rate
            await asyncio.sleep(size / self.rate)
