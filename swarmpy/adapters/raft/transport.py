"""Connections between members: one outgoing channel to each, and whatever the others opened to us.

What belongs here: dialling with backoff, reading, sending in order, identity. What does not: what the
messages mean (core.py) and when they may leave (node.py).

A peer is a seat (model.ids): the hello names the caller's seat, whose node must be the one that the
certificate names (`channel.peer.node_id`); bodies carry no name. We send on our own
channel, or on the peer's while ours is not open (a joining member learns addresses only from the log). A
connection is up while any channel is; when one breaks, what waited to be sent on it is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from swarmpy.adapters.raft.messages import check
from swarmpy.adapters.raft.settings import RaftSettings
from swarmpy.model.ids import node_of
from swarmpy.ports import Body, Channel, Entropy, RefusedError, Wire, WireError

logger = logging.getLogger(__name__)

METHOD = "raft"
_MAX_QUEUE = 512


class Listener(Protocol):
    """Who is told. `message` may wait: the channel is read no further until it returns."""

    async def message(self, peer: str, body: dict[str, Any]) -> None:
        """A well-formed message arrived."""

    def up(self, peer: str) -> None:
        """The first channel to or from the peer opened."""

    def down(self, peer: str) -> None:
        """The last one closed."""


@dataclass(slots=True)
class _Link:
    """Everything about one peer."""

    address: str = ""
    mine: Channel | None = None
    theirs: Channel | None = None
    dialler: asyncio.Task[None] | None = None
    sender: asyncio.Task[None] | None = None
    queue: deque[Mapping[str, Any]] = field(default_factory=deque)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def channel(self) -> Channel | None:
        """The channel to send on."""
        return self.mine or self.theirs


class Transport:
    """The members' connections over a Wire."""

    def __init__(
        self, self_id: str, wire: Wire, entropy: Entropy, settings: RaftSettings, to: Listener
    ) -> None:
        self._self_id = self_id
        self._wire = wire
        self._entropy = entropy
        self._settings = settings
        self._to = to
        self._links: dict[str, _Link] = {}
        self._open = False
        self._serving: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Accept channels from now on."""
        self._open = True
        self._wire.on_channel(METHOD, self._serve)

    async def stop(self) -> None:
        """Close everything."""
        self._open = False
        tasks = list(self._serving)
        for peer in sorted(self._links):
            link = self._links[peer]
            tasks += [task for task in (link.dialler, link.sender) if task is not None]
            for channel in (link.mine, link.theirs):
                if channel is not None:
                    await _close(channel)
        self._links.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def set_members(self, addresses: Mapping[str, str]) -> None:
        """Dial these members and no others; channels that others opened stay."""
        for peer in sorted(addresses):
            link = self._link(peer)
            if link.address != addresses[peer]:
                link.address = addresses[peer]
                self._stop_dialling(link)
            if link.dialler is None:
                link.dialler = asyncio.create_task(self._dial(peer, link))
        for peer, link in list(self._links.items()):
            if peer not in addresses and link.dialler is not None:
                self._stop_dialling(link)

    def send(self, peer: str, body: Mapping[str, Any]) -> None:
        """Queue a message; it is dropped when there is no connection."""
        link = self._links.get(peer)
        if link is None or link.channel() is None:
            return
        if len(link.queue) >= _MAX_QUEUE:
            logger.warning("%s takes nothing any more; breaking the connection", peer)
            self.drop(peer)
            return
        link.queue.append(body)
        link.more.set()

    def drop(self, peer: str) -> None:
        """Break the connection to this peer (it will be dialled again when it is a member)."""
        link = self._links.get(peer)
        if link is not None:
            for channel in (link.mine, link.theirs):
                if channel is not None:
                    self._spawn(_close(channel))

    # -------------------------------------------------- inside

    def _link(self, peer: str) -> _Link:
        link = self._links.get(peer)
        if link is None:
            link = self._links[peer] = _Link()
            link.sender = asyncio.create_task(self._send(link))
        return link

    def _stop_dialling(self, link: _Link) -> None:
        if link.dialler is not None:
            link.dialler.cancel()
            link.dialler = None

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _dial(self, peer: str, link: _Link) -> None:
        """Keep our channel to the peer open. Backoff doubles, with jitter, and starts anew on success."""
        pause = self._settings.dial_min
        while True:
            try:
                channel = await self._wire.open(
                    link.address,
                    METHOD,
                    {"from": self._self_id, "to": peer},
                    timeout=self._settings.dial_timeout,
                )
            except (WireError, RefusedError) as error:
                logger.debug("%s at %s cannot be reached: %s", peer, link.address, error)
            else:
                if channel.peer.node_id == node_of(peer):
                    pause = self._settings.dial_min
                    await self._use(peer, link, channel, mine=True)
                else:
                    logger.warning("%s answers where %s should", channel.peer.node_id, peer)
                    await _close(channel)
            await asyncio.sleep(pause * self._entropy.uniform(0.5, 1.5))
            pause = min(2 * pause, self._settings.dial_max)

    async def _serve(self, channel: Channel, hello: Body) -> None:
        """A channel that another manager opened. It speaks for its own node, and means this seat."""
        peer = str(hello.get("from", ""))
        meant = hello.get("to") == self._self_id and node_of(peer) == channel.peer.node_id
        if not self._open or not peer or peer == self._self_id or not meant:
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._use(peer, self._link(peer), channel, mine=False)
        finally:
            self._serving.discard(task)

    async def _use(self, peer: str, link: _Link, channel: Channel, *, mine: bool) -> None:
        """Read a channel until it breaks."""
        first = link.channel() is None
        replaced = link.mine if mine else link.theirs
        if mine:
            link.mine = channel
        else:
            link.theirs = channel
        if replaced is not None:
            await _close(replaced)
        if first:
            self._to.up(peer)
        try:
            while True:
                message = check(await channel.recv())
                if message is None:
                    logger.warning("%s sent a malformed message; breaking the connection", peer)
                    return
                await self._to.message(peer, message)
        except WireError as error:
            logger.debug("the connection to %s broke: %s", peer, error)
        finally:
            self._unuse(peer, link, channel)
            await _close(channel)

    def _unuse(self, peer: str, link: _Link, channel: Channel) -> None:
        if link.channel() is channel:
            link.queue.clear()
        if link.mine is channel:
            link.mine = None
        elif link.theirs is channel:
            link.theirs = None
        else:
            return
        if link.channel() is None and self._open:
            self._to.down(peer)

    async def _send(self, link: _Link) -> None:
        """Send what is queued, in order. A channel that does not take it is closed; its reader cleans."""
        while True:
            await link.more.wait()
            link.more.clear()
            while link.queue:
                channel = link.channel()
                body = link.queue.popleft()
                if channel is None:
                    continue
                try:
                    await channel.send(body)
                except WireError:
                    await _close(channel)


async def _close(channel: Channel) -> None:
    """Close; a channel that cannot even be closed is broken, which is what was wanted."""
    try:
        await channel.close()
    except WireError as error:
        logger.debug("closing a broken channel: %s", error)
