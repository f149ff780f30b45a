from dataclasses import replace
from datetime import timedelta

import pytest

from nocap.domain import SlangStatus, VoiceName
from nocap.errors import InputError
from storage.audit import events
from storage.database import Database
from storage.slang import (
    GlossaryEntry,
    TermFinding,
    WeeklyUse,
    blocked_terms,
    fading,
    glossary,
    set_status,
    term,
    terms,
    upsert_candidates,
    weekly_counts,
)
from tests.storage.community import GENZ, NOW

WEEK = timedelta(weeks=1)
RIZZ = TermFinding(
    term="rizz",
    score=4.2,
    first_seen=NOW - 3 * WEEK,
    last_seen=NOW - WEEK,
    freshness=0.5,
    expires_at=NOW + 8 * WEEK,
    weekly=(WeeklyUse(NOW - 2 * WEEK, uses=9, members=6, messages=500), WeeklyUse(NOW - WEEK, 4, 4, 500)),
)


def test_a_found_term_waits_for_review_and_is_not_in_the_glossary(database: Database) -> None:
    with database.write() as session:
        upsert_candidates(session, GENZ, [RIZZ])
        assert [row.term for row in terms(session, GENZ, SlangStatus.CANDIDATE)] == ["rizz"]
        assert glossary(session, GENZ, NOW) == []


def test_a_week_with_fewer_than_five_members_is_not_kept(database: Database) -> None:
    with database.write() as session:
        upsert_candidates(session, GENZ, [RIZZ])
        assert [(row.uses, row.members) for row in weekly_counts(session, GENZ, "rizz")] == [(9, 6)]


def test_finding_a_term_again_refreshes_its_figures_and_keeps_the_moderators_word(database: Database) -> None:
    with database.write() as session:
        upsert_candidates(session, GENZ, [RIZZ])
        set_status(session, GENZ, "rizz", SlangStatus.APPROVED, "charm", actor="mod", at=NOW)
        assert [use.uses for use in weekly_counts(session, GENZ, "rizz")] == [9]
        weekly = ((NOW - 2 * WEEK, 11, 7, 500), (NOW, 20, 9, 500))
        later = replace(RIZZ, score=6.0, first_seen=NOW - WEEK, last_seen=NOW, weekly=weekly)  # type: ignore[arg-type]
        upsert_candidates(session, GENZ, [later])
        row = term(session, GENZ, "rizz")
        assert (row.status, row.gloss, row.score) == ("approved", "charm", 6.0)
        assert (row.first_seen, row.last_seen) == (RIZZ.first_seen, NOW)
        assert [use.uses for use in weekly_counts(session, GENZ, "rizz")] == [11, 20]


def test_the_glossary_holds_approved_unexpired_terms_freshest_first(database: Database) -> None:
    with database.write() as session:
        upsert_candidates(
            session,
            GENZ,
            [
                RIZZ,
                replace(RIZZ, term="delulu", freshness=0.9),
                replace(RIZZ, term="yeet", expires_at=NOW),
                replace(RIZZ, term="forever", freshness=0.1, expires_at=None),
                replace(RIZZ, term="slur"),
            ],
        )
        for name in ("rizz", "delulu", "yeet", "forever"):
            set_status(session, GENZ, name, SlangStatus.APPROVED, f" {name}! ", actor="mod", at=NOW)
        set_status(session, GENZ, "slur", SlangStatus.BLOCKED, actor="mod", at=NOW)
        assert glossary(session, GENZ, NOW) == [
            GlossaryEntry("delulu", "delulu!"),
            GlossaryEntry("rizz", "rizz!"),
            GlossaryEntry("forever", "forever!"),
        ]
        assert glossary(session, VoiceName("boomer"), NOW) == []


def test_a_review_is_written_to_the_audit_log_and_keeps_the_gloss(database: Database) -> None:
    with database.write() as session:
        upsert_candidates(session, GENZ, [RIZZ])
        set_status(session, GENZ, "rizz", SlangStatus.APPROVED, "charm", actor="mod", at=NOW)
        assert set_status(session, GENZ, "rizz", SlangStatus.BLOCKED, actor="mod", at=NOW).gloss == "charm"
        event = events(session, 1)[0]
        assert (event.actor, event.target, event.detail["status"]) == ("mod", "genz/rizz", "blocked")


def test_a_dismissed_term_is_not_proposed_again_and_may_be_said(database: Database) -> None:
    with database.write() as session:
        upsert_candidates(session, GENZ, [RIZZ])
        set_status(session, GENZ, "rizz", SlangStatus.DISMISSED, actor="mod", at=NOW)
        upsert_candidates(session, GENZ, [replace(RIZZ, score=9.0)])
        assert terms(session, GENZ, SlangStatus.CANDIDATE) == []
        assert (glossary(session, GENZ, NOW), blocked_terms(session, GENZ)) == ([], ())


def test_an_unknown_term_cannot_be_reviewed(database: Database) -> None:
    with database.write() as session, pytest.raises(InputError, match="no term 'rizz'"):
        set_status(session, GENZ, "rizz", SlangStatus.APPROVED, actor="mod", at=NOW)


def test_terms_that_members_give_up_are_listed_most_faded_first_and_steady_or_rare_ones_are_not(
    database: Database,
) -> None:
    def used(name: str, before: int, now: int) -> TermFinding:
        weeks = [WeeklyUse(NOW - ago * WEEK, before if ago > 1 else now, 6, 500) for ago in range(10)]
        return replace(RIZZ, term=name, weekly=tuple(week for week in weeks if week.uses))

    found = [used("yeet", 10, 4), used("dab", 10, 0), used("bet", 10, 9), used("rare", 2, 0), used("queued", 10, 0)]
    with database.write() as session:
        assert fading(session, GENZ) == []
        upsert_candidates(session, GENZ, found)
        for name in ("yeet", "dab", "bet", "rare"):
            set_status(session, GENZ, name, SlangStatus.APPROVED, None, actor="mod", at=NOW)
        assert [(one.term, one.before, one.now) for one in fading(session, GENZ)] == [
            ("dab", 20.0, 0.0),
            ("yeet", 20.0, 8.0),
        ]
