"""Namespaces are seen as soon as they are mounted, and nobody waits on after that."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator

import pytest

from swarmpy.adapters.sandboxes import MountWatch, mounted


@pytest.fixture
def name() -> Iterator[str]:
    found = f"swpwatch{os.getpid()}"
    yield found
    subprocess.run(["ip", "netns", "delete", found], check=False, capture_output=True)


def make(name: str) -> None:
    subprocess.run(["ip", "netns", "add", name], check=True)


def watching() -> bool:
    return any(thread.name == "mounts" for thread in threading.enumerate())


async def test_a_namespace_that_appears_wakes_all_who_wait_and_the_thread_ends(name: str) -> None:
    watch, path = MountWatch(), f"/run/netns/{name}"
    waiting = [asyncio.ensure_future(watch.appeared(path, patience=30)) for _ in range(3)]
    other = asyncio.ensure_future(watch.appeared(path + "x", patience=30))
    await asyncio.sleep(0)
    assert watching()
    await asyncio.to_thread(make, name)
    assert await asyncio.gather(*waiting) == [True, True, True]
    assert mounted(path)
    assert not other.done()
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)
    async with asyncio.timeout(10):
        while watching():
            await asyncio.sleep(0.01)
    assert await watch.appeared(path, patience=0)


async def test_one_that_never_appears_is_not_waited_for_for_ever(name: str) -> None:
    assert not await MountWatch().appeared(f"/run/netns/{name}", patience=0.05)


async def test_a_file_is_no_namespace(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    assert not await MountWatch().appeared(str(tmp_path / "file"), patience=0.05)
