# SPDX-License-Identifier: Apache-2.0
#
# Futures in event loops of asyncio: a loop wakes up once for all calls that have ended meanwhile.
import asyncio
import itertools
import weakref
from typing import Any, Dict, Generator

from swiglu import _core


class _Waiters:
    """The asyncio futures of one loop that wait for calls, by number."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._notifier = _core.Notifier()
        self._numbers = itertools.count()
        self._waiters: Dict[int, asyncio.Future[None]] = {}
        loop.add_reader(self._notifier.fileno(), self._wake)

    def add(self, future: _core.Future, waiter: "asyncio.Future[None]") -> int:
        """Ends the asyncio future when the call has ended."""
        number = next(self._numbers)
        self._waiters[number] = waiter
        future._watch(self._notifier, number)
        return number

    def forget(self, number: int) -> None:
        """Nobody waits any more."""
        self._waiters.pop(number, None)

    def _wake(self) -> None:
        for number in self._notifier.take():
            waiter = self._waiters.pop(number, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)


_WAITERS: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiters]" = weakref.WeakKeyDictionary()


def wait_for(future: _core.Future) -> Generator[Any, None, Any]:
    """What `await future` runs. If the task is cancelled, so is the call."""
    if not future.done():
        loop = asyncio.get_running_loop()
        waiters = _WAITERS.get(loop)
        if waiters is None:
            waiters = _WAITERS[loop] = _Waiters(loop)
        waiter = loop.create_future()
        number = waiters.add(future, waiter)
        try:
            yield from waiter
        except BaseException:
            waiters.forget(number)
            future.cancel()
            raise
    return future.result()
