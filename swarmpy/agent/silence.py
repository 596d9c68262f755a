"""Silence: somebody who was asked says nothing, and that is worth knowing before he does.

What belongs here: noticing it while the question stays open. What does not: giving up on the answer (adapters
have their own limits), and what follows (whoever asked).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def noticed(seconds: float, tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` once if what is awaited inside takes longer than so many seconds."""
    handle = asyncio.get_running_loop().call_later(seconds, tell)
    try:
        yield
    finally:
        handle.cancel()
