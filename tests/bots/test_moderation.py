from __future__ import annotations

from datetime import timedelta

import pytest
from sqlmodel import select

from bots import staff_messages
from bots.callers import Caller
from bots.memory import Remembered
from bots.moderation import Change, Moderation, Target
from nocap.domain import ChannelKey, ChannelMode, MemberKey, Provenance, Purpose, SlangStatus, VoiceName, Vote
from nocap.errors import InputError, NotPermitted
from storage.audit import events
from storage.channels import get_channel
from storage.eligibility import EligibilityQuery, eligible_messages
from storage.slang import FadingTerm, TermFinding, upsert_candidates
from storage.tables import Feedback
from tests.bots.support import ADA, BEN, CHANNEL, START, VOICE, World

MODERATOR = Caller("discord", BEN, is_moderator=True)
MEMBER = Caller("discord", ADA)
HERE = Target(CHANNEL, "#general")


@pytest.fixture
def moderation(bot: World) -> Moderation:
    return Moderation(bot.database, bot.settings, bot.clock, bot.conversation.memory)


async def test_members_may_change_nothing(bot: World, moderation: Moderation) -> None:
    calls = [
        moderation.change(MEMBER, [HERE], Change(collect=True)),
        moderation.status(MEMBER, [HERE]),
        moderation.slang_queue(MEMBER, CHANNEL),
        moderation.review_slang(MEMBER, CHANNEL, "rizz", SlangStatus.APPROVED),
        moderation.reports(MEMBER, [CHANNEL]),
        moderation.settle_report(MEMBER, 1, [CHANNEL], "done"),
        moderation.purge(MEMBER, HERE),
    ]
    for call in calls:
        with pytest.raises(NotPermitted, match="moderators"):
            await call
    with bot.database.read() as session:
        assert get_channel(session, CHANNEL) is None
        assert events(session, 10) == []


async def test_a_change_holds_from_the_next_message_on_and_is_audited(bot: World, moderation: Moderation) -> None:
    assert "mode off" in await moderation.change(MODERATOR, [HERE], Change(mode=ChannelMode.OFF))
    assert (await bot.ask("hi")).text == ""
    await moderation.change(MODERATOR, [HERE], Change(mode=ChannelMode.MENTION))
    assert (await bot.ask("hi")).text == "base speaking"
    with bot.database.read() as session:
        assert [(one.actor, one.detail) for one in events(session, 2)] == [
            (f"discord:{BEN}", {"mode": "mention"}),
            (f"discord:{BEN}", {"mode": "off"}),
        ]


async def test_many_channels_change_together_or_not_at_all(bot: World, moderation: Moderation) -> None:
    many = [Target(ChannelKey(f"{number:032x}"), f"#c{number}") for number in range(30)]
    answer = await moderation.change(MODERATOR, many, Change(collect=True, duels=False))
    assert "30 channels" in answer and "and 10 more" in answer and "/consent" in answer
    with pytest.raises(InputError, match="no voice “nobody”; there is genz"):
        await moderation.change(MODERATOR, many, Change(collect=False, voice=VoiceName("nobody")))
    with bot.database.read() as session:
        rows = [get_channel(session, one.key) for one in many]
    assert {(row.collect, row.duels, row.label) for row in rows if row} == {(True, False, f"#c{n}") for n in range(30)}


async def test_a_term_is_reviewed_from_the_queue_and_heard_in_the_next_answer(
    bot: World, moderation: Moderation
) -> None:
    with bot.database.write() as session:
        upsert_candidates(
            session, VOICE, [TermFinding(term, 4.0, START, START, 0.5, None) for term in ("rizz", "slur", "pizza")]
        )
    text, waiting = await moderation.slang_queue(MODERATOR, CHANNEL)
    assert (waiting, "3 terms wait" in text) == (["pizza", "rizz", "slur"], True)
    assert "Going out of use" not in text
    told = staff_messages.slang_queue([], 0, [FadingTerm("dab", 20.0, 1.5)])
    assert "Going out of use: dab (20.0 → 1.5 a 1,000 messages)." in told
    await moderation.review_slang(MODERATOR, CHANNEL, "rizz", SlangStatus.APPROVED, "charm")
    await moderation.review_slang(MODERATOR, CHANNEL, "slur", SlangStatus.BLOCKED)
    await moderation.review_slang(MODERATOR, CHANNEL, "pizza", SlangStatus.DISMISSED)
    bot.backend.models["base"] = lambda messages: ["no ", "SLUR", " pizza"]
    assert (await bot.ask("hi")).text == "no **** pizza"
    assert "rizz (charm)" in bot.backend.chats[-1]["messages"][0]["content"]
    assert (await moderation.slang_queue(MODERATOR, CHANNEL))[1] == []
    with pytest.raises(InputError, match="120"):
        await moderation.review_slang(MODERATOR, CHANNEL, "rizz", SlangStatus.APPROVED, "x" * 200)


async def test_reports_on_one_answer_are_one_entry_and_of_this_chat_alone(bot: World, moderation: Moderation) -> None:
    turn = await bot.ask("hi")
    for member in (ADA, BEN, ADA):
        await bot.commands.report(member, CHANNEL, turn.reply_id, "it was rude")
    text, ids = await moderation.reports(MODERATOR, [CHANNEL])
    assert len(ids) == 1 and "by 2 members" in text and "it was rude" in text
    elsewhere = [ChannelKey("e" * 32)]
    assert (await moderation.reports(MODERATOR, elsewhere))[1] == []
    with pytest.raises(InputError):
        await moderation.settle_report(MODERATOR, ids[0], elsewhere, "closed")
    await moderation.settle_report(MODERATOR, ids[0], [CHANNEL], "closed")
    assert (await moderation.reports(MODERATOR, [CHANNEL]))[1] == []


async def test_a_report_storm_of_one_member_is_capped(bot: World, moderation: Moderation) -> None:
    for _ in range(40):
        answer = await bot.commands.report(ADA, CHANNEL, None, "again")
    assert "lot of reports" in answer
    assert len((await moderation.reports(MODERATOR, [CHANNEL]))[1]) == bot.settings.bots.reports_per_hour


def raiders(count: int) -> list[MemberKey]:
    return [MemberKey(f"{number:032x}") for number in range(1, count + 1)]


async def test_many_accounts_against_one_member_are_one_entry_and_one_incident(
    bot: World, moderation: Moderation
) -> None:
    stormed = [await bot.ask(f"hi {number}") for number in range(3)]
    apart = await bot.ask("hello", BEN)
    for number, raider in enumerate(raiders(20)):
        await bot.commands.report(raider, CHANNEL, stormed[number % 3].reply_id, "against our rules")
    await bot.commands.report(ADA, CHANNEL, apart.reply_id, "a slip")
    text, ids = await moderation.reports(MODERATOR, [CHANNEL])
    assert len(ids) == 2 and "3 answers to one and the same member" in text and "by 20 members" in text
    assert "nobody is muted" in text and "a slip" in text
    with bot.database.read() as session:
        raised = [one for one in events(session, 100) if one.action == "report_storm"]
    assert [(one.target, one.detail["members"]) for one in raised] == [(CHANNEL, 5)]
    assert (await bot.ask("still there?")).text == "base speaking", "the reported member is answered as before"
    await moderation.settle_report(MODERATOR, ids[0], [CHANNEL], "closed")
    text, left = await moderation.reports(MODERATOR, [CHANNEL])
    assert left == ids[1:] and "a slip" in text


async def test_reports_that_come_slowly_or_on_one_answer_are_no_storm(bot: World, moderation: Moderation) -> None:
    disliked = await bot.ask("hi")
    for raider in raiders(12):
        await bot.commands.report(raider, CHANNEL, disliked.reply_id)
    for number, raider in enumerate(raiders(12)):
        bot.now += timedelta(minutes=4)
        turn = await bot.ask(f"and {number}?", BEN)
        await bot.commands.report(raider, CHANNEL, turn.reply_id)
    text, ids = await moderation.reports(MODERATOR, [CHANNEL])
    assert len(ids) == 10 and "perhaps a campaign" not in text and "an answer by base, by 12 members" in text
    with bot.database.read() as session:
        assert not [one for one in events(session, 100) if one.action == "report_storm"]


async def test_brigading_votes_are_kept_and_shown_to_moderators(bot: World, moderation: Moderation) -> None:
    honest = [await bot.ask(f"hi {number}") for number in range(30)]
    for number, turn in enumerate(honest):
        bot.now += timedelta(hours=3)
        assert turn.reply_id is not None
        await bot.conversation.vote(turn.reply_id, BEN, Vote.DOWN if number % 5 == 0 else Vote.UP)
    assert "brigading" not in (await moderation.reports(MODERATOR, [CHANNEL]))[0]
    bot.now += timedelta(hours=3)
    reply_id = honest[0].reply_id
    assert reply_id is not None
    for raider in raiders(12):
        await bot.conversation.vote(reply_id, raider, Vote.DOWN)
    text, ids = await moderation.reports(MODERATOR, [CHANNEL])
    assert "Looks like brigading: 12 members voted base down 12 times" in text and ids == []
    assert "brigading" not in (await moderation.reports(MODERATOR, [ChannelKey("e" * 32)]))[0]
    with bot.database.read() as session:
        assert len(session.exec(select(Feedback)).all()) == 42, "every vote is on record"


async def test_a_purged_channel_leaves_database_memory_and_the_next_snapshot(
    bot: World, moderation: Moderation
) -> None:
    def eligible() -> int:
        query = EligibilityQuery(VOICE, Purpose.TRAIN, bot.settings.policy_version, None, None, bot.clock())
        with bot.database.read() as session:
            return len(eligible_messages(session, query))

    bot.collect()
    bot.consent(ADA, *Purpose)
    await bot.ask("a sentence to purge")
    assert eligible() == 1
    assert "1 messages, the texts of 1 answers" in await moderation.purge(MODERATOR, HERE)
    assert eligible() == 0
    await bot.ask("hi", BEN)
    assert "to purge" not in str(bot.backend.chats[-1]["messages"])


def test_the_memory_of_a_chain_is_the_chain() -> None:
    from bots.memory import ContextMemory
    from nocap.domain import MessageKey

    memory = ContextMemory(turns=12)

    def exchange(number: int, reply_to: str | None) -> None:
        key, answer = MessageKey(f"m{number}"), (MessageKey(f"b{number}"),)
        target = MessageKey(reply_to) if reply_to else None
        memory.remember(
            CHANNEL,
            [
                Remembered("user", f"q{number}", ADA, key, Provenance.TERMINAL, False, target),
                Remembered("assistant", f"a{number}", ADA, key, Provenance.TERMINAL, False),
            ],
        )
        memory.posted(CHANNEL, key, answer)

    exchange(1, None)
    exchange(2, None)
    exchange(3, "b1")
    assert [one.text for one in memory.chain(CHANNEL, MessageKey("b3"))] == ["q1", "a1", "q3", "a3"]
    assert memory.chain(CHANNEL, MessageKey("unknown")) == ()
    memory.forget_message(MessageKey("m1"))
    assert [one.text for one in memory.chain(CHANNEL, MessageKey("b3"))] == ["q3", "a3"]
