"""Delivered webhooks into the database, many in one transaction. Stage 1.

In: deliveries, each awaited by the request that brought it. Out: whether it is new, once it is on the disk: what was
answered 202 is never lost, whatever kills this process afterwards. While one transaction is written, the next
deliveries gather; so a burst costs a few of them, each with one write through to the disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bot.errors import DatabaseUnavailable
from bot.server.records import Delivery
from bot.server.store import Store

MOST_AT_ONCE = 256
"""Deliveries in one transaction."""
MOST_WAITING = 2_048
"""More are turned away, so that this process's memory is bounded; the sweep finds what they told of."""

log = logging.getLogger(__name__)


class InboxFull(Exception):
    """More deliveries wait than may. Never shown: the sender is told to come again."""


class Inbox:
    """Keeps deliveries; belongs to one event loop."""

    def __init__(self, store: Store, *, kept: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            kept: called, on the event loop, whenever something new is there to be handled.
        """
        self._store, self.kept = store, kept
        self._waiting: list[tuple[Delivery, asyncio.Future[bool]]] = []
        self._writer: asyncio.Task[None] | None = None
        # Of its own, so that no other work of this process can keep a delivery waiting.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inbox")

    async def put(self, delivery: Delivery) -> bool:
        """Keep a delivery until it is handled; whether it is new. Returns when the disk has it.

        Raises:
            DatabaseUnavailable: nothing of it is kept.
            InboxFull: too many wait.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise InboxFull
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="inbox")
        return await done

    async def close(self) -> None:
        """Write what waits, and end."""
        if self._writer is not None:
            await asyncio.wait([self._writer])
        self._thread.shutdown(wait=False)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            found = await self._keep([delivery for delivery, _ in batch])
            for (_, done), result in zip(batch, found, strict=True):
                if done.done():
                    continue  # who waited for it went away
                if isinstance(result, bool):
                    done.set_result(result)
                else:
                    done.set_exception(result)
            if any(result is True for result in found):
                self.kept()

    async def _keep(self, deliveries: list[Delivery]) -> list[bool | Exception]:
        """For each, whether it is new, or why it is not kept."""
        try:
            return [*await asyncio.get_running_loop().run_in_executor(self._thread, self._store.deliver, deliveries)]
        except DatabaseUnavailable as error:
            return [error] * len(deliveries)
        except Exception as error:
            if len(deliveries) == 1:
                log.exception("a delivery cannot be kept")
                return [error]
        # One that the database does not take must not cost the others their place.
        return [result for delivery in deliveries for result in await self._keep([delivery])]
