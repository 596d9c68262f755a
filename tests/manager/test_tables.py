"""The leader's memory of what agents were told: whose kernel may still hold what has left traffic."""

from __future__ import annotations

from swarmpy.manager.leaving import Leaving
from swarmpy.manager.tables import Tables, Told
from swarmpy.model.lifecycle import TaskState
from swarmpy.plan import leaving
from swarmpy.sim.clock import SimClock
from tests.plan.worlds import Stage, node, spec


class Scene:
    """Two nodes in the routing mesh; a published service runs on one of them, and the other knows of it."""

    def __init__(self) -> None:
        self.stage = Stage(node("w1"), node("w2"))
        self.ingress = self.stage.ingress()
        self.service = self.stage.create(
            spec("web", 1, EndpointSpec={"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]})
        )
        self.stage.agents()
        (self.task,) = self.stage.running(self.service)
        self.other = next(f"node-{one}" for one in ("w1", "w2") if f"node-{one}" != self.task.node_id)
        self.now = 100.0
        self.tables, self.told, self.seq = Tables(), Told(since=self.now), 0
        self.leaving = Leaving(SimClock(lambda: self.now), lambda: [(self.other, self.told)], list)

    def tell(self, *, full: bool = False) -> bool:
        """The other node hears what is new to it; whether anything is."""
        message = self.told.news(self.tables, self.stage.world, self.other, self.seq + 1, full=full)
        self.seq += message is not None
        return message is not None

    def told_all(self) -> None:
        assert self.tell(full=True)
        self.told.applied(self.seq)

    def remove(self) -> None:
        """The only published service goes: nobody is in the routing mesh any more but who has its task."""
        self.stage.remove(self.service)
        self.task = self.stage.world.tasks[self.task.id]
        assert self.task.desired > TaskState.RUNNING

    def waits(self) -> bool:
        """Whether the task's stop waits for anybody's answer."""
        return self.leaving.wait(self.stage.world, self.task, TaskState.RUNNING) > leaving.DRAIN


def test_a_node_that_is_to_drop_the_network_is_waited_for_until_it_has() -> None:
    """It no longer was told of the network, but its mesh still held the task."""
    scene = Scene()
    scene.told_all()
    assert scene.ingress in scene.told.tables
    scene.remove()
    assert scene.waits(), "it has not been told yet"
    assert scene.tell()
    assert scene.ingress not in scene.told.tables
    assert scene.waits(), "it was told, and has not answered"
    scene.told.applied(scene.seq)
    assert not scene.waits()


def test_what_a_new_session_left_in_the_kernel_is_not_known_before_its_first_answer() -> None:
    scene = Scene()
    scene.remove()
    assert scene.waits(), "it was told nothing"
    assert scene.tell(full=True)
    assert scene.told.tables == {}
    assert scene.waits(), "it has not taken away what an earlier session left there"
    scene.told.applied(scene.seq)
    assert not scene.waits()


def test_later_news_of_other_networks_do_not_make_up_for_an_answer() -> None:
    scene = Scene()
    scene.told_all()
    scene.remove()
    assert scene.tell()
    first = scene.seq
    again = spec("again", 2, EndpointSpec={"Ports": [{"TargetPort": 80, "PublishedPort": 8081}]})
    scene.stage.create(again)
    assert scene.tell(), "the network is back, with other tasks"
    assert scene.waits()
    scene.told.applied(first)
    assert not scene.waits(), "what came later has nothing to do with it"


def test_who_never_had_the_network_is_not_waited_for() -> None:
    scene = Scene()
    mine = frozenset({"another"})
    scene.told_all()
    scene.remove()
    assert scene.tell()
    assert not scene.told.may_hold(scene.now, mine, scene.task.version)
    assert scene.told.may_hold(scene.now, frozenset({scene.ingress}), scene.task.version)
    assert not scene.told.may_hold(scene.now, frozenset({scene.ingress}), 1), "it is beyond that"


def test_who_never_answers_delays_those_only_who_share_a_network_with_it() -> None:
    """Its kernel refuses something, say: all of the cluster's stops must not wait for it every time."""
    scene = Scene()
    assert scene.tell(full=True)
    scene.remove()
    theirs = frozenset({"another"})
    assert scene.told.may_hold(scene.now, theirs, scene.task.version), "it has just come"
    scene.now += leaving.PATIENCE
    assert not scene.told.may_hold(scene.now, theirs, scene.task.version)
    assert scene.told.may_hold(scene.now, frozenset({scene.ingress}), scene.task.version)
