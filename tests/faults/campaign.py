"""Playing cases one after the other, and judging the cluster after each.

What belongs here: the order of things, and what is owed after every case. What does not: the cases, the table.
"""

from __future__ import annotations

import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec

from swarmpy.lab import nodes
from swarmpy.lab.errors import LabError
from tests.e2e.cluster import until
from tests.e2e.traffic import answered, traffic
from tests.faults.cases import CASES, Case
from tests.faults.field import LONGEST, PORT, Containers, Field

PATIENCE = 4.4
"""Seconds: a node that the cluster does not hear of for longer counts as lost (4.5 s with the default heartbeat), and
then its replicas run elsewhere. On a machine with too much to do a daemon takes as long to start; containers are not
judged then, and the outcome says so (`late`)."""
RATE = 20.0
"""Requests a second to the published port, meanwhile."""


class Outcome(msgspec.Struct, kw_only=True):
    """What came of one case. `figures` in seconds."""

    case: str
    family: str
    seconds: float
    problems: list[str]
    figures: dict[str, float] = {}
    counts: dict[str, int] = {}
    acked: int = 0
    reads: int = 0
    restarts: int | None = None
    """Containers that were restarted, removed or made, where none may be."""
    requests: int = 0
    failed: int = 0
    late: bool = False
    """A daemon was away for so long that its node counted as lost (PATIENCE)."""


def deck(chance: random.Random, only: Sequence[str]) -> list[Case]:
    """One round: the chosen cases as often as they weigh, shuffled."""
    chosen = [one for one in CASES.values() if any(word in one.name or word in one.family for word in only)]
    cards = [one for one in chosen for _ in range(one.weight)]
    chance.shuffle(cards)
    return cards


def lacks(case: Case) -> str:
    """What this machine misses for the case, as a sentence; "" for nothing."""
    missing = [name for name in case.needs if shutil.which(name) is None]
    return f"{' '.join(missing)} is not installed: apt-get install {' '.join(missing)}" if missing else ""


def play(case: Case, field: Field) -> Outcome:
    """Play one case on a whole cluster, and judge."""
    field.begin()
    field.recorder.forget()
    began, reads = time.monotonic(), field.recorder.reads()
    problems: list[str] = []
    before = field.containers() if case.keeps else {}
    restarts, load = None, None
    try:
        with traffic(field.cluster, *targets(field), rate=RATE) if case.keeps else nullcontext() as load:
            case.play(field)
            field.figures["whole again"] = field.await_whole()
        if case.keeps:
            restarts = None if field.away > PATIENCE else differences(before, field.containers())
            if restarts:
                problems.append(f"{restarts} containers were restarted, removed or made")
    except Exception as error:  # whatever it is, it is what came of the case
        problems.append(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        rescue(field)
    problems += field.problems + field.recorder.problems()
    result = load.result if load is not None else {}
    if result.get("failed"):
        problems.append(f"{result['failed']} requests failed: {result['failures'][:3]}")
    return Outcome(
        case=case.name, family=case.family, seconds=time.monotonic() - began, problems=problems,
        figures=dict(field.figures), counts=dict(field.counts), acked=field.recorder.acked(),
        reads=field.recorder.reads() - reads, restarts=restarts, requests=result.get("sent", 0),
        failed=result.get("failed", 0), late=case.keeps and field.away > PATIENCE,
    )  # fmt: skip


def targets(field: Field) -> list[str]:
    """The published port on every node."""
    return [f"{field.lab.node(name).address}:{PORT}" for name in field.members]


def differences(before: Containers, after: Containers) -> int:
    """How many containers are not what they were."""
    return sum(len(set(before[name].items()) ^ set(after[name].items())) for name in before)


def rescue(field: Field) -> None:
    """After a case that broke off: mend what it left broken."""
    for name in field.members:
        try:
            node = field.lab.node(name)
            if (
                nodes.init_of(field.lab, node) is not None
                and nodes.program(field.lab, node, "daemon") is not None
            ):
                field.thaw(name)
        except LabError:
            continue
    field.heal()
    field.cluster.power()
    until(field.whole, 2 * LONGEST, "the cluster is whole again")


def campaign(
    field: Field,
    chance: random.Random,
    *,
    budget: float,
    only: Sequence[str],
    logs: Path,
    tell: Callable[[str], None],
) -> Iterator[Outcome]:
    """Rounds of cases until the budget (seconds) is spent."""
    begin(field)
    end = time.monotonic() + budget
    while True:
        for case in deck(chance, only):
            if time.monotonic() > end:
                return
            outcome = play(case, field)
            tell(describe(outcome))
            if outcome.problems:
                keep_logs(field, logs / f"{case.name}-{time.strftime('%H%M%S')}")
            yield outcome


def begin(field: Field) -> None:
    """Make the services that cases watch, and see them served."""
    field.prepare()
    for target in targets(field):
        answered(field.cluster, "c1", target)


def describe(outcome: Outcome) -> str:
    """One line for the log."""
    figures = ", ".join(f"{what} {seconds:.2f} s" for what, seconds in outcome.figures.items())
    line = f"{outcome.case}: {figures}; {outcome.acked} writes, {outcome.reads} reads"
    if outcome.requests:
        line += f", {outcome.requests} requests"
    line += "; a daemon was away for too long to judge containers" * outcome.late
    return line + "".join(f"\n    PROBLEM {text}" for text in outcome.problems)


def keep_logs(field: Field, folder: Path) -> None:
    """The daemons' logs, for whoever looks for the cause."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in field.members:
        log = nodes.log_of(field.lab, field.lab.node(name), "daemon")
        if log.exists():
            shutil.copy(log, folder / f"{name}.log")
    print(f"    the daemons' logs are in {folder}", file=sys.stderr, flush=True)


def named(outcomes: Sequence[Outcome]) -> list[str]:
    """All problems, each with its case."""
    return [f"{one.case}: {text}" for one in outcomes for text in one.problems]
