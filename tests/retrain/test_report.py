from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nocap.domain import RunState
from retrain.gates import decide
from retrain.gates.result import Check
from retrain.report import ReportData, draw_interval, render_report, write_report
from retrain.samples import Sample
from tests.retrain.gates import factory as make

AS_OF = datetime(2026, 1, 5, 4, tzinfo=UTC)


def data(state: RunState = RunState.REFUSED) -> ReportData:
    measurements = make.spoiled(markers=make.markers(ratio=2.0))
    weeks = [AS_OF - timedelta(weeks=index) for index in range(8)][::-1]
    return ReportData(
        run="run-7",
        voice="genz",
        state=state,
        reason="marker band: the rate of markers is twice the members'.",
        as_of=AS_OF,
        incumbent="genz-v1",
        challenger="genz-v2",
        decision=decide(measurements, make.SETTINGS),
        counts={"training examples": 990, "held-out replies": 1200},
        dropped={"near_duplicate": 41, "held_out_member": 1377},
        losses=[(step, 4.6 / (1 + step / 40)) for step in range(1, 140)],
        validation_losses=[(0, 4.6), (70, 2.1), (140, 1.6)],
        weekly={"no lint": [(week, 3.0 * index) for index, week in enumerate(weeks)], "💀 $x": [(weeks[-1], 9.0)]},
        drift=measurements.drift,
        cost={"time": "131 s", "energy": "8.5 kJ (estimated)"},
        samples=[Sample("How was your day?", "It was fine.", "lowkey good", "<b>goated</b> & fine")],
        provenance={"base": "b" * 64, "challenger": "c" * 64},
    )


class Page(HTMLParser):
    """Collects what a page would fetch, and checks that its tags close in order."""

    VOID = frozenset({"meta", "link", "br", "img", "line", "path", "use", "rect", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    assert page.open == []
    return page


def test_a_full_report_is_one_page_that_fetches_nothing(tmp_path: Path) -> None:
    path = write_report(tmp_path, data())
    html = path.read_text(encoding="utf-8")
    page = parsed(html)
    assert all(reference.startswith("#") for reference in page.references)
    assert "<script" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_a_report_tells_the_verdict_every_gate_and_why() -> None:
    html = render_report(data())
    assert "genz-v2 was refused; genz-v1 still speaks for genz." in html
    for result in data().decision.results:  # type: ignore[union-attr]
        assert result.gate.replace("_", " ") in html
    assert "990" in html
    assert "near duplicate" in html
    assert "8.5 kJ (estimated)" in html
    assert html.count("<svg") > 10


def test_a_refused_runs_report_says_what_would_have_changed_that() -> None:
    page = render_report(data())
    assert "What would have changed the verdict" in page
    assert "the upper bound of rate of markers against members" in page
    passed = replace(data(), decision=decide(make.good(), make.SETTINGS))
    assert "What would have changed" not in render_report(passed)


def test_what_a_model_says_is_shown_as_text() -> None:
    html = render_report(data())
    assert "&lt;b&gt;goated&lt;/b&gt; &amp; fine" in html
    assert "<b>goated" not in html


@pytest.mark.parametrize("state", list(RunState))
def test_a_run_in_any_state_has_a_report_even_before_anything_was_measured(state: RunState) -> None:
    bare = ReportData("run-8", "genz", state, "The disk is full.", AS_OF, incumbent="base")
    html = render_report(bare)
    parsed(html)
    assert "The disk is full." in html


def test_plots_take_their_colours_from_the_page() -> None:
    html = render_report(data())
    assert "var(--series0)" in html
    assert not re.search(r"#0[1-6]0[1-6]0", html)


def test_the_same_run_gives_the_same_page() -> None:
    assert render_report(data()) == render_report(data())


def test_ids_of_different_plots_do_not_clash() -> None:
    ids = re.findall(r'\bid="([^"]+)"', render_report(data()))
    assert len(ids) == len(set(ids))


def test_an_interval_is_drawn_in_order_with_its_limits() -> None:
    check = Check("x", value=0.5, lower=0.2, upper=0.7, at_least=0.1, at_most=1.0, holds=True)
    drawn = draw_interval(check)
    assert 0 < drawn.limits[0] < drawn.lower < drawn.value < drawn.upper < drawn.limits[1] < 1
    flat = draw_interval(replace(check, value=0.0, lower=0.0, upper=0.0, at_least=None, at_most=None))
    assert flat.lower == flat.value == flat.upper
