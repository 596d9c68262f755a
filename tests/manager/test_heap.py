"""What lives is set aside when there are many sessions, and not before or too often."""

from __future__ import annotations

import gc
import weakref

from swarmpy.manager.heap import MANY, Heap


def test_it_is_set_aside_as_sessions_grow_by_a_quarter_and_given_back() -> None:
    heap = Heap()
    before = gc.get_freeze_count()
    try:
        assert not heap.settle(MANY - 1)
        assert gc.get_freeze_count() == before
        assert heap.settle(MANY)
        assert gc.get_freeze_count() > before
        assert not heap.settle(MANY)
        assert not heap.settle(MANY * 5 // 4 - 1)
        assert heap.settle(MANY * 5 // 4)
        assert not heap.settle(10)
    finally:
        heap.release()
    assert gc.get_freeze_count() == 0
    assert heap.settle(MANY)
    heap.release()


def test_garbage_that_was_set_aside_is_freed_the_next_time() -> None:
    class Thing:
        me: object = None

    heap, gone = Heap(), []
    thing = Thing()
    thing.me = thing
    weakref.finalize(thing, gone.append, 1)
    try:
        heap.settle(MANY)
        del thing
        gc.collect()
        assert gone == []
        heap.settle(2 * MANY)
        assert gone == [1]
    finally:
        heap.release()
