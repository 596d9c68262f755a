"""The event loop in virtual time: waiting costs nothing, and a seed replays exactly.

What belongs here: time, the order in which callbacks run, and processes (a group of callbacks that can be
killed or paused as one, which is how a simulated node dies without a goodbye). What does not: anything that
the callbacks do (the other files of this package).

Order is fixed: callbacks that are ready run first in, first out; timers run by time, then by age. Tasks hash
by their number, so sets of tasks iterate alike in every run. No sockets, no threads: `run_in_executor` runs
the function on the loop, one turn later.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import warnings
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

BUSY_LIMIT = 200_000
"""Callbacks at one instant after which the simulated program is said to spin."""


class SimStop(Exception):
    """Base of the reasons for which the simulator itself ends a run. Never raised itself."""


class Deadlock(SimStop):
    """Nothing is ready and no timer is set: what is awaited can never happen."""


class Spinning(SimStop):
    """The program runs for ever without letting time pass."""


class TooLong(SimStop):
    """The bound on steps or on virtual time is reached."""


class Killed(BaseException):
    """Raised inside a process that dies in the middle of a callback; never caught by honest code."""


class Process:
    """One life of a simulated program, from its start to its exit or kill.

    Callbacks scheduled in its context run only while it lives and is not paused. `died` is called once, when
    it is killed.
    """

    def __init__(self, name: str, life: int = 0) -> None:
        self.name = name
        self.life = life
        self.alive = True
        self.paused = False
        self.held: list[asyncio.Handle] = []
        self._context = Context()
        self._context.run(_CURRENT.set, self)

    @property
    def halted(self) -> bool:
        """Whether its callbacks may not run at the moment."""
        return self.paused or not self.alive

    def context(self) -> Context:
        """A fresh context that belongs to this process."""
        return self._context.copy()


_CURRENT: ContextVar[Process | None] = ContextVar("process", default=None)
NEUTRAL = Context()
"""The context of the simulator itself: callbacks in it belong to no process."""


def current() -> Process | None:
    """The process whose callback runs now; None for the simulator's own."""
    return _CURRENT.get()


class SimTask(asyncio.Task[T]):
    """A task that hashes by its number, so that no iteration order depends on memory addresses."""

    def __init__(self, coro: Any, *, loop: SimLoop, context: Context | None = None) -> None:
        loop.task_count += 1
        self.number = loop.task_count
        owner = context if context is not None else copy_context()
        self.process = owner.get(_CURRENT)
        super().__init__(coro, loop=loop, context=owner, name=f"task-{self.number}")
        if self.process is not None and not self.process.alive:
            loop.bury(self)

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[T]):
    """A future that hashes by its number, for the same reason."""

    def __init__(self, *, loop: SimLoop) -> None:
        loop.future_count += 1
        self.number = loop.future_count
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


def _new_task(loop: Any, coro: Any, context: Context | None = None) -> SimTask[Any]:
    return SimTask(coro, loop=loop, context=context)


class SimLoop(asyncio.BaseEventLoop):
    """An asyncio loop whose clock jumps to the next timer. Times are seconds since the run began."""

    def __init__(self, *, max_steps: int = 50_000_000, max_time: float = 1e9) -> None:
        super().__init__()
        self.instant = 0.0
        self.steps = 0
        self.task_count = 0
        self.future_count = 0
        self.max_steps = max_steps
        self.max_time = max_time
        self.problems: list[str] = []
        """What asyncio reported as unhandled, one sentence each."""
        self._heap: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers = 0
        self._busy = 0
        self._zombies: list[SimTask[Any]] = []
        self._fatal: BaseException | None = None
        self.last_error: BaseException | None = None
        self.watch: Callable[[], None] | None = None
        """Called after each round of callbacks: where invariants look."""
        self.set_task_factory(_new_task)
        self.set_exception_handler(self._report)

    # ------------------------------------------------------------ what asyncio asks of a loop

    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self.instant

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return SimFuture(loop=self)

    def call_at(  # type: ignore[override]  # the callback's variadic types do not matter here
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run the callback at that virtual time."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers += 1
        heapq.heappush(self._heap, (when, self._timers, handle))
        handle._scheduled = True  # type: ignore[attr-defined]  # so that cancel() tells the loop
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # narrower than typeshed says
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """There is one thread: the same as call_soon."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]  # narrower than typeshed says
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run the function on the loop, one turn later: threads would end determinism."""
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_soon(run)
        return future

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are dropped when their time comes."""

    def _process_events(self, event_list: Any) -> None:
        """There are no sockets, so no events."""

    def _write_to_self(self) -> None:
        """Nobody waits in a system call that would need waking."""

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]  # the standard loop's own
        if not ready:
            self._advance()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(_CURRENT)
            if process is not None and (process.paused or not process.alive):
                if process.alive:
                    process.held.append(handle)
                continue
            self.steps += 1
            self._busy += 1
            handle._run()
        if self.watch is not None:
            self.watch()
        if self._busy > BUSY_LIMIT:
            raise Spinning(f"{self._busy} callbacks ran at {self.instant:.6f} s and time did not pass")
        if self.steps > self.max_steps:
            raise TooLong(f"{self.steps} callbacks ran; the bound is {self.max_steps}")
        if self._fatal is not None:
            fatal, self._fatal = self._fatal, None
            raise fatal

    def _advance(self) -> None:
        heap, ready = self._heap, self._ready  # type: ignore[attr-defined]  # the standard loop's own
        while heap and heap[0][2]._cancelled:
            heapq.heappop(heap)
        if not heap:
            if self._stopping:  # type: ignore[attr-defined]  # the standard loop's own
                return
            raise Deadlock(f"nothing can happen any more at {self.instant:.6f} s; waiting: {self._waiting()}")
        when = heap[0][0]
        if when > self.instant:
            self.instant = when
            self._busy = 0
        if self.instant > self.max_time:
            raise TooLong(f"virtual time passed {self.max_time} s")
        while heap and heap[0][0] <= self.instant:
            handle = heapq.heappop(heap)[2]
            if not handle._cancelled:
                ready.append(handle)

    def _waiting(self) -> str:
        tasks = sorted((task for task in asyncio.all_tasks(self) if isinstance(task, SimTask)),
                       key=lambda task: task.number)  # fmt: skip
        names = [getattr(task.get_coro(), "__qualname__", "?") for task in tasks[:8]]
        return ", ".join(names) or "no task"

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Killed):
            return
        if isinstance(error, SimStop):
            self._fatal = error
            return
        cause = f": {type(error).__name__}: {error}" if error else ""
        self.problems.append(f"{self.instant:.6f} {context.get('message')}{cause}")
        self.last_error = error

    # ------------------------------------------------------------ what the simulator adds

    def stop_with(self, reason: BaseException) -> None:
        """End the run with this exception after the present turn."""
        if self._fatal is None:
            self._fatal = reason

    def spawn(self, process: Process | None, coro: Coroutine[Any, Any, T]) -> SimTask[T]:
        """Start a task inside a process (None: the simulator's own)."""
        context = process.context() if process is not None else NEUTRAL.copy()
        task = self.create_task(coro, context=context)
        assert isinstance(task, SimTask)
        return task

    def kill(self, process: Process) -> None:
        """The process is gone: none of its callbacks ever runs again, not even a `finally`."""
        process.alive = False
        self._zombies += [task for task in asyncio.all_tasks(self)
                          if isinstance(task, SimTask) and task.process is process]  # fmt: skip
        process.held.clear()

    def bury(self, task: SimTask[Any]) -> None:
        """A task of a dead process: it never runs, and is disposed of at the end."""
        self._zombies.append(task)

    def pause(self, process: Process) -> None:
        """Stop the process where it is (SIGSTOP); its callbacks wait."""
        process.paused = True

    def resume(self, process: Process) -> None:
        """Let a paused process go on: everything that waited runs now, in order."""
        process.paused = False
        if process.alive:
            self._ready.extend(process.held)  # type: ignore[attr-defined]  # the standard loop's own
        process.held = []

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run to the end of `main` and dispose of everything else. Raises Deadlock, Spinning, TooLong."""
        with _steady_gc():
            try:
                return self.run_until_complete(main)
            finally:
                self.dispose()

    def dispose(self) -> None:
        """Close the loop and every coroutine left in it, quietly."""
        left = {task.number: task for task in (*self._zombies, *asyncio.all_tasks(self))
                if isinstance(task, SimTask)}  # fmt: skip
        self._zombies = []
        self.set_exception_handler(lambda loop, context: None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for number in sorted(left):
                task = left[number]
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # the standard loop's own
                _close(task.get_coro())
            self._heap.clear()
            left.clear()
            if not self.is_closed():
                self.close()
            # What closing left half-done is complained of when it is collected: here, where nobody listens.
            gc.collect()


def _close(coro: Any) -> None:
    """Close a coroutine even when its `finally` blocks await: each close gets past one of them."""
    for _ in range(20):
        # Whatever a dead program says has no listener; a task group says it of its body's end, too.
        with suppress(Exception, Killed, BaseExceptionGroup):
            coro.close()
            return


@contextmanager
def _steady_gc() -> Generator[None, None, None]:
    """Collect between runs, never inside: finalizers must not run at moments that depend on memory."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
