"""What the demo found: one object for `summary.json`, and the same in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

HONESTY = (
    "This community is simulated and its invented slang is the demo's own; the base model is tiny"
    " ({parameters:.1f} M parameters). Everything else is the product itself: storage, consent, chat, training, gates,"
    " promotion."
)


@dataclass(frozen=True)
class RunLine:
    """One retrain of the demo."""

    week: int
    run: str
    trigger: str
    state: str
    challenger: str | None
    refused_by: list[str]
    reason: str
    cost: dict[str, Any]
    note: str = ""


@dataclass
class Summary:
    """The demo's result."""

    simulated: bool = True
    base_parameters: int = 0
    weeks: int = 0
    messages: int = 0
    runs: list[RunLine] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    """Adapter to the gates that refused it."""
    rolled_back: list[str] = field(default_factory=list)
    win_rate_over_base: float | None = None
    duels: dict[str, int] = field(default_factory=dict)
    votes_by_week: list[dict[str, int]] = field(default_factory=list)
    terms_discovered: list[str] = field(default_factory=list)
    terms_real: list[str] = field(default_factory=list)
    terms_missed: list[str] = field(default_factory=list)
    poison: dict[str, Any] = field(default_factory=dict)
    forgotten: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, bool] = field(default_factory=dict)
    """Promises looked up in the bytes on disk: true where they hold."""
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def print_summary(summary: Summary, console: Console) -> None:
    """The summary for a person."""
    console.print()
    console.print(HONESTY.format(parameters=summary.base_parameters / 1e6), style="italic")
    table = Table("week", "by", "adapter", "verdict", "why", "cost", title="Retrains", title_justify="left")
    for run in summary.runs:
        cost = f"{run.cost.get('seconds', 0):.0f} s, {run.cost.get('money', 0):.4f} {run.cost.get('currency', '')}"
        why = ", ".join(run.refused_by) or run.reason
        table.add_row(str(run.week), run.trigger, run.challenger or "–", run.state, f"{run.note}{why}", cost)
    console.print(table)
    for line in _lines(summary):
        console.print(line, markup=False)


def _lines(summary: Summary) -> list[str]:
    refused = "; ".join(f"{adapter} by {', '.join(gates)}" for adapter, gates in summary.refused.items())
    rate = summary.win_rate_over_base
    found = f"{len(summary.terms_real)} of {len(summary.terms_discovered)} found are the community's own slang"
    return [
        f"promoted    {', '.join(summary.promoted) or 'none'}",
        f"refused     {refused or 'none'}",
        f"rolled back {', '.join(summary.rolled_back) or 'none'}",
        f"blind duels {f'{rate:.0%} won against the base' if rate is not None else 'none'} ({_counts(summary.duels)})",
        f"slang       {', '.join(summary.terms_discovered) or 'none'}: {found}; missed: "
        f"{', '.join(summary.terms_missed) or 'none'}",
        f"poison      {_counts(summary.poison)}",
        f"forgotten   {_counts(summary.forgotten)}",
        *(f"{'kept  ' if kept else 'BROKEN'}      {promise}" for promise, kept in summary.checks.items()),
        f"took        {summary.seconds / 60:.1f} minutes for {summary.weeks} weeks and {summary.messages} messages",
    ]


def _counts(values: dict[str, Any]) -> str:
    return ", ".join(f"{value} {name}" for name, value in values.items()) or "none"
