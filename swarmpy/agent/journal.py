"""What an agent remembers between restarts: its tasks with their last statuses, and the managers it knows.

One small file, replaced atomically. It is a memory, not a truth: where it is lost or damaged, containers are
adopted by their labels and the next full set of assignments tells the rest.
Registry credentials are never written to it.
"""

from __future__ import annotations

import logging

import msgspec

from swarmpy.model import codec
from swarmpy.model.messages import Assigned, Manager
from swarmpy.model.objects import TaskStatus
from swarmpy.ports import Disk

logger = logging.getLogger(__name__)

FOLDER = "agent"
FILE = "agent/tasks"


class Remembered(msgspec.Struct, frozen=True):
    """A task and how far it was known to have come."""

    assigned: Assigned
    status: TaskStatus


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The file's content."""

    tasks: tuple[Remembered, ...] = ()
    managers: tuple[Manager, ...] = ()


def load(disk: Disk) -> Memory:
    """What was kept; nothing where there is no file or it is damaged."""
    try:
        return codec.decode(Memory, disk.read(FILE))
    except FileNotFoundError:
        return Memory()
    except (codec.CodecError, OSError) as error:
        logger.warning("the agent's memory cannot be read (%s): containers are adopted by label", error)
        return Memory()


def save(disk: Disk, memory: Memory) -> None:
    """Keep it, durably. Raises OSError."""
    disk.mkdir(FOLDER)
    disk.replace(FILE, codec.encode(memory))
