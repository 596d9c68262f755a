"""Many who want to do something at once do it a few in each turn of the event loop."""

from __future__ import annotations

import asyncio

from swarmpy.manager.turns import Turns


async def test_so_many_in_a_turn_and_in_order() -> None:
    turns, done, after = Turns(3), [], []

    async def one(number: int) -> None:
        await turns.wait()
        done.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(10)]
    while len(done) < 10:
        await asyncio.sleep(0)
        after.append(len(done))
    assert done == list(range(10))
    assert max(b - a for a, b in zip([0, *after], after, strict=False)) <= 3
    await asyncio.gather(*tasks)
    # Who comes when nobody waits goes on at once.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.wait_for(turns.wait(), 1)


async def test_who_gave_up_takes_nobodys_place() -> None:
    turns, done = Turns(1), []

    async def one(number: int) -> None:
        await turns.wait()
        done.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    tasks[2].cancel()
    await asyncio.wait(tasks, timeout=5)
    assert done == [0, 3, 4]
