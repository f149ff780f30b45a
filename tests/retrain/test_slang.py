"""Terms that many members have lately begun to use."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocap.domain import ChannelKey, MemberKey, Purpose
from nocap.text.lexicon import Lexicon
from retrain._spelling import Spelling
from retrain.slang import Use, find_terms, log_odds_score, term_rates, uses_of, week_of, weekly_rates
from storage.database import Database
from storage.eligibility import EligibilityQuery, eligible_messages
from tests.storage.community import ANA, FLAT, GENZ, NOW, POLICY, agree, message, open_channel, store

AS_OF = datetime(2026, 11, 22, tzinfo=UTC)
# fmt: off
WORDS = (
    "the", "game", "was", "so", "good", "today", "you", "should", "have", "seen", "what", "they", "did", "with",
    "that", "last", "song", "we", "were", "all", "at", "her", "place", "and", "then", "it", "got", "really", "late",
    "school", "tomorrow", "is", "going", "to", "be", "rough", "but", "honestly", "worth", "every", "minute", "of",
)
# fmt: on


def use(text: str, days_ago: float, member: int = 0, channel: int = 0) -> Use:
    return Use(MemberKey(f"m{member}"), ChannelKey(f"c{channel}"), AS_OF - timedelta(days=days_ago), text)


def background(weeks: int = 14, a_day: int = 25) -> list[Use]:
    """Everyday talk of 40 members in 3 channels."""
    draw = random.Random(7)
    return [
        use(" ".join(draw.choices(WORDS, k=8)), day + draw.random(), draw.randrange(40), draw.randrange(3))
        for day in range(weeks * 7)
        for _ in range(a_day)
    ]


BACKGROUND = background()


def fresh(
    text: str, *, members: int = 8, uses: int = 20, channels: int = 2, within_days: float = 13, until_days: float = 0
) -> Iterator[Use]:
    """`uses` of `text` spread evenly over the last days, members and channels, amid other words."""
    draw = random.Random(text)
    for number in range(uses):
        words = draw.choices(WORDS, k=6)
        words.insert(draw.randrange(1, 6), text)
        days_ago = until_days + (within_days - until_days) * (number + 0.5) / uses
        yield use(" ".join(words), days_ago, number % members, number // 2 % channels)


def found(*planted: Iterator[Use] | Sequence[Use], known: Sequence[str] = ()) -> list[str]:
    uses = [*BACKGROUND, *(each for some in planted for each in some)]
    return [finding.term for finding in find_terms(uses, AS_OF, known)]


def test_everyday_talk_holds_no_fresh_slang() -> None:
    assert found() == []


@pytest.mark.parametrize("term", ["rizz", "let him cook", "no cap", "🗿", "delulu"])
def test_a_new_word_phrase_or_emoji_is_found_and_nothing_else(term: str) -> None:
    assert found(fresh(term)) == [term]


def test_figures_of_a_finding() -> None:
    old = fresh("rizz", uses=4, members=4, within_days=80, until_days=60)
    (finding,) = find_terms([*BACKGROUND, *old, *fresh("rizz")], AS_OF)
    assert finding.score > 3
    assert finding.first_seen == AS_OF - timedelta(days=77.5)
    assert finding.last_seen == AS_OF - timedelta(days=13 * 0.5 / 20)
    assert finding.freshness == pytest.approx(20 / 24)
    assert finding.expires_at == finding.last_seen + timedelta(weeks=8)
    assert [week.week for week in finding.weekly] == sorted(week.week for week in finding.weekly)
    assert all(week.week.weekday() == 0 and week.members >= 5 for week in finding.weekly)
    assert all(week.uses <= week.messages for week in finding.weekly)


@pytest.mark.parametrize(
    ("why", "planted"),
    [
        ("four members are too few", list(fresh("rizz", members=4, uses=40))),
        ("one channel may be one clique", list(fresh("rizz", channels=1))),
        ("one evening is an event", list(fresh("rizz", within_days=4.4, until_days=4.2))),
        ("the burst is over", list(fresh("rizz", within_days=13.9, until_days=7.1))),
        ("it was always said", list(fresh("rizz", uses=140, members=20, within_days=97))),
    ],
)
def test_what_is_not_fresh_slang(why: str, planted: list[Use]) -> None:
    assert found(planted) == [], why


def test_one_member_who_repeats_a_word_all_day_counts_once_a_day() -> None:
    spam = [use("zorp zorp zorp", 5 + number / 100, member=0) for number in range(60)]
    others = [use("the zorp was good", 9 - number, member=number + 1, channel=number % 2) for number in range(4)]
    assert found(spam, others) == []


def test_names_placeholders_numbers_and_commands_are_no_slang() -> None:
    names = fresh("Drake")
    commands = [use(f"/zorp {each.text}", 3 + n / 3, n % 8, n % 2) for n, each in enumerate(fresh("zorp"))]
    assert found(names, fresh("[link]"), fresh("2027"), commands) == []


def test_a_capital_at_the_start_of_a_sentence_makes_no_name() -> None:
    starts = [use(f"Rizz {' '.join(WORDS[n : n + 4])}", n / 2 + 0.1, n % 8, n // 2 % 2) for n in range(20)]
    assert found(starts) == ["Rizz"]


def test_spellings_of_one_word_are_one_term_in_its_commonest_form() -> None:
    forms = ["rizz", "Rizz", "rizzzzz", "RIZZ"]
    planted = [fresh(form, uses=5, members=5) for form in forms[1:]]
    assert found(fresh("rizz", uses=8), *planted) == ["rizz"]


def test_a_phrase_absorbs_its_parts_and_a_word_absorbs_its_phrases() -> None:
    assert found(fresh("skibidi toilet", uses=24)) == ["skibidi toilet"]
    mixed = [*fresh("gyatt", uses=30), *fresh("gyatt moment", uses=10)]
    assert found(mixed) == ["gyatt"]


def test_words_that_meet_by_chance_are_no_phrase() -> None:
    planted = [use(f"to be {' '.join(WORDS[n : n + 3])}", n / 4, n % 9, n % 2) for n in range(50)]
    assert "to be" not in found(planted)


def test_known_terms_are_measured_and_not_found_anew() -> None:
    uses = [*BACKGROUND, *fresh("Rizz"), *fresh("mid", within_days=90, until_days=40)]
    findings = find_terms(uses, AS_OF, known=["rizz", "mid", "never said"])
    assert [finding.term for finding in findings] == ["mid", "rizz"]
    assert findings[0].score < 0 < 3 < findings[1].score
    assert findings[0].freshness == 0


def test_a_phrase_around_a_known_term_is_not_found_anew() -> None:
    uses = list(fresh("gyatt moment", uses=25))
    assert found(uses) == ["gyatt moment"]
    assert "gyatt moment" not in found(uses, known=["gyatt"])


def test_later_messages_and_those_before_the_fourteen_weeks_do_not_count() -> None:
    later = [each._replace(sent_at=each.sent_at + timedelta(days=14)) for each in fresh("rizz")]
    earlier = [each._replace(sent_at=each.sent_at - timedelta(weeks=14)) for each in fresh("rizz")]
    assert found(later) == []
    assert found(earlier) == []
    assert find_terms([], AS_OF) == []


@given(st.integers(0, 200), st.integers(1, 100), st.integers(1, 50))
def test_a_rise_scores_what_the_same_fall_loses_and_a_steeper_one_scores_more(
    before: int, rise: int, more: int
) -> None:
    score = log_odds_score(before + rise, 10_000, before, 10_000)
    assert score > 0
    assert score == pytest.approx(-log_odds_score(before, 10_000, before + rise, 10_000))
    assert log_odds_score(before + rise + more, 10_000, before, 10_000) > score


def test_an_unchanged_rate_scores_zero_and_no_use_is_no_evidence() -> None:
    assert log_odds_score(10, 1_000, 60, 6_000) == pytest.approx(0, abs=1e-9)
    assert log_odds_score(0, 1_000, 0, 6_000) == 0
    assert log_odds_score(0, 0, 0, 0) == 0


def test_rates_are_uses_per_thousand_tokens_of_all_members() -> None:
    lexicon = Lexicon(["no cap", "slay", "mid"])
    texts = {MemberKey("a"): ["no cap that was good", "slay"], MemberKey("b"): ["Slay, slay!", "ok ok"]}
    assert term_rates(lexicon, texts) == {"no cap": 100.0, "slay": 300.0, "mid": 0.0}
    assert term_rates(lexicon, {}) == {"no cap": 0.0, "slay": 0.0, "mid": 0.0}


def test_weekly_rates_follow_the_calendar() -> None:
    uses = [use("slay it", 1), use("hm ok", 2), use("slay", 9)]
    (rates,) = weekly_rates(Lexicon(["slay"]), uses).values()
    assert rates == {week_of(AS_OF - timedelta(days=9)): 1_000.0, week_of(AS_OF - timedelta(days=1)): 250.0}


def test_what_may_be_used_of_the_stored_messages_are_uses(database: Database) -> None:
    with database.write() as session:
        open_channel(session)
        agree(session, ANA)
        store(session, message("k1", text="hi"), message("old", sent_at=NOW - timedelta(days=200)))
        query = EligibilityQuery(GENZ, Purpose.TRAIN, POLICY, None, NOW - timedelta(days=98), NOW + timedelta(days=1))
        (row,) = eligible_messages(session, query)
        assert list(uses_of(session, query)) == [Use(ANA, FLAT, row.sent_at, "hi")]


@pytest.mark.parametrize(
    ("token", "plain"),
    [
        ("soooo", "so"),
        ("goooood", "good"),
        ("Low-key", "lowkey"),
        ("👍🏽", "👍"),
        ("re-do", "re-do"),
        ("BRUHHH", "bruh"),
    ],
)
def test_the_plain_spelling(token: str, plain: str) -> None:
    counts = {"so": 50, "soooo": 2, "good": 40, "god": 3, "lowkey": 9, "low-key": 2, "re-do": 5, "bruh": 4, "👍": 1}
    assert Spelling({**counts, token: 1}).plain(token) == plain


@pytest.mark.slow
def test_on_real_chat_the_season_is_found() -> None:
    file = Path(__file__).parents[3] / "shared" / "data" / "chat" / "reddit_college_dev.parquet"
    if not file.is_file():
        pytest.skip("the shared test data (reddit_college_dev.parquet) is not on this machine")
    import pyarrow.parquet as parquet

    as_of = datetime(2021, 5, 25, tzinfo=UTC)
    since = (as_of - timedelta(weeks=14)).replace(tzinfo=None)
    within = [("created", ">=", since), ("created", "<", as_of.replace(tzinfo=None))]
    rows = parquet.read_table(file, columns=["subreddit", "user", "created", "text"], filters=within).to_pylist()
    uses = [
        use._replace(text=use.text.replace("<URL>", "[link]"))
        for use in (
            Use(MemberKey(row["user"]), ChannelKey(row["subreddit"]), row["created"].replace(tzinfo=UTC), row["text"])
            for row in rows
        )
    ]
    findings = find_terms(uses, as_of)
    assert "graduation" in [finding.term for finding in findings[:5]]
    assert len(findings) < 60
