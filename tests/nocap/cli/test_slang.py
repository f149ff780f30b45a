"""`nocap slang`, as an operator types it: from the review queue into the glossary, and out again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from nocap.app import open_database
from nocap.domain import VoiceName, utc_now
from nocap.settings import load_settings
from storage.slang import TermFinding, WeeklyUse, blocked_terms, glossary, upsert_candidates, week_of
from tests.nocap.cli.test_main import Run, nocap  # noqa: F401  (the fixture)

GENZ, WEEK = VoiceName("genz"), timedelta(weeks=1)


def _found(folder: Path) -> None:
    """Three new terms, and one that was used ten times a week until two weeks ago."""
    now = week_of(utc_now())
    weeks = [WeeklyUse(now - ago * WEEK, 10, 6, 500) for ago in range(10)]
    new = TermFinding("rizz", 4.2, now - WEEK, now, 1.0, now + 8 * WEEK, weeks[:2])
    left = TermFinding("dab", 3.0, now - 9 * WEEK, now - 2 * WEEK, 0.0, now + 6 * WEEK, weeks[2:])
    database = open_database(load_settings(folder / "nocap.toml"))
    with database.write() as session:
        upsert_candidates(session, GENZ, [new, replace(new, term="slur"), replace(new, term="pizza"), left])
    database.close()


def test_terms_are_listed_reviewed_and_shown_when_they_fade(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    nocap("init")
    _found(tmp_path)
    waiting = nocap("slang", "list", "--status", "candidate", "--json").json
    assert {row["term"] for row in waiting} == {"rizz", "slur", "pizza", "dab"}
    assert "rizz" in nocap("slang", "list").out
    assert nocap("slang", "approve", "rizz", "--gloss", "charm").out == "rizz is approved.\n"
    assert nocap("slang", "approve", "dab", "--gloss", "a dance").code == 0
    assert nocap("slang", "block", "slur").code == nocap("slang", "dismiss", "pizza").code == 0
    assert nocap("slang", "list", "--status", "candidate", "--json").json == []
    database = open_database(load_settings(tmp_path / "nocap.toml"))
    with database.read() as session:
        assert {(one.term, one.gloss) for one in glossary(session, GENZ, utc_now())} == {
            ("rizz", "charm"),
            ("dab", "a dance"),
        }
        assert "slur" in blocked_terms(session, GENZ)
    database.close()
    assert [row["term"] for row in nocap("slang", "fading", "--json").json] == ["dab"]
    assert "dab" in nocap("slang", "fading").out
    assert nocap("slang", "shifted", "--json").json == []
