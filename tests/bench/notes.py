"""What a bench measured of several contenders, and the table of it.

What belongs here: samples and their medians. What does not: measuring.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

Figures = dict[str, dict[str, list[float]]]
"""By what was measured, then by who."""


class Notes:
    """What was measured so far."""

    def __init__(self) -> None:
        self.figures: Figures = {}

    def add(self, what: str, who: str, value: float) -> None:
        """One more sample."""
        self.figures.setdefault(what, {}).setdefault(who, []).append(value)
        print(f"  {who:14} {what}: {value:.4g}", flush=True)


def table(figures: Figures, theirs: str, ours: str, others: Sequence[str] = ()) -> list[str]:
    """Lines of Markdown: medians, and ours as a part of theirs."""
    lines = [
        f"| | {' | '.join([theirs, ours, 'ours / theirs', *others])} |",
        "|---" * (4 + len(others)) + "|",
    ]
    for what, by in figures.items():
        first, second = by.get(theirs), by.get(ours)
        divisor = statistics.median(first) if first else 0.0
        ratio = f"{statistics.median(second) / divisor:.2f}" if second and divisor else ""
        rest = [_shown(by.get(other)) for other in others]
        lines.append(f"| {' | '.join([what, _shown(first), _shown(second), ratio, *rest])} |")
    return lines


def _shown(values: list[float] | None) -> str:
    if not values:
        return ""
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} [{min(values):.3g}–{max(values):.3g}]"
