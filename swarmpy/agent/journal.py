"""What an agent remembers between restarts: its tasks with their last statuses, and the managers it knows.

Small files, replaced atomically. It is a memory, not a truth: where it is lost or damaged, containers are
adopted by their labels and the next full set of assignments tells the rest.
Registry credentials and the secrets of encrypted networks are never written to it.
"""

from __future__ import annotations

import logging
import zlib

import msgspec
from msgspec.structs import replace

from swarmpy.model import codec
from swarmpy.model.fabric import Table
from swarmpy.model.messages import Assigned, Manager
from swarmpy.model.objects import TaskStatus
from swarmpy.ports import Disk

logger = logging.getLogger(__name__)

FOLDER = "agent"
FILE = "agent/tasks"
NETWORKS = "agent/networks"
_SUM = 4
"""Bytes of the checksum before the content."""


class Remembered(msgspec.Struct, frozen=True):
    """A task and how far it was known to have come."""

    assigned: Assigned
    status: TaskStatus


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content."""

    tasks: tuple[Remembered, ...] = ()
    managers: tuple[Manager, ...] = ()


class KeptNetworks(msgspec.Struct, frozen=True, kw_only=True):
    """The content of the networks' file: their last tables, so that names are answered and containers are
    connected while no manager is there, and names also while the agent is not."""

    tables: dict[str, Table] = {}
    probe_key: bytes = b""
    """So that a node that restarts while no manager is there still answers the others."""
    upstreams: dict[str, tuple[str, ...]] = {}
    """Name servers that guests asked for."""


def load_networks(disk: Disk) -> KeptNetworks:
    """What was kept; nothing where there is no file or it is damaged: the leader sends it again."""
    try:
        return codec.decode(KeptNetworks, _checked(disk.read(NETWORKS)))
    except FileNotFoundError:
        return KeptNetworks()
    except (codec.CodecError, OSError) as error:
        logger.warning("the agent's networks cannot be read (%s): the leader sends them again", error)
        return KeptNetworks()


def save_networks(disk: Disk, kept: KeptNetworks) -> None:
    """Keep them, durably, but for the secrets of encrypted networks: the kernel has what it made of these
    until the machine goes down, and after that a manager has to tell them again. Raises OSError."""
    tables = {key: replace(table, keys=(), sending=0) for key, table in kept.tables.items()}
    disk.mkdir(FOLDER)
    disk.replace(NETWORKS, _with_sum(codec.encode(replace(kept, tables=tables))))


def load(disk: Disk) -> Memory:
    """What was kept; nothing where there is no file or it is damaged."""
    try:
        return codec.decode(Memory, _checked(disk.read(FILE)))
    except FileNotFoundError:
        return Memory()
    except (codec.CodecError, OSError) as error:
        logger.warning("the agent's memory cannot be read (%s): containers are adopted by label", error)
        return Memory()


def save(disk: Disk, memory: Memory) -> None:
    """Keep it, durably. Raises OSError."""
    disk.mkdir(FOLDER)
    disk.replace(FILE, _with_sum(codec.encode(memory)))


def _with_sum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_SUM, "big") + data


def _checked(data: bytes) -> bytes:
    """What stands behind its own CRC-32. Raises CodecError: one bit may turn a state into another."""
    if _with_sum(data[_SUM:]) != data:
        raise codec.CodecError("its checksum does not match")
    return data[_SUM:]
