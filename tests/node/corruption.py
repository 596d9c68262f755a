"""Damage to anything that a manager keeps on its disk is noticed: `python -m tests.node.corruption --count 2000`.

Journal, snapshot, data key, identity, membership record, the agent's tasks and networks, each written by the code that
writes it. One file is damaged and all are read again: each must come back as it was, or not at all. The journal's last
write is left alone, and the journal is not cut: no file can tell that from a write that was never finished
(docs/reference/reliability.md).

What belongs here: damage and judging. What does not: how a node goes on (tests/node/test_broken_log.py, tests/faults).
"""

from __future__ import annotations

import argparse
import copy
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable

from swarmpy.adapters.raft.config import REGULAR
from swarmpy.adapters.raft.frames import CorruptError
from swarmpy.adapters.raft.journal import Journal
from swarmpy.adapters.raft.store import Store
from swarmpy.agent import journal as memory
from swarmpy.model.fabric import Endpoint, Table
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.messages import Assigned, Manager
from swarmpy.model.objects import TaskStatus
from swarmpy.node import record
from swarmpy.pki.ca import Authority
from swarmpy.pki.errors import PkiError
from swarmpy.pki.identity import NodeIdentity, make_key_and_csr
from swarmpy.pki.seal import DataKeys, Sealer
from swarmpy.sim.disk import Platter, SimDisk
from tests.raft.test_damage import KEY, with_snapshot

NOW = 1_700_000_000_000_000_000
PAGE = 512
NOTICED = (CorruptError, PkiError, ValueError, OSError)
NOTHING = (memory.Memory(), memory.KeptNetworks())
"""What the agent takes for forgotten: it is told again."""

Content = dict[str, object]
"""What each reader gave; an exception's sentence where it refused."""
Damage = Callable[[bytearray, random.Random, int], None]
"""To so many of the first bytes."""


def _bit(data: bytearray, chance: random.Random, end: int) -> None:
    data[chance.randrange(end)] ^= 1 << chance.randrange(8)


def _byte(data: bytearray, chance: random.Random, end: int) -> None:
    data[chance.randrange(end)] = chance.randrange(256)


def _zeros(data: bytearray, chance: random.Random, end: int) -> None:
    at = chance.randrange(end) // PAGE * PAGE
    stop = min(at + PAGE, end)
    data[at:stop] = bytes(stop - at)


def _noise(data: bytearray, chance: random.Random, end: int) -> None:
    at = chance.randrange(end)
    stop = min(at + chance.randint(1, 64), end)
    data[at:stop] = chance.randbytes(stop - at)


def _moved(data: bytearray, chance: random.Random, end: int) -> None:
    """One part in the place of another."""
    size = chance.randint(1, min(PAGE, end))
    source, target = chance.randrange(end - size + 1), chance.randrange(end - size + 1)
    data[target : target + size] = data[source : source + size]


def _cut(data: bytearray, chance: random.Random, end: int) -> None:
    del data[chance.randrange(end) :]


def _repeated(data: bytearray, chance: random.Random, end: int) -> None:
    at = chance.randrange(end)
    data[at:at] = data[at : at + chance.randint(1, PAGE)]


KINDS: dict[str, Damage] = {
    "bit": _bit, "byte": _byte, "zeroed page": _zeros, "noise": _noise, "moved": _moved, "cut": _cut,
    "repeated": _repeated,
}  # fmt: skip


class Disk:
    """A manager's, whole."""

    def __init__(self) -> None:
        written, _ = with_snapshot()
        self.platter = written.platter
        self.last_write = self._go_on(written.store())
        disk = SimDisk(self.platter)
        keys = DataKeys.create(disk)
        authority = Authority.create(NOW)
        key, csr = make_key_and_csr()
        certificate = authority.issue(csr, "m1", "manager", "c1", NOW)
        NodeIdentity(certificate, key, authority.cert_pem).save(disk, keys.sealer())
        record.save(disk, record.Record(
            node_id="m1", cluster_id="c1", listen="0.0.0.0:2377", advertise="192.0.2.1:2377",
            managers=(("m1", "192.0.2.1:2377"), ("m2", "192.0.2.2:2377")), logged=True,
        ))  # fmt: skip
        tasks = tuple(
            memory.Remembered(
                Assigned(id=f"t{n}", service_id="s1", service_name="web", slot=n, node_id="m1",
                         template='{"ContainerSpec":{"Image":"web:1"}}', endpoint="{}", desired=TaskState.RUNNING),
                TaskStatus(state=TaskState.RUNNING, at=NOW, message="started"),
            )
            for n in range(5)
        )  # fmt: skip
        memory.save(disk, memory.Memory(tasks=tasks, managers=(Manager("m2", "192.0.2.2:2377"),)))
        ends = tuple(
            Endpoint(id=f"t{n}", name=f"web.{n}", service_id="s1", node_id="m1", vtep="192.0.2.1",
                     mac=f"02:00:00:00:00:0{n}", addresses=(f"10.0.1.{n + 3}",), serving=True)
            for n in range(5)
        )  # fmt: skip
        table = Table(id="n1", name="front", vni=4097, mtu=1450, subnets=("10.0.1.0/24",),
                      gateways=("10.0.1.1/24",), endpoints=ends)  # fmt: skip
        memory.save_networks(disk, memory.KeptNetworks(tables={"n1": table}, probe_key=b"k" * 32))
        self.whole = read(self.platter)
        self.paths = sorted(self.platter.live)

    def _go_on(self, store: Store) -> dict[str, int]:
        """More writes behind the snapshot; where the last one begins in its file."""
        journal = Journal(store.open().image)
        sizes: dict[str, int] = {}
        for number in range(6):
            sizes = {path: len(file.data) for path, file in self.platter.live.items()}
            journal.add(REGULAR + b"more %d " % number * 60, journal[-1][1] + 1, 1)
            batch = journal.take()
            assert batch is not None
            store.write(batch)
        grown = [path for path, file in self.platter.live.items() if len(file.data) != sizes.get(path)]
        assert len(grown) == 1
        return {grown[0]: sizes.get(grown[0], 0)}

    def damaged(self, chance: random.Random) -> tuple[str, str, Platter]:
        """(file, kind of damage, the disk with it)."""
        while True:
            path, kind = chance.choice(self.paths), chance.choice(list(KINDS))
            journal = path.startswith("raft/journal/")
            other = copy.deepcopy(self.platter)
            data = other.live[path].data
            end = self.last_write.get(path, len(data))
            if (journal and kind == "cut") or not end:
                continue
            before = bytes(data)
            KINDS[kind](data, chance, end)
            if bytes(data) != before:
                return path, kind, other


def read(platter: Platter) -> Content:
    """Everything, by the code that reads it at a start."""
    disk = SimDisk(platter)
    readers: dict[str, Callable[[], object]] = {
        "log": lambda: _log(Store(disk, "raft", Sealer(KEY), "m1")),
        "key": lambda: DataKeys.load(disk),
        "identity": lambda: _checked(NodeIdentity.load(disk, DataKeys.load(disk).sealer())),
        "record": lambda: record.load(disk),
        "tasks": lambda: memory.load(disk),
        "networks": lambda: memory.load_networks(disk),
    }
    found: Content = {}
    for name, reader in readers.items():
        try:
            found[name] = reader()
        except NOTICED as error:
            found[name] = error
    return found


def _log(store: Store) -> object:
    opened = store.open()
    image = opened.image
    return image.term, image.vote, tuple(image.entries), store.read_blob()


def _checked(identity: NodeIdentity) -> NodeIdentity:
    identity.check(NOW + 1)
    return identity


def outcome(whole: Content, found: Content) -> str:
    """`noticed`, `as it was` (the damage hit what counts for nothing), or what was served that should not."""
    noticed = False
    for name, content in whole.items():
        if isinstance(found[name], Exception) or (found[name] in NOTHING and content not in NOTHING):
            noticed = True
        elif found[name] != content:
            return f"SERVED: {name} is {found[name]!r:.300}"
    return "noticed" if noticed else "as it was"


def campaign(count: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """(outcomes by file and kind of outcome, what was served)."""
    chance, disk = random.Random(seed), Disk()
    counted, wrong = Counter[tuple[str, str]](), list[str]()
    for number in range(count):
        path, kind, other = disk.damaged(chance)
        what = outcome(disk.whole, read(other))
        if what.startswith("SERVED"):
            wrong.append(f"damage {number} ({kind} in {path}): {what}")
        counted[path, what.partition(":")[0]] += 1
    return counted, wrong


def main(argv: list[str]) -> int:
    """Play it; 0 if all damage was noticed or harmless."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.node.corruption", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    counted, wrong = campaign(args.count, args.seed)
    for (path, what), times in sorted(counted.items()):
        print(f"{path:<40} {what:<10} {times:>6}")
    print("\n".join(wrong[:20]) or f"{args.count} damages (seed {args.seed}), none served")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
