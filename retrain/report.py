"""The run's report: one HTML page that holds everything, for promoted, refused, abstained and failed runs alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from nocap.domain import RunState, Verdict
from retrain._plots import Series, drift_plot, loss_plot, slang_plot
from retrain.gates.measurements import AnchorDrift
from retrain.gates.record import what_would_change
from retrain.gates.result import Check, Decision
from retrain.samples import Sample

REPORT = "report.html"
_MARGIN = 0.08
"""Of an interval's drawing, left free on both sides."""


@dataclass(frozen=True, slots=True)
class ReportData:
    """What a report tells. Whatever the run did not get to stays empty."""

    run: str
    voice: str
    state: RunState
    reason: str
    """Why it ended as it did, in one sentence."""
    as_of: datetime
    incumbent: str
    challenger: str | None = None
    decision: Decision | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    """What was trained and measured on, e.g. {"training examples": 990}."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """What was left out, by reason."""
    losses: Series = ()
    """(step, nats per token)."""
    validation_losses: Series = ()
    weekly: Mapping[str, Sequence[tuple[datetime, float]]] = field(default_factory=dict)
    """Uses per 1,000 messages of each term, by week."""
    drift: AnchorDrift = field(default_factory=AnchorDrift)
    cost: Mapping[str, str] = field(default_factory=dict)
    """Already worded, e.g. {"energy": "12 kJ (estimated)"}."""
    samples: Sequence[Sample] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    """Digests, versions, and the permission reference where one was used."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A check's interval as shares of a drawing's width, 0 to 1."""

    lower: float
    value: float
    upper: float
    limits: tuple[float, ...]


def write_report(folder: Path, data: ReportData) -> Path:
    """The page, written to `folder`/report.html in one go."""
    page = folder / REPORT
    partial = folder / f"{REPORT}.partial"
    partial.write_text(render_report(data), encoding="utf-8")
    partial.replace(page)
    return page


def render_report(data: ReportData) -> str:
    """The page as HTML, with no reference to anything outside it."""
    environment = Environment(
        loader=PackageLoader("retrain", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = draw_interval
    environment.filters["figure"] = _figure
    return environment.get_template("report.html.j2").render(
        data=data,
        headline=_headline(data),
        would_change=what_would_change(data.decision) if data.decision else [],
        tone=_tone(data.state),
        plots={
            "Slang over time": slang_plot(data.weekly),
            "Loss while training": loss_plot(data.losses, data.validation_losses),
            "Drift from the base": drift_plot(
                [kl / tokens for kl, tokens in zip(data.drift.kl, data.drift.tokens, strict=True) if tokens]
            ),
        },
    )


def draw_interval(check: Check) -> Drawn:
    """Where the check's bounds and limits lie, the outermost of them near the edges."""
    limits = [limit for limit in (check.at_least, check.at_most) if limit is not None]
    marks = [check.lower, check.value, check.upper, *limits]
    low, high = min(marks), max(marks)
    width = (high - low) or 1.0

    def place(mark: float) -> float:
        return round(_MARGIN + (1 - 2 * _MARGIN) * (mark - low) / width, 4)

    return Drawn(place(check.lower), place(check.value), place(check.upper), tuple(map(place, limits)))


def _headline(data: ReportData) -> str:
    name = data.challenger or "No adapter"
    verdicts = {
        RunState.PROMOTED: f"{name} was promoted and now speaks for {data.voice} in place of {data.incumbent}.",
        RunState.ON_TRIAL: f"{name} passed its gates and is tried out in some of {data.voice}'s channels.",
        RunState.REFUSED: f"{name} was refused; {data.incumbent} still speaks for {data.voice}.",
        RunState.ABSTAINED: f"There was too little evidence on {name}; {data.incumbent} still speaks for {data.voice}.",
        RunState.NOTHING_TO_LEARN: f"There was nothing to learn from; {data.incumbent} still speaks for {data.voice}.",
        RunState.FAILED: f"The run failed; {data.incumbent} still speaks for {data.voice}.",
        RunState.CANCELLED: f"The run was cancelled; {data.incumbent} still speaks for {data.voice}.",
    }
    return verdicts.get(data.state, f"The run is {data.state.value}; {data.incumbent} speaks for {data.voice}.")


def _tone(state: RunState) -> str:
    if state in (RunState.PROMOTED, RunState.ON_TRIAL):
        return Verdict.PASS.value
    return Verdict.FAIL.value if state in (RunState.REFUSED, RunState.FAILED) else Verdict.ABSTAIN.value


def _figure(value: float) -> str:
    return f"{value:,.4g}"
