from __future__ import annotations

import json
from datetime import timedelta

import pytest

from bots import messages
from bots.limits import Limit, Limited
from nocap.domain import Purpose, RunId, RunState, SlangStatus, Vote
from nocap.errors import (
    BackendBusy,
    BackendUnavailable,
    ConfigurationError,
    NocapError,
    PromptTooLong,
    StorageError,
    UnknownAdapter,
    WrongModelAnswered,
)
from storage.consent import consent_state
from storage.eligibility import EligibilityQuery, eligible_messages
from storage.slang import TermFinding, set_status, upsert_candidates
from tests.bots.support import ADA, BEN, CHANNEL, START, VOICE, World
from tests.bots.test_operations import end_a_run

SENTINEL = "zebra-quartz-unmistakable"


def teach(bot: World, term: str, status: SlangStatus, gloss: str | None = None, **changes: object) -> None:
    values: dict[str, object] = {
        "term": term,
        "score": 4.0,
        "first_seen": START - timedelta(days=20),
        "last_seen": START,
        "freshness": 0.5,
        "expires_at": None,
    }
    with bot.database.write() as session:
        upsert_candidates(session, VOICE, [TermFinding(**(values | changes))])  # type: ignore[arg-type]
        set_status(session, VOICE, term, status, gloss, actor="mod", at=START)


def agreed(bot: World) -> set[Purpose]:
    with bot.database.read() as session:
        state = consent_state(session, ADA, CHANNEL, bot.settings.policy_version)
    return {purpose for purpose, granted in state.items() if granted}


async def test_a_term_is_explained_with_its_age_however_it_is_spelt(bot: World) -> None:
    teach(bot, "rizz", SlangStatus.APPROVED, "charm", freshness=0.75)
    expected = "rizz: charm (first seen 2 November 2026, 75% of its recent uses are from the last two weeks)"
    assert await bot.commands.slang(CHANNEL, " RIZZ ") == expected


async def test_only_approved_and_unexpired_terms_are_ever_shown(bot: World) -> None:
    teach(bot, "waiting", SlangStatus.CANDIDATE, "not yet reviewed")
    teach(bot, "slur", SlangStatus.BLOCKED, "no")
    teach(bot, "old", SlangStatus.APPROVED, "over", expires_at=START - timedelta(days=1))
    for term in ("waiting", "slur", "old", "never-heard"):
        assert await bot.commands.slang(CHANNEL, term) == messages.slang_unknown(term)
    assert await bot.commands.slang(CHANNEL) == messages.trending([])


async def test_trending_lists_the_freshest_first(bot: World) -> None:
    for number in range(12):
        teach(bot, f"term{number}", SlangStatus.APPROVED, freshness=number / 20)
    lines = (await bot.commands.slang(CHANNEL, "trending")).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == [f"term{number}" for number in range(11, 3, -1)]


async def test_what_is_new_says_what_was_refused_and_why(bot: World) -> None:
    teach(bot, "rizz", SlangStatus.APPROVED, "charm")
    end_a_run(bot)
    told = await bot.commands.whatsnew(CHANNEL)
    assert "plain base model" in told and "New words I know: rizz." in told
    assert "was refused" in told and "drift: It drifted too far." in told
    bot.now += timedelta(days=1)
    end_a_run(bot, RunState.PROMOTED)
    lines = (await bot.commands.whatsnew(CHANNEL)).splitlines()
    assert ["went live" in lines[1], "was refused" in lines[2], "drifted" in lines[3]] == [True, True, True]
    assert len(lines) == 5


async def test_the_default_answer_to_everything_is_no_and_asking_changes_nothing(bot: World) -> None:
    bot.collect()
    overview = await bot.commands.consent(ADA, CHANNEL)
    assert overview.count("[no]") == len(Purpose) and "[yes]" not in overview
    assert "How long" in overview and "Why" in overview and "this chat" in overview
    assert agreed(bot) == set()


async def test_consent_is_given_and_taken_back_per_purpose_and_as_a_whole(bot: World) -> None:
    steps = [
        ("grant store train", {Purpose.STORE, Purpose.TRAIN}),
        ("grant evaluate", {Purpose.STORE, Purpose.TRAIN, Purpose.EVALUATE}),
        ("revoke train", {Purpose.STORE, Purpose.EVALUATE}),
        ("no", set()),
        ("yes", set(Purpose)),
        ("REVOKE all", set()),
    ]
    for words, expected in steps:
        answer = await bot.commands.consent(ADA, CHANNEL, words)
        assert agreed(bot) == expected
        assert ("Taken back" in answer) is (words.split()[0].lower() in ("revoke", "no"))


async def test_a_purpose_that_needs_storing_is_not_given_by_itself(bot: World) -> None:
    answer = await bot.commands.consent(ADA, CHANNEL, "grant train")
    assert "/consent grant store train" in answer
    assert agreed(bot) == set()


async def test_where_an_age_is_asked_for_only_a_yes_that_confirms_it_counts(bot: World) -> None:
    bot.set_privacy(minimum_age=18)
    assert "I am 18 or older and agree" in await bot.commands.consent(ADA, CHANNEL)
    for words in ("grant", "grant store train", "grant 17+"):
        assert "Nothing was recorded" in await bot.commands.consent(ADA, CHANNEL, words)
        assert agreed(bot) == set()
    assert "/consent grant 18+ store train" in await bot.commands.consent(ADA, CHANNEL, "grant 18+ train")
    await bot.commands.consent(ADA, CHANNEL, "grant 18+ store train")
    assert agreed(bot) == {Purpose.STORE, Purpose.TRAIN}
    await bot.commands.consent(ADA, CHANNEL, "revoke train")
    assert agreed(bot) == {Purpose.STORE}


async def test_a_misspelt_purpose_changes_nothing(bot: World) -> None:
    assert "“trian”" in await bot.commands.consent(ADA, CHANNEL, "grant store trian")
    assert agreed(bot) == set()


async def test_a_chat_that_does_not_collect_says_so(bot: World) -> None:
    bot.collect(False)
    assert "switched off" in await bot.commands.consent(ADA, CHANNEL)
    assert agreed(bot) == set()


async def test_revoking_takes_effect_in_the_very_next_snapshot(bot: World) -> None:
    def eligible() -> int:
        query = EligibilityQuery(VOICE, Purpose.TRAIN, bot.settings.policy_version, None, None, bot.clock())
        with bot.database.read() as session:
            return len(eligible_messages(session, query))

    bot.collect()
    await bot.commands.consent(ADA, CHANNEL, "grant store train")
    await bot.ask("hello there")
    assert eligible() == 1
    await bot.commands.consent(ADA, CHANNEL, "revoke train")
    assert eligible() == 0


async def test_taking_storing_back_empties_the_bots_memory_of_the_member_here(bot: World) -> None:
    bot.collect()
    await bot.commands.consent(ADA, CHANNEL, "grant")
    await bot.ask(f"I am {SENTINEL}")
    await bot.commands.consent(ADA, CHANNEL, "revoke")
    await bot.ask("who am I?", BEN)
    assert SENTINEL not in str(bot.backend.chats[-1]["messages"])


async def test_agreeing_starts_the_talk_afresh_so_that_answers_can_be_kept(bot: World) -> None:
    bot.collect()
    await bot.ask(f"before {SENTINEL}")
    await bot.commands.consent(ADA, CHANNEL, "grant")
    await bot.ask("after")
    held = json.loads(await bot.commands.export(ADA))
    assert [row["text"] for row in held["replies"]] == [None, "base speaking"]
    assert SENTINEL not in str(bot.backend.chats[-1]["messages"])


async def test_export_holds_everything_about_the_member_and_nothing_about_others(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    bot.consent(BEN)
    turn = await bot.ask("what I said")
    await bot.ask(f"what Ben said {SENTINEL}", BEN)
    assert turn.reply_id is not None
    await bot.conversation.vote(turn.reply_id, ADA, Vote.UP)
    held = json.loads(await bot.commands.export(ADA))
    assert [row["text"] for row in held["messages"]] == ["what I said"]
    assert [row["text"] for row in held["replies"]] == ["base speaking"]
    assert [row["vote"] for row in held["votes"]] == ["up"]
    assert SENTINEL not in str(held)


async def test_erasing_leaves_nothing_and_gives_a_receipt(bot: World) -> None:
    bot.collect()
    bot.consent(ADA, *Purpose)
    turn = await bot.ask(f"my {SENTINEL}")
    assert turn.reply_id is not None
    await bot.conversation.vote(turn.reply_id, ADA, Vote.DOWN)
    receipt = await bot.commands.erase(ADA)
    assert "1 messages, the texts of 1 answers and 0 duels, 1 votes" in receipt
    assert "No adapter had learnt" in receipt
    assert agreed(bot) == set()
    held = json.loads(await bot.commands.export(ADA))
    assert (held["messages"], held["votes"]) == ([], [])
    assert held["replies"][0]["text"] is None
    await bot.ask("hi")
    assert SENTINEL not in str(bot.backend.chats[-1]["messages"])


async def test_the_receipt_names_the_adapters_that_had_learnt(bot: World) -> None:
    from nocap.domain import BASE, RunState
    from storage.messages import recent_messages
    from storage.runs import create_run, finish_run, set_sources
    from storage.tables import Adapter, RunSource

    bot.collect()
    bot.consent(ADA, *Purpose)
    await bot.ask("teach me")
    with bot.database.write() as session:
        key = recent_messages(session, CHANNEL, 1)[0].key
        run = create_run(
            session,
            voice=VOICE,
            trigger="operator",
            as_of=bot.now,
            incumbent=BASE,
            options={},
            permission_reference=None,
            at=bot.now,
        )
        run.challenger = "genz-v1"
        set_sources(session, RunId(run.id), [RunSource(run_id=run.id, message_key=key, role="train", member=ADA)])
        session.add(
            Adapter(
                name="genz-v1",
                voice=VOICE,
                run_id=run.id,
                base="b",
                base_digest="0",
                digest="1",
                status="passed",
                created_at=bot.now,
            )
        )
        finish_run(session, RunId(run.id), RunState.PROMOTED, "fine", bot.now)
    receipt = await bot.commands.erase(ADA)
    assert "retired by 6 December 2026 at the latest: genz-v1" in receipt


def test_help_and_privacy_say_that_it_is_a_bot(bot: World) -> None:
    assert "I'm a bot" in bot.commands.help()
    assert "I'm a bot" in bot.commands.privacy()
    assert "not a person" in bot.commands.privacy()


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (BackendUnavailable("down at http://secret-host"), "can't reach the machine"),
        (BackendBusy("full", 0.5), "Give me a moment"),
        (BackendBusy("full", 200), "Ask again in 3 min"),
        (UnknownAdapter("x"), "proper answer"),
        (WrongModelAnswered("x"), "proper answer"),
        (PromptTooLong("x"), "shorter"),
        (StorageError("x"), "notebook"),
        (ConfigurationError("x"), "operator"),
        (NocapError("x"), "Something broke"),
        (ValueError("x"), "Something broke"),
    ],
)
def test_every_failure_is_one_sentence_for_a_member_without_the_operators_details(error: Exception, part: str) -> None:
    said = messages.failure(error, "abc123")
    assert part in said and "abc123" in said and "secret-host" not in said


@pytest.mark.parametrize("limit", list(Limit))
def test_every_limit_says_how_long_to_wait(limit: Limit) -> None:
    assert "7 s" in messages.limited(Limited(limit, 7.2, False))
