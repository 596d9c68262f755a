"""Fill a real file system under a running log: `python -m tests.raft.filling FOLDER`, in a mount namespace of
its own. FOLDER becomes a tmpfs of a few megabytes that goes away with the process.

Prints a JSON object, or fails with an assertion.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys

from swarmpy.adapters.raft.errors import DiskError
from swarmpy.ports import LogError
from tests.raft.one_member import leading, make

SIZE = "3m"
BALLAST = 1 << 20
BALLAST_PIECES = 2


def free(folder: str) -> int:
    return shutil.disk_usage(folder).free


async def fill(folder: str) -> dict[str, object]:
    for number in range(BALLAST_PIECES):
        with open(f"{folder}/ballast{number}", "wb") as file:
            file.write(bytes(BALLAST))
    log, machine = make(folder)
    await log.start()
    await leading(log)
    acked: list[bytes] = []
    while log.failure is None:
        word = b"%06d " % len(acked) * 150
        try:
            await log.propose(word)
        except LogError:
            break
        acked.append(word)
    await log.failed.wait()
    first = log.failure
    await log.stop()
    refusals: list[str] = []
    before = free(folder)
    for _ in range(3):
        try:
            await log.start()
        except DiskError as error:
            refusals.append(str(error))
    after = free(folder)
    leftovers = [name for _, _, names in os.walk(folder) for name in names if name.endswith(".tmp")]
    for number in range(BALLAST_PIECES):
        os.unlink(f"{folder}/ballast{number}")
    await log.start()
    await leading(log)
    held = machine.values()
    assert held[: len(acked)] == acked, "something acknowledged is lost"
    assert len(held) <= len(acked) + 1
    await log.propose(b"after")
    await log.stop()
    again, second = make(folder)
    await again.start()
    await leading(again)
    assert second.values() == [*held, b"after"]
    await again.stop()
    return {
        "acked": len(acked),
        "failure": first,
        "refusals": refusals,
        "kept_free": after - before,
        "leftovers": leftovers,
    }


def main(folder: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "full", folder], check=True)
    print(json.dumps(asyncio.run(fill(folder))))


if __name__ == "__main__":
    main(sys.argv[1])
