"""The virtual loop: time, order, bounds, processes."""

from __future__ import annotations

import asyncio

import pytest

from swarmpy.sim.loop import Deadlock, Killed, Process, SimLoop, Spinning, TooLong


def test_waiting_is_free_and_exact() -> None:
    loop = SimLoop()

    async def main() -> float:
        await asyncio.sleep(3600)
        async with asyncio.timeout(10):
            await asyncio.sleep(5)
        return loop.time()

    assert loop.run(main()) == 3605.0


def test_ready_runs_in_order_and_timers_by_time_then_age() -> None:
    loop = SimLoop()
    seen: list[str] = []

    async def main() -> None:
        loop.call_later(1, seen.append, "late")
        loop.call_at(0.5, seen.append, "first")
        loop.call_at(0.5, seen.append, "second")
        loop.call_soon(seen.append, "soon")
        await asyncio.sleep(2)

    loop.run(main())
    assert seen == ["soon", "first", "second", "late"]


def test_a_wait_that_cannot_end_is_reported() -> None:
    loop = SimLoop()

    async def main() -> None:
        await loop.create_future()

    with pytest.raises(Deadlock, match="main"):
        loop.run(main())


def test_spinning_is_reported() -> None:
    loop = SimLoop()

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Spinning, match="time did not pass"):
        loop.run(main())


def test_bound_on_time() -> None:
    loop = SimLoop(max_time=10)
    with pytest.raises(TooLong):
        loop.run(asyncio.sleep(11))


def test_executor_runs_on_the_loop() -> None:
    loop = SimLoop()

    async def main() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await loop.run_in_executor(None, sum, (1, 2))

    assert loop.run(main()) == 3


def test_a_killed_process_never_runs_again_not_even_finally() -> None:
    loop = SimLoop()
    seen: list[str] = []
    process = Process("node")

    async def child() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            seen.append("finally of the child")

    async def parent() -> None:
        try:
            await asyncio.create_task(child())
        finally:
            seen.append("finally of the parent")

    async def main() -> list[str]:
        loop.spawn(process, parent())
        await asyncio.sleep(1)
        loop.kill(process)
        await asyncio.sleep(10)
        return list(seen)

    assert loop.run(main()) == []


def test_dying_inside_a_callback() -> None:
    loop = SimLoop()
    process = Process("node")
    seen: list[str] = []

    async def victim() -> None:
        loop.kill(process)
        raise Killed

    async def other() -> None:
        seen.append("before")
        await asyncio.sleep(1)
        seen.append("after")

    async def main() -> None:
        loop.spawn(process, other())
        await asyncio.sleep(0)
        loop.spawn(process, victim())
        await asyncio.sleep(3)

    loop.run(main())
    assert seen == ["before"]
    assert loop.problems == []


def test_a_paused_process_waits_and_goes_on() -> None:
    loop = SimLoop()
    process = Process("node")
    seen: list[float] = []

    async def tick() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append(loop.time())

    async def main() -> None:
        loop.spawn(process, tick())
        await asyncio.sleep(1.5)
        loop.pause(process)
        await asyncio.sleep(3)
        loop.resume(process)
        await asyncio.sleep(3)

    loop.run(main())
    assert seen == [1.0, 4.5, 5.5]


def test_unhandled_errors_are_collected() -> None:
    loop = SimLoop()

    async def bad() -> None:
        raise RuntimeError("oops")

    async def main() -> None:
        asyncio.create_task(bad())  # noqa: RUF006
        await asyncio.sleep(1)

    loop.run(main())
    assert len(loop.problems) == 1
    assert "oops" in loop.problems[0]


def test_tasks_hash_by_number() -> None:
    loop = SimLoop()

    async def main() -> list[int]:
        tasks = {asyncio.create_task(asyncio.sleep(0)) for _ in range(20)}
        await asyncio.wait(tasks)
        return [hash(task) for task in tasks]

    assert loop.run(main()) == sorted(SimLoop().run(_numbers()))


async def _numbers() -> list[int]:
    tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(20)]
    await asyncio.wait(tasks)
    return [hash(task) for task in tasks]
