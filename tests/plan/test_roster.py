"""Rosters, surveys and who is waiting, kept up to date task by task, against the same made anew."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Service, Task, TaskStatus
from swarmpy.plan.replicas import victims
from swarmpy.plan.roster import Roster
from swarmpy.plan.slots import slots_of
from swarmpy.plan.survey import Survey, surveyed
from swarmpy.plan.waiting import Waiting
from swarmpy.state.changes import Delete, Put
from swarmpy.state.snapshot import Snapshot

from .worlds import node, spec

NODES = ("node-a", "node-b", "node-c")
STATES = (
    TaskState.NEW, TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED, TaskState.SHUTDOWN,
)  # fmt: skip
DESIRED = (TaskState.READY, TaskState.RUNNING, TaskState.RUNNING, TaskState.SHUTDOWN, TaskState.REMOVE)


@st.composite
def tasks(draw, number=0):
    """One of twenty tasks, five slots for all of them."""
    number = draw(st.integers(0, 19))
    state = draw(st.sampled_from(STATES))
    return Task(
        id=f"t{number:02}", service_id="s", service_name="web", slot=1 + number % 5,
        node_id=draw(st.sampled_from(NODES)) if state >= TaskState.ASSIGNED else "",
        template=f'{{"ContainerSpec":{{"Image":"app:{1 + number % 2}"}}}}', spec_version=number % 2,
        desired=draw(st.sampled_from(DESIRED)), status=TaskStatus(state=state), state_since=draw(st.integers(1, 3)),
        created_at=1 + number, replaces=draw(st.sampled_from(["", "t00"])),
    )  # fmt: skip


STORIES = st.lists(st.one_of(
    st.builds(Put, tasks()), st.builds(lambda number: Delete("task", f"t{number:02}"), st.integers(0, 19)),
), max_size=60)  # fmt: skip


def told(story):
    """The world after each change, and the tasks that the change was about: as they were, as they are."""
    service = Service(id="s", name="web", spec=spec("web", 3, image="app:1"), spec_version=0)
    world = Snapshot().evolve(
        [Put(node(name.removeprefix("node-"))) for name in NODES] + [Put(service)], 1, 1
    )
    for change in story:
        before = world
        world = world.evolve([change], world.version + 1)
        yield world, (before.tasks.get(change.key[1]), world.tasks.get(change.key[1]))


def anew(world, usable):
    roster = Roster(usable)
    roster.revise((None, task) for task in world.tasks)
    return roster


def kept(roster):
    return {
        name: getattr(roster, name)
        for name in ("slots", "filled", "vacant", "broken", "preparing", "unwanted", "failed", "versions")
    }


@settings(max_examples=200, deadline=None)
@given(STORIES, st.sets(st.sampled_from(NODES)), st.integers(0, 60))
def test_a_revised_roster_is_one_made_anew(story, usable, begin):
    roster, survey = Roster(usable), Survey()
    for number, (world, pair) in enumerate(told(story)):
        places = roster.revise([pair])
        assert set(places) == {task.slot for task in pair if task is not None}
        fresh = anew(world, usable)
        assert kept(roster) == kept(fresh)
        service = world.services["s"]
        assert [slot for _, slot in sorted(roster.slots.items()) if slot.tasks] == slots_of(world, service)
        free = [next(one.free()) for one in (roster, fresh)]
        assert free[0] == free[1] == next(place for place in range(1, 99) if place not in roster.filled)
        # What is worked out only when somebody asks, and kept up from then on.
        if number == begin:
            roster.unsurveyed = set(roster.slots)
        if number >= begin:
            assert vars(roster.homes()) == vars(fresh.homes())
            survey.revise(world, service, ((place, roster.slots.get(place)) for place in roster.unsurveyed))
            roster.unsurveyed.clear()
            assert survey == surveyed(world, service, slots_of(world, service))


@settings(max_examples=200, deadline=None)
@given(STORIES, st.integers(0, 6))
def test_the_slots_given_up_are_the_last_in_swarms_order(story, count):
    roster = Roster(set(NODES))
    for _, pair in told(story):
        roster.revise([pair])
    # Ranked one by one: how many copies of the healthier ones are on its node already.
    slots = [roster.slots[place] for place in roster.filled]
    runs = {slot.place: any(task.status.state == TaskState.RUNNING for task in slot.live) for slot in slots}
    copies, ranked = {}, []
    for health, slot in enumerate(sorted(slots, key=lambda slot: (not runs[slot.place], slot.place))):
        home = slot.live[0].node_id if len(slot.live) == 1 else ""
        if home:
            copies[home] = copies.get(home, 0) + 1
        ranked.append((copies[home] if home else len(slots) + 1, health, slot.place))
    ranked.sort()
    assert victims(roster, count) == [place for _, _, place in ranked[max(0, len(ranked) - count) :]]


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_who_waits_is_who_has_no_node(story):
    waiting = Waiting()
    for world, pair in told(story):
        waiting.revise([pair], None)
        fresh = Waiting()
        fresh.begin(world.unplaced(), None)
        assert {group: crowd.tasks for group, crowd in waiting.crowds.items()} == {
            group: crowd.tasks for group, crowd in fresh.crowds.items()
        }
        assert {group: crowd.oldest for group, crowd in waiting.crowds.items()} == {
            group: crowd.oldest for group, crowd in fresh.crowds.items()
        }
        assert (waiting.kinds, waiting.given, waiting.lacking) == (fresh.kinds, fresh.given, fresh.lacking)
        assert waiting.active <= waiting.crowds.keys()


def test_a_place_whose_node_is_lost_is_broken_until_it_is_back():
    usable = {"node-a"}
    roster = Roster(usable)
    task = Task(id="t", service_id="s", service_name="web", slot=1, node_id="node-a",
                status=TaskStatus(state=TaskState.RUNNING))  # fmt: skip
    roster.revise([(None, task)])
    assert roster.broken == set()
    usable.clear()
    roster.restless.clear()
    roster.recheck(1)
    assert roster.broken == roster.restless == {1}
    roster.revise([(task, replace(task, desired=TaskState.SHUTDOWN))])
    assert roster.broken == set()
