"""The agent's end of its one session with the leader: finding the leader, beating, reporting, listening.

Statuses are kept until the leader acknowledged them, latest per task; a fresh session begins with all of
them, so nothing is lost with a leader. What does not belong here: what to do with assignments (worker.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from swarmpy.model import messages as m
from swarmpy.model.objects import Description, TaskStatus
from swarmpy.ports import Channel, Entropy, RefusedError, Wire, WireError

logger = logging.getLogger(__name__)

GATHER = 0.05
"""Seconds for which new statuses are gathered into one message."""
AT_MOST = 1000
"""Statuses in one message."""
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0
"""Seconds between attempts to find the leader; doubling, with jitter."""
SILENCE = 3.0
"""Beats without an answer after which the session is given up."""
DIAL = 2.0
"""Seconds for opening a session."""

GONE = frozenset({"NotFound", "revoked"})


class NodeRemovedError(Exception):
    """The cluster does not know this node any more."""


@asynccontextmanager
async def _ending(channel: Channel) -> AsyncGenerator[None, None]:
    """When this half of the session ends, all of it does: one that beats and does not report would lie."""
    try:
        with suppress(WireError):
            yield
    finally:
        await channel.close()


class Session:
    """See the file's charter. `on_message` hears what the leader says; `all_statuses` is asked when a
    session begins."""

    def __init__(
        self,
        node_id: str,
        wire: Wire,
        entropy: Entropy,
        managers: list[tuple[str, str]],
        address: str,
        describe: Callable[[], Description],
        on_message: Callable[[m.Down], None],
        all_statuses: Callable[[], list[tuple[str, TaskStatus]]],
    ) -> None:
        self._node_id, self._wire, self._entropy, self._address = node_id, wire, entropy, address
        self._describe, self._on_message, self._all_statuses = describe, on_message, all_statuses
        self.managers = managers
        self.connected = False
        self.lost: Callable[[], tuple[str, ...]] = tuple
        self._pending: dict[str, TaskStatus] = {}
        self._sent: dict[int, dict[str, TaskStatus]] = {}
        self._number = 0
        self._news = asyncio.Event()
        self._seq = 0
        self._applied = self._said = 0
        self._heard = 0.0
        self._beat = 1.0
        self._redescribe = False

    def report(self, task_id: str, status: TaskStatus) -> None:
        """A new status; replaces an older one that is not acknowledged yet."""
        self._pending[task_id] = status
        self._news.set()

    def applied(self, seq: int) -> None:
        """The kernel is as all tables up to this sequence number of the present session say."""
        if seq > self._applied:
            self._applied = seq
            self._news.set()

    def describe_again(self) -> None:
        """The node's description changed."""
        self._redescribe = True
        self._news.set()

    async def run(self) -> None:
        """Hold a session until cancelled. Raises NodeRemovedError."""
        pause = FIRST_PAUSE
        while True:
            for address in self._candidates():
                if await self._try(address):
                    pause = FIRST_PAUSE
                    break
            await asyncio.sleep(pause * self._entropy.uniform(0.5, 1.0))
            pause = min(2 * pause, LAST_PAUSE)

    def _candidates(self) -> list[str]:
        addresses = [address for _, address in self.managers if address]
        if len(addresses) > 1:
            shift = int(self._entropy.uniform(0, len(addresses)))
            addresses = addresses[shift:] + addresses[:shift]
        return addresses

    async def _try(self, address: str) -> bool:
        """A session with the manager at the address, or with the leader that it points to; whether there
        was one."""
        tried: set[str] = set()
        while address and address not in tried:
            tried.add(address)
            try:
                return await self._hold(address)
            except RefusedError as refused:
                self._check_gone(refused)
                if refused.code != "NotLeader":
                    logger.info("manager at %s refused the session: %s", address, refused.message)
                    return False
                address = str(refused.data.get("leader") or "")
            except WireError as error:
                logger.debug("no session with %s: %s", address, error)
                return False
        return False

    @staticmethod
    def _check_gone(refused: RefusedError) -> None:
        if refused.code in GONE or refused.data.get("reason") in GONE:
            raise NodeRemovedError(refused.message)

    async def _hold(self, address: str) -> bool:
        hello = m.Hello(node_id=self._node_id, description=self._describe(), address=self._address)
        channel = await self._wire.open(address, "session", m.to_body(hello), timeout=DIAL)
        loop = asyncio.get_running_loop()
        self._heard, self._seq, self._sent = loop.time(), 0, {}
        self._applied = self._said = 0
        helpers = [asyncio.ensure_future(self._beats(channel)), asyncio.ensure_future(self._reports(channel))]
        try:
            while True:
                message = m.down_from(await channel.recv())
                self._heard = loop.time()
                if not self._take(message):
                    return self.connected
        except RefusedError:
            raise
        except (WireError, ValueError) as error:
            logger.info("the session with %s ended: %s", address, error)
            return self.connected
        finally:
            self.connected = False
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await channel.close()

    def _take(self, message: m.Down) -> bool:
        """Take in one message; False ends the session."""
        match message:
            case m.Welcome():
                self.connected = True
                self._beat = message.beat_seconds
                self._pending = {**dict(self._all_statuses()), **self._pending}
                self._news.set()
                self._learn(message.managers)
            case m.Cluster():
                self._learn(message.managers)
            case m.Assignments() | m.Networks():
                if message.seq != self._seq + 1:
                    logger.warning("message %d came after %d: reconnecting", message.seq, self._seq)
                    return False
                self._seq = message.seq
            case m.Acknowledged():
                for key, status in self._sent.pop(message.number, {}).items():
                    if self._pending.get(key) == status:
                        del self._pending[key]
            case m.Goodbye() if message.removed:
                raise NodeRemovedError(message.reason)
            case m.Goodbye():
                return False
        self._on_message(message)
        return True

    def _learn(self, managers: tuple[m.Manager, ...]) -> None:
        if managers:
            self.managers = [(one.node_id, one.address) for one in managers]

    async def _beats(self, channel: Channel) -> None:
        loop = asyncio.get_running_loop()
        async with _ending(channel):
            while True:
                await asyncio.sleep(self._beat)
                if loop.time() - self._heard > SILENCE * self._beat:
                    logger.info("the leader is silent: looking for another")
                    break
                await channel.send(m.to_body(m.Beat(seq=self._seq, lost=self.lost())))

    async def _reports(self, channel: Channel) -> None:
        async with _ending(channel):
            while True:
                await self._news.wait()
                await self._send_applied(channel)
                await asyncio.sleep(GATHER)
                self._news.clear()
                if not self.connected:
                    continue
                await self._send_applied(channel)
                if self._redescribe:
                    self._redescribe = False
                    await channel.send(m.to_body(m.Describe(description=self._describe())))
                await self._send_statuses(channel)

    async def _send_applied(self, channel: Channel) -> None:
        """A task may wait for this answer before it stops: it is sent without gathering."""
        if self.connected and self._applied > self._said:
            self._said = self._applied
            await channel.send(m.to_body(m.Applied(seq=self._said)))

    async def _send_statuses(self, channel: Channel) -> None:
        under_way = {key: status for sent in self._sent.values() for key, status in sent.items()}
        fresh = [(key, status) for key, status in self._pending.items() if under_way.get(key) != status]
        for start in range(0, len(fresh), AT_MOST):
            items = tuple(fresh[start : start + AT_MOST])
            self._number += 1
            self._sent[self._number] = dict(items)
            await channel.send(m.to_body(m.Statuses(number=self._number, items=items)))
