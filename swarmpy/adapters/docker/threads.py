"""Blocking calls and blocking streams away from the event loop.

What belongs here: threads, and how a stream that blocks in a read is cut. Threads are daemonic: a stop
request that waits for a container's grace period must not hold up the end of the process.
What does not belong here: what the calls mean.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import requests

T = TypeVar("T")
logger = logging.getLogger(__name__)

CALLS = 64
"""Blocking calls under way at once; each has a thread for as long as it lasts."""
BUFFERED = 256
"""Items of a stream that wait for their reader before the Engine is made to wait."""


class Calls:
    """Runs blocking functions in threads, at most CALLS at once."""

    def __init__(self, limit: int = CALLS) -> None:
        self._free = asyncio.Semaphore(limit)

    async def run(self, job: Callable[[], T]) -> T:
        """The job's result. A cancelled caller leaves the job to end by itself; until then it counts, or an
        Engine that hangs would be given threads without end."""
        loop = asyncio.get_running_loop()
        await self._free.acquire()
        outcome: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                result = job()
            except BaseException as error:
                _post(loop, _fail, outcome, error)
            else:
                _post(loop, _succeed, outcome, result)
            _post(loop, self._free.release)

        try:
            threading.Thread(target=work, name="engine-call", daemon=True).start()
        except BaseException:
            self._free.release()
            raise
        return await outcome


def _post(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: Any) -> None:
    """Nobody waits for the result once the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)


def _succeed(outcome: asyncio.Future[T], result: T) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _fail(outcome: asyncio.Future[Any], error: BaseException) -> None:
    if not outcome.done():
        outcome.set_exception(error)


class Cut:
    """Ends a response that another thread is blocked in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._response: requests.Response | None = None
        self._waiting: socket.socket | None = None
        self.done = False

    @contextmanager
    def holding(self, waiting: socket.socket) -> Generator[None, None, None]:
        """Cut this socket while there is no response yet."""
        with self._lock:
            self._waiting = waiting
            if self.done:
                _wake(waiting)
        try:
            yield
        finally:
            with self._lock:
                self._waiting = None

    def attach(self, response: requests.Response) -> requests.Response:
        """Remember what to cut; cut it at once where the reader has gone already."""
        with self._lock:
            self._response = response
            if self.done:
                _shutdown(response)
        return response

    def cut(self) -> None:
        """Make the blocked read end; idempotent."""
        with self._lock:
            self.done = True
            if self._waiting is not None:
                _wake(self._waiting)
            if self._response is not None:
                _shutdown(self._response)

    def detach(self) -> None:
        """The response is at its end: nothing to cut any more."""
        with self._lock:
            response, self._response = self._response, None
        if response is not None:
            response.close()


def _shutdown(response: requests.Response) -> None:
    """Closing alone would not wake a thread that is blocked in recv; shutting the socket down does."""
    reader = getattr(getattr(response.raw, "_fp", None), "fp", None)
    holder = getattr(reader, "raw", None)
    sock = getattr(holder, "_sock", holder)
    if isinstance(sock, socket.socket):
        _wake(sock)


def _wake(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Stream(Generic[T]):
    """An async iterator over what a blocking producer emits in its own thread; `close` it, or drain it."""

    def __init__(self, produce: Callable[[Cut, Callable[[T], None]], None]) -> None:
        self._produce = produce
        self._cut = Cut()
        self._slots = threading.Semaphore(BUFFERED)
        self._queue: asyncio.Queue[T | _End] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    async def items(self) -> AsyncGenerator[T, None]:
        """What the producer emits; raises what it raises. Leaving the iteration ends the producer."""
        threading.Thread(target=self._work, name="engine-stream", daemon=True).start()
        try:
            while not isinstance(item := await self._queue.get(), _End):
                self._slots.release()
                yield item
            if item.error is not None:
                raise item.error
        finally:
            self._cut.cut()
            self._slots.release()

    def _emit(self, item: T) -> None:
        self._slots.acquire()
        if self._cut.done:
            raise _ReaderGoneError
        _post(self._loop, self._queue.put_nowait, item)

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            self._produce(self._cut, self._emit)
        except _ReaderGoneError:
            logger.debug("the reader of a stream has gone")
        except BaseException as problem:
            error = problem
        finally:
            self._cut.detach()
        _post(self._loop, self._queue.put_nowait, _End(error))


class _ReaderGoneError(Exception):
    """Nobody reads the stream any more."""
