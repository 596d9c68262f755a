"""The immutable world: apply, indexes, images."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmpy.model import codec
from swarmpy.model.codec import CodecError
from swarmpy.model.lifecycle import TaskState
from swarmpy.model.objects import Cluster, Node, Service, Task, TaskStatus
from swarmpy.state.changes import Batch, Delete, Put, Request
from swarmpy.state.image import MARK, MOST, ImagePart, load, pieces, save
from swarmpy.state.invariants import check
from swarmpy.state.snapshot import REQUESTS_KEPT, Snapshot, apply

IDS = st.sampled_from([f"id{number}" for number in range(6)])


@st.composite
def objects(draw):
    key = draw(IDS)
    kind = draw(st.sampled_from(["node", "service", "task", "task", "task", "cluster"]))
    if kind == "cluster":
        return Cluster(id="c", worker_token=key)
    if kind == "node":
        return Node(id=f"n-{key}")
    if kind == "service":
        # One name per id, as admission sees to.
        return Service(id=f"s-{key}", spec="{}", name=f"{draw(st.sampled_from(['web', 'WEB', 'db']))}-{key}")
    # A task's service, slot and node are fixed; its node is set once.
    assigned = draw(st.booleans())
    state = draw(st.sampled_from([TaskState.ASSIGNED, TaskState.RUNNING, TaskState.FAILED])) if assigned else (
        draw(st.sampled_from([TaskState.NEW, TaskState.PENDING]))
    )  # fmt: skip
    return Task(
        id=f"t-{key}", service_id=f"s-{key[:2]}{int(key[2:]) // 2}", service_name="web", slot=1,
        node_id=f"n-{key}" if assigned else "", status=TaskStatus(state=state),
    )  # fmt: skip


CHANGES = st.lists(st.one_of(
    st.builds(Put, objects()),
    st.builds(lambda kind, key: Delete(kind, f"{kind[0]}-{key}"), st.sampled_from(["node", "service", "task"]), IDS),
), max_size=12)  # fmt: skip
BATCHES = st.lists(CHANGES, max_size=8)


def run(batches, world=None):
    world = world or Snapshot()
    for place, changes in enumerate(batches):
        batch = Batch(based_on=world.version, at=1000 + place, changes=tuple(changes))
        world, accepted = apply(world, batch, world.version + 2)
        assert accepted
    return world


@settings(max_examples=150, deadline=None)
@given(BATCHES)
def test_apply_is_deterministic_and_images_round_trip(batches):
    world = run(batches)
    assert save(run(batches)) == save(world)
    again = load(save(world))
    assert again == world
    assert save(again) == save(world)


@settings(max_examples=150, deadline=None)
@given(BATCHES, CHANGES)
def test_indexes_equal_their_recomputation_and_nothing_old_changes(batches, more):
    world = run(batches)
    image = save(world)
    after = run([more], world)
    assert save(world) == image
    for one in (world, after):
        assert [violation for violation in check(one) if violation.name == "indexes"] == []
        fresh = load(save(one))
        for index in ("_by_service", "_by_node", "_unplaced", "_names"):
            assert getattr(one, index) == getattr(fresh, index)


@settings(max_examples=100, deadline=None)
@given(BATCHES, CHANGES)
def test_a_draft_differs_from_the_commit_only_in_its_version(batches, more):
    world = run(batches)
    draft = world.evolve(more, at=5000)
    assert draft.version == world.version
    committed = world.evolve(more, world.version + 1, 5000)
    assert set(draft.tasks.rows) == set(committed.tasks.rows)
    assert list(draft.services) == list(committed.services)


def test_a_batch_for_another_world_changes_nothing():
    world = run([[Put(Node(id="n"))]])
    stale = Batch(based_on=world.version - 1, at=9999, changes=(Delete("node", "n"),))
    assert apply(world, stale, 50) == (world, False)


def test_versions_and_times():
    world = run([[Put(Node(id="n"))], [Put(Node(id="n", manager_address="a:1"))]])
    node = world.nodes["n"]
    assert (node.version, node.created_at, node.updated_at) == (4, 1000, 1001)
    back = Batch(based_on=world.version, at=5, changes=(Put(Node(id="m")),))
    after, _ = apply(world, back, 9)
    assert after.at == 1001


def test_what_did_not_change_is_shared():
    first = Task(id="a", service_id="s", service_name="web", node_id="n")
    other = Task(id="b", service_id="r", service_name="db", node_id="m")
    world = run([[Put(first), Put(other)]])
    after = run([[Put(first)]], world)
    assert after.bucket("r") is world.bucket("r")
    assert after.bucket("s") is not world.bucket("s")
    assert after.bucket_on("m") is world.bucket_on("m")
    assert after.nodes is world.nodes


def test_names_ignore_case_and_are_free_after_removal():
    world = run([[Put(Service(id="s", name="Web", spec="{}"))]])
    assert world.service_named("wEB").id == "s"
    assert run([[Delete("service", "s")]], world).service_named("web") is None
    renamed = run([[Put(Service(id="s", name="shop", spec="{}"))]], world)
    assert renamed.service_named("web") is None
    taken = run([[Delete("service", "s"), Put(Service(id="t", name="web", spec="{}"))]], world)
    assert taken.service_named("web").id == "t"


def test_requests_are_remembered_up_to_a_bound():
    world = Snapshot()
    for start in range(0, REQUESTS_KEPT + 20, 1000):
        requests = tuple(Request(f"r{number}", "x", 1) for number in range(start, start + 1000))
        world, _ = apply(world, Batch(based_on=world.version, at=1, changes=(), requests=requests), start + 1)
    assert len(world.requests) == REQUESTS_KEPT
    assert "r0" not in world.requests
    assert load(save(world)).requests == world.requests


def test_iteration_is_by_id():
    world = run([[Put(Node(id="b")), Put(Node(id="a"))]])
    assert [node.id for node in world.nodes] == ["a", "b"]
    assert "a" in world.nodes
    assert len(world.nodes) == 2
    assert world.object("node", "a") == world.nodes["a"]
    assert world.object("cluster", "c") is None


def test_a_wrong_image_is_refused_with_the_path():
    with pytest.raises(CodecError, match="Image"):
        load(b"\x81\xa7version\xa1x")


def test_an_image_goes_in_parts_that_are_each_coded_soon():
    """While the codec works nothing else of the process runs: no call has more than so many objects."""
    puts = [
        Put(Task(id=f"t{number:04}", service_id="s", service_name="web")) for number in range(2 * MOST + 1)
    ]
    world = run([[Put(Cluster(id="c")), *puts]])
    image = save(world)
    parts = [codec.decode(ImagePart, piece) for piece in pieces(memoryview(image))]
    assert [len(part.tasks) for part in parts] == [0, MOST, MOST, 1]
    assert load(image) == world


def test_an_image_of_one_piece_from_before_is_read():
    world = run([[Put(Cluster(id="c")), Put(Node(id="n")), Put(Service(id="s", name="web", spec="{}"))]])
    whole = ImagePart(version=world.version, at=world.at, cluster=world.cluster, nodes=tuple(world.nodes),
                      services=tuple(world.services))  # fmt: skip
    assert load(codec.encode(whole)) == world


def test_an_image_that_is_cut_short_is_refused():
    image = bytes(save(run([[Put(Cluster(id="c")), Put(Node(id="n"))]])))
    ends = [at for at in range(len(image)) if not raises(image[:at])]
    first = len(MARK) + 4 + int.from_bytes(image[4:8], "big")
    assert ends == [first], "only a part less is an image, too: whoever keeps images keeps their lengths"


def raises(image: bytes) -> bool:
    try:
        load(image)
    except CodecError:
        return True
    return False
