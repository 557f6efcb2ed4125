"""A server that is told to stop does stop."""

import asyncio
import contextlib

from service.app import stopped


def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        swallowed += 1
        await asyncio.Event().wait()

    async def failing() -> None:
        raise OSError("gone")

    async def whole() -> None:
        tasks = [asyncio.create_task(stubborn()), asyncio.create_task(failing())]
        await asyncio.sleep(0)
        await asyncio.wait_for(stopped(*tasks), 30)
        assert tasks[0].cancelled()
        assert isinstance(tasks[1].exception(), OSError)
        await stopped()  # nothing to stop

    asyncio.run(whole())
    assert swallowed == 1
