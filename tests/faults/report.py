"""The table of a campaign, and its place in docs/reference/reliability.md.

What belongs here: arithmetic and words. What does not: playing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tests.faults.campaign import Outcome

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/reliability.md"
BEGIN = "<!-- written by `python -m tests.faults --write`: begin -->"
END = "<!-- end -->"
FAILOVER, ELSEWHERE, DAEMONS = "next write", "replicas elsewhere", "daemons killed"
FAILOVERS = ("daemon-leader", "daemon-leader-and-workers", "node-leader")
LOSSES = ("node-leader", "node-follower", "node-worker")


def load(path: Path) -> list[Outcome]:
    """Outcomes kept by earlier runs, a line each."""
    if not path.exists():
        return []
    return [msgspec.json.decode(line, type=Outcome) for line in path.read_bytes().splitlines()]


def keep(path: Path, outcome: Outcome) -> None:
    """Append one."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(outcome) + b"\n")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]


def spread(values: Sequence[float]) -> str:
    """p50, p99 and the largest, in seconds."""
    return " / ".join(
        f"{one:.2f}" for one in (percentile(values, 0.5), percentile(values, 0.99), max(values))
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """The whole section, as Markdown."""
    by_case: dict[str, list[Outcome]] = {}
    for one in sorted(outcomes, key=lambda one: (one.family, one.case)):
        by_case.setdefault(one.case, []).append(one)
    lines = [
        "| Fault | Case | Times | Writes acknowledged | Reads | Next write (s) | Whole again (s) | Containers touched "
        "| Requests: sent | failed | Problems |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, all_of_it in by_case.items():
        kept = [one for one in all_of_it if one.restarts is not None]
        cells = [
            all_of_it[0].family,
            f"`{name}`",
            f"{len(all_of_it)}",
            f"{sum(one.acked for one in all_of_it):,}",
            f"{sum(one.reads for one in all_of_it):,}",
            _figures(all_of_it, FAILOVER),
            _figures(all_of_it, "whole again"),
            f"{sum(one.restarts or 0 for one in kept)}" if kept else "–",
            f"{sum(one.requests for one in all_of_it):,}" if kept else "–",
            f"{sum(one.failed for one in all_of_it):,}" if kept else "–",
            f"{sum(bool(one.problems) for one in all_of_it)}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_totals(outcomes), "", *_others(by_case.values())])


def _figures(outcomes: Iterable[Outcome], what: str) -> str:
    values = [one.figures[what] for one in outcomes if what in one.figures]
    return spread(values) if values else "–"


def _totals(outcomes: Sequence[Outcome]) -> list[str]:
    counts: dict[str, int] = {}
    for one in outcomes:
        for what, number in one.counts.items():
            counts[what] = counts.get(what, 0) + number
    kept = [one for one in outcomes if one.restarts is not None]
    killed = sum(one.counts.get(DAEMONS, 0) for one in kept)
    done = ", ".join(f"{what} {number}" for what, number in sorted(counts.items()))
    return [
        f"- In all {len(outcomes)} cases in {sum(one.seconds for one in outcomes) / 60:.0f} minutes, "
        f"{sum(bool(one.problems) for one in outcomes)} of them with a problem: {done}.",
        f"- {sum(one.acked for one in outcomes):,} acknowledged writes and "
        f"{sum(one.reads for one in outcomes):,} reads; contradictions are problems.",
        f"- {sum(one.restarts or 0 for one in kept)} containers touched by {killed} kills of daemons"
        f", that of {sum(one.late for one in outcomes)} cases not judged, since a daemon took longer to start than "
        f"a node may be away (and {sum(not one.counts.get(DAEMONS) for one in kept)} other cases that must not touch any).",
        *_combined(outcomes, FAILOVER, FAILOVERS, "Failover, {} kills of the leader's daemon or machine"),
        *_combined(outcomes, ELSEWHERE, LOSSES, "Replicas elsewhere, {} kills of a machine"),
    ]


def _combined(outcomes: Sequence[Outcome], what: str, cases: Sequence[str], words: str) -> list[str]:
    """One line for a figure over several cases."""
    values = [one.figures[what] for one in outcomes if one.case in cases and what in one.figures]
    return [f"- {words.format(len(values))}: {spread(values)} s."] if values else []


def _others(groups: Iterable[Sequence[Outcome]]) -> list[str]:
    """Figures beside the usual two."""
    lines = [
        f"- `{group[0].case}`, {what}: {_figures(group, what)} s"
        for group in groups
        for what in sorted({name for one in group for name in one.figures} - {FAILOVER, "whole again"})
    ]
    return ["Also measured (p50 / p99 / max):", "", *lines] if lines else []


def write(text: str, page: Path = PAGE) -> None:
    """Replace the page's measured section. Raises ValueError where its marks are missing."""
    old = page.read_text()
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no section between {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text.rstrip()}\n{END}{after}")
