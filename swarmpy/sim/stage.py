"""The stage: one simulated world, and the boxes (machines) on it.

What belongs here: building a world from a seed, starting and killing programs, ending the run at the first
violation. What does not: what the programs are (consensus.py, cluster.py), which faults there are (faults).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from swarmpy.ports import FabricPorts, Peer
from swarmpy.sim.clock import SimClock, SimEntropy
from swarmpy.sim.disk import Platter, SimDisk
from swarmpy.sim.dockerd import Dockerd
from swarmpy.sim.engine import SimEngine
from swarmpy.sim.kernel import MTU, Kernel
from swarmpy.sim.libnetwork import Libnetwork
from swarmpy.sim.loop import Killed, Process, SimLoop, SimStop
from swarmpy.sim.net import SimNet
from swarmpy.sim.sockets import SimSockets
from swarmpy.sim.trace import Trace
from swarmpy.sim.wire import STRANGER, SimWire

if TYPE_CHECKING:
    from swarmpy.sim.keeper import Keeper

PORT = 2377


class Violation(SimStop):
    """An invariant does not hold: `rule` is its name, the text a sentence."""

    def __init__(self, rule: str, sentence: str) -> None:
        super().__init__(f"{rule}: {sentence}")
        self.rule = rule
        self.sentence = sentence


Program = Callable[["Box"], Awaitable[None]]


class Box:
    """A machine: its disk, clock, Engine and kernel outlive the programs that run on it."""

    def __init__(self, stage: Stage, name: str, host: str, program: Program, kind: str) -> None:
        self.stage = stage
        self.name = name
        self.kind = kind
        self.host = host
        self.address = f"{host}:{PORT}"
        chance = stage.chance(f"box {name}")
        self.clock = SimClock(lambda: stage.loop.instant, skew=chance.randint(-(10**9), 10**9))
        self.platter = Platter(f"{stage.seed} disk {name}")
        self.dockerd = Dockerd(stage.loop, name, f"{stage.seed} engine {name}", self.clock, stage.trace)
        self.kernel = Kernel(stage.loop, name, f"{stage.seed} kernel {name}", stage.trace, host,
                             stage.unexpected)  # fmt: skip
        self.kernel.on_death = self._dies_programming
        Libnetwork(self.dockerd, self.kernel)
        self.me: Peer = STRANGER
        """What its wire says it is; kept across lives where the program does not set it."""
        self.stopped_at: float | None = None
        """When its program ended; None while one runs."""
        self.lives = 0
        self.process: Process | None = None
        self.broken = ""
        """Why its program refuses to start for good (damaged disk); "" while it does not."""
        self.program_state: dict[str, Any] = {}
        """What the present program shows of itself; empty when none runs."""
        self.crash_after: int | None = None
        """Power cut after so many more disk operations."""
        self.rotted = False
        """Whether its disk was damaged beyond what a disk promises."""
        self.wanted = True
        """Whether it is started again when its program ends."""
        self.enlisted = True
        """Whether it is part of the world that has to be whole again at the end."""
        self._program = program
        self._dark = False

    # ------------------------------------------------------------ what the program gets

    @property
    def running(self) -> bool:
        """Whether a program lives on it."""
        return self.process is not None and self.process.alive

    def leads(self) -> bool:
        """Whether its program says that it leads."""
        asked = self.program_state.get("leads")
        return self.running and asked is not None and bool(asked())

    def make_wire(self) -> SimWire:
        """The wire of the present life."""
        assert self.process is not None
        wire = SimWire(self.stage.net, self.host, self.process, self.me)
        self.program_state.setdefault("wires", []).append(wire)
        return wire

    def make_disk(self) -> SimDisk:
        """The disk of the present life."""
        return SimDisk(self.platter, self.process, trace=self.stage.trace, hook=self._disk_hook)

    def make_engine(self) -> SimEngine:
        """The Engine's client of the present life."""
        return SimEngine(self.dockerd, self.process)

    def make_sockets(self) -> SimSockets:
        """What can be seen of its containers' sockets."""
        return SimSockets(self.dockerd)

    def make_fabric(self) -> FabricPorts:
        """The ports of the network of the present life."""
        assert self.process is not None
        return self.kernel.ports(self.process)

    def make_entropy(self) -> SimEntropy:
        """Random numbers of the present life."""
        return SimEntropy(f"{self.stage.seed} entropy {self.name} {self.lives}")

    # ------------------------------------------------------------ life and death

    def start(self) -> None:
        """Power on, if need be, and start the program; a running one stays."""
        if self.running or self.broken:
            return
        if self._dark:
            self._dark = False
            self.stage.net.dark.discard(self.host)
        self.wanted = True
        self.lives += 1
        self.stopped_at = None
        self.process = Process(self.name, self.lives)
        self.program_state = {}
        self.stage.trace.emit(self.name, f"starts (life {self.lives})")
        self.stage.loop.spawn(self.process, self._main(self.process))

    async def _main(self, process: Process) -> None:
        reason = "ends"
        try:
            await self._program(self)
        except Exception as error:
            if self.stage.is_fatal(error):
                self.broken = str(error)
            elif not isinstance(error, self.stage.honest):
                self.stage.unexpected(self.name, error)
            reason = f"ends: {type(error).__name__}: {error}"
        if process.alive:
            self.kill(reason=reason)
            self.stage.net.later(0.5, self._restart, self.lives)

    def _restart(self, life: int) -> None:
        if self.wanted and self.lives == life:
            self.start()

    def kill(self, *, power: bool = False, reason: str = "") -> None:
        """End the program without a goodbye. `power`: the whole machine goes down, and with it whatever
        the disk did not sync."""
        stage, process = self.stage, self.process
        if self.stopped_at is None:
            self.stopped_at = stage.loop.instant
        if process is not None and process.alive:
            stage.trace.emit(self.name, reason or ("power cut" if power else "killed"))
            stage.loop.kill(process)
            self.kernel.process_gone()
            if power:
                stage.net.dark.add(self.host)
            for wire in self.program_state.get("wires", ()):
                wire.gone("the process died")
        self.program_state = {}
        if power:
            self._dark = True
            stage.net.dark.add(self.host)
            self.platter.power_cut()
            self.kernel.power_cut()
            self.dockerd.power_cut()

    def move(self, host: str) -> None:
        """It comes up with another address; it has to be down."""
        self.host, self.address = host, f"{host}:{PORT}"
        self.kernel.stack.underlay = {host: MTU}
        if self._dark:
            self.stage.net.dark.add(host)
        self.stage.trace.emit(self.name, f"has the address {host} from now on")

    def _dies_programming(self) -> None:
        self.wanted = True
        self.kill(reason="killed while it programs the network")
        self.stage.net.later(self.stage.faults.uniform(0.2, 2.0), self._restart, self.lives)

    def _disk_hook(self, what: str, path: str) -> None:
        if self.crash_after is None:
            return
        self.crash_after -= 1
        if self.crash_after > 0:
            return
        self.crash_after = None
        self.wanted = True
        self.kill(power=True, reason=f"power cut {what} of {path}")
        self.stage.net.later(self.stage.faults.uniform(0.2, 2.0), self._restart, self.lives)
        raise Killed


class Stage:
    """A world with one seed."""

    def __init__(self, seed: int | str, *, max_time: float = 600.0, sink: Callable[[str], None] | None = None,
                 keep: int = 60) -> None:  # fmt: skip
        self.seed = seed
        self.loop = SimLoop(max_time=max_time)
        self.trace = Trace(lambda: self.loop.instant, keep=keep, sink=sink)
        self.net = SimNet(self.loop, f"{seed} net", self.trace)
        self.faults = self.chance("faults")
        self.boxes: dict[str, Box] = {}
        self.moves = 0
        """How often a machine came up with another address."""
        self.keeper: Keeper | None = None
        """Who changes the membership, where there is one."""
        self.violation: Violation | None = None
        self.honest: tuple[type[Exception], ...] = (OSError,)
        """Errors with which a program may end: the world's fault, not its own."""
        self.is_fatal: Callable[[Exception], bool] = lambda error: False
        """Whether a program that ended so must not be started again."""

    def chance(self, label: str) -> random.Random:
        """Random numbers for one purpose: drawing more of them changes nothing elsewhere."""
        return random.Random(f"{self.seed} {label}")  # noqa: S311  a simulation must be repeatable

    def add(self, name: str, host: str, program: Program, kind: str = "manager") -> Box:
        """A new machine, not started."""
        box = self.boxes[name] = Box(self, name, host, program, kind)
        return box

    def of_kind(self, kind: str) -> list[Box]:
        """All boxes of a kind, in order."""
        return [box for box in self.boxes.values() if box.kind == kind]

    def heal(self) -> None:
        """End every misfortune: links, disks, clocks and Engines work, every machine runs."""
        self.net.heal_all()
        for box in self.boxes.values():
            box.crash_after = None
            box.platter.capacity, box.platter.failing_sync = None, 0
            box.platter.latency = Platter.QUICK
            box.kernel.heal()
            box.dockerd.heal()
            if box.process is not None and box.process.paused:
                self.loop.resume(box.process)
            if box.enlisted:
                box.start()

    def violate(self, rule: str, sentence: str) -> None:
        """An invariant is broken: the run ends after the present turn; the first one counts."""
        if self.violation is None:
            self.violation = Violation(rule, sentence)
            self.trace.emit("!!!", f"{rule}: {sentence}")
            self.loop.stop_with(self.violation)

    def unexpected(self, name: str, error: BaseException) -> None:
        """A program raised what honest programs do not raise."""
        self.loop.last_error = error
        self.violate("no-crash", f"{name} failed with {type(error).__name__}: {error}")

    @property
    def up(self) -> list[Box]:
        """Boxes whose program lives, in order."""
        return [box for box in self.boxes.values() if box.running]
