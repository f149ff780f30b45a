from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
from sqlmodel import select
from structlog.testing import capture_logs

from bots import messages
from bots.limits import RateLimits
from bots.turn import Outcome
from nocap.domain import ChannelKey, ChannelMode, MessageKey, Provenance, Purpose, SlangStatus, VoiceName, Vote
from nocap.errors import InputError, NotPermitted, StorageError
from storage.channels import get_channel, set_channel
from storage.feedback import feedback_since
from storage.messages import recent_messages
from storage.slang import TermFinding, set_status, upsert_candidates
from storage.tables import Message, Reply
from tests.bots.support import ADA, BEN, CHANNEL, START, VOICE, World, world
from tests.fakes.backend import Cut, Hang, Refuse, echoes, says

SENTINEL = "zebra-quartz-unmistakable"


def replies(bot: World) -> list[Reply]:
    with bot.database.read() as session:
        return list(session.exec(select(Reply)))


def stored_texts(bot: World) -> list[str]:
    with bot.database.read() as session:
        return [row.text for row in session.exec(select(Message))]


async def test_an_answer_streams_from_the_live_adapter_and_can_be_voted_on(bot: World) -> None:
    bot.promote("genz-v1", "no ", "cap ", "fr")
    turn = await bot.conversation.turn(bot.incoming("is it good?"))
    pieces = [piece async for piece in turn]
    assert len(pieces) > 1
    assert ("".join(pieces), turn.text) == ("no cap fr", "no cap fr")
    assert (turn.outcome, turn.adapter, turn.incident) == (Outcome.ANSWERED, "genz-v1", None)
    assert turn.reply_id == replies(bot)[0].id


async def test_the_prompt_is_the_voice_the_glossary_and_the_talk_so_far(bot: World) -> None:
    finding = TermFinding("rizz", 4.0, START, START, 0.9, None)
    with bot.database.write() as session:
        upsert_candidates(session, VOICE, [finding, TermFinding("mid", 4.0, START, START, 0.9, None)])
        set_status(session, VOICE, "rizz", SlangStatus.APPROVED, "charm", actor="mod", at=START)
    await bot.ask("first")
    await bot.ask("second", BEN)
    prompt = bot.backend.chats[-1]["messages"]
    assert prompt[0]["role"] == "system"
    assert prompt[0]["content"].startswith("You are a bot of this community.")
    assert "rizz (charm)" in prompt[0]["content"]
    assert "mid" not in prompt[0]["content"]
    assert [(turn["role"], turn["content"]) for turn in prompt[1:]] == [
        ("user", "first"),
        ("assistant", "base speaking"),
        ("user", "second"),
    ]


async def test_channels_never_see_each_others_talk(bot: World) -> None:
    await bot.ask("a secret of this channel")
    await bot.ask("hi", channel=ChannelKey("d" * 32))
    assert "secret" not in str(bot.backend.chats[-1]["messages"])


async def test_a_promotion_is_heard_in_the_very_next_answer(bot: World) -> None:
    assert (await bot.ask("hi")).text == "base speaking"
    bot.promote("genz-v1", "new voice")
    assert (await bot.ask("hi")).text == "new voice"


@pytest.mark.parametrize("collect", [True, False])
@pytest.mark.parametrize("consents", [True, False])
async def test_a_text_is_stored_only_where_channel_and_member_both_allow_it(
    bot: World, collect: bool, consents: bool
) -> None:
    bot.collect(collect)
    bot.backend.models["base"] = says("plain answer")
    if consents:
        bot.consent(ADA)
    turn = await bot.ask(f"my {SENTINEL}")
    may_store = collect and consents
    assert stored_texts(bot) == ([f"my {SENTINEL}"] if may_store else [])
    (reply,) = replies(bot)
    assert (reply.prompt, reply.text) == ((f"my {SENTINEL}", "plain answer") if may_store else (None, None))
    assert (reply.id, reply.prompt_member) == (turn.reply_id, ADA)
    assert (SENTINEL.encode() in bot.bytes_on_disk()) is may_store


async def test_nothing_of_a_member_without_consent_reaches_the_database_even_when_the_bot_repeats_it(
    bot: World,
) -> None:
    """Ben agreed, Ada did not; the model repeats everything it has seen, to both."""
    bot.collect()
    bot.consent(BEN)
    bot.backend.models["base"] = echoes
    await bot.ask(f"I am Ada {SENTINEL}", ADA)
    seen = await bot.ask("what did Ada say? ben-was-here", BEN)
    assert SENTINEL in seen.text
    again = await bot.ask("and again?", BEN)
    assert SENTINEL in again.text
    everything = bot.bytes_on_disk()
    assert b"ben-was-here" in everything
    assert SENTINEL.encode() not in everything


async def test_with_the_real_keyring_not_even_a_consented_text_is_readable(tmp_path: Path) -> None:
    with world(tmp_path, plain=False) as bot:
        bot.collect()
        bot.consent(ADA)
        await bot.ask(f"my {SENTINEL}")
        assert stored_texts(bot) == [f"my {SENTINEL}"]
        assert SENTINEL.encode() not in bot.bytes_on_disk()


async def test_with_drop_on_doubt_a_prompt_that_may_name_somebody_is_answered_and_not_written(bot: World) -> None:
    bot.set_privacy(drop_on_doubt=True)
    bot.collect()
    bot.consent(ADA)
    turn = await bot.ask("ask Jordan about it")
    assert turn.outcome is Outcome.ANSWERED
    await bot.ask("that slaps")
    assert stored_texts(bot) == ["that slaps"]
    assert [row.prompt for row in replies(bot)] == [None, "that slaps"]


async def test_revoked_consent_holds_for_the_very_next_message(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    await bot.ask("kept")
    await bot.commands.consent(ADA, CHANNEL, "revoke")
    await bot.ask(f"not {SENTINEL}")
    assert stored_texts(bot) == ["kept"]
    assert SENTINEL.encode() not in bot.bytes_on_disk()


async def test_what_was_said_before_agreeing_stays_unwritten(bot: World) -> None:
    bot.collect()
    bot.backend.models["base"] = echoes
    await bot.ask(f"before {SENTINEL}")
    bot.consent(ADA)
    await bot.ask("after")
    assert stored_texts(bot) == ["after"]
    assert SENTINEL.encode() not in bot.bytes_on_disk()


async def test_a_message_that_was_never_answered_is_no_context_after_a_restart(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    bot.backend.faults.append(Refuse(503))
    await bot.ask("unanswered")
    bot.restart()
    await bot.ask("hi")
    assert [turn["content"] for turn in bot.backend.chats[-1]["messages"][1:]] == ["hi"]


async def test_an_answer_that_saw_discord_messages_is_as_restricted_as_they_are(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    await bot.ask("typed into the chat", provenance=Provenance.DISCORD_MESSAGE)
    await bot.ask("handed in", provenance=Provenance.DISCORD_SUBMISSION)
    assert [reply.provenance for reply in replies(bot)] == ["discord_message", "discord_message"]
    with bot.database.read() as session:
        assert [row.provenance for row in session.exec(select(Message))] == ["discord_message", "discord_submission"]


async def test_a_new_process_remembers_what_was_agreed_to_and_nothing_else(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    await bot.ask("remember this")
    await bot.ask("forget this", BEN)
    bot.restart()
    await bot.ask("what was it?")
    prompt = [turn["content"] for turn in bot.backend.chats[-1]["messages"][1:]]
    assert prompt == ["remember this", "base speaking", "what was it?"]


async def test_votes_are_changed_withdrawn_and_counted_once(bot: World) -> None:
    turn = await bot.ask("hi")
    assert turn.reply_id is not None
    seen = []
    for vote in (Vote.UP, Vote.CRINGE, Vote.CRINGE, None, None, Vote.DOWN):
        await bot.conversation.vote(turn.reply_id, BEN, vote)
        with bot.database.read() as session:
            summary = feedback_since(session, VOICE, START)
        seen.append((summary.up, summary.down, summary.cringe))
    assert seen == [(1, 0, 0), (0, 0, 1), (0, 0, 1), (0, 0, 0), (0, 0, 0), (0, 1, 0)]
    with pytest.raises(InputError):
        await bot.conversation.vote(999, BEN, Vote.UP)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (Refuse(503), "can't reach the machine"),
        (Refuse(429, {"Retry-After": "20"}), "Ask again in 20 s"),
        (Refuse(400, message="bad"), "proper answer"),
        (Cut(after=0), "can't reach the machine"),
    ],
)
async def test_a_failing_backend_gives_one_honest_line_and_loses_nothing(
    bot: World, fault: Refuse | Cut, sentence: str
) -> None:
    bot.collect()
    bot.consent(ADA)
    bot.backend.faults.append(fault)
    with capture_logs() as logs:
        turn = await bot.ask("are you there?")
    assert (turn.outcome, turn.reply_id) == (Outcome.FAILED, None)
    assert sentence in turn.text
    assert turn.incident is not None and turn.incident in turn.text
    assert [line["incident"] for line in logs if line["event"] == "incident"] == [turn.incident]
    assert stored_texts(bot) == ["are you there?"]
    assert replies(bot) == []
    assert (await bot.conversation.turn(bot.incoming("again"))).outcome in (Outcome.OPEN, Outcome.FAILED)


async def test_a_wrong_model_never_reaches_a_member(bot: World) -> None:
    bot.promote("genz-v1")
    bot.backend.silent_base = True
    turn = await bot.ask("hi")
    assert turn.outcome is Outcome.FAILED
    assert "base speaking" not in turn.text


async def test_an_answer_that_breaks_off_says_so_and_is_not_recorded(bot: World) -> None:
    bot.backend.models["base"] = says("one ", "two ", "three ", "four")
    bot.backend.faults.append(Cut(after=3))
    turn = await bot.ask("count")
    assert turn.text.startswith("one ")
    assert "lost the thread" in turn.text
    assert (turn.outcome, turn.reply_id, replies(bot)) == (Outcome.FAILED, None, [])
    await bot.ask("again")
    assert "one" not in str(bot.backend.chats[-1]["messages"])


async def test_logs_of_failures_hold_no_text(bot: World) -> None:
    bot.backend.faults.append(Refuse(400, message=f"cannot parse hello {SENTINEL}"))
    with capture_logs() as logs:
        await bot.ask(f"hello {SENTINEL}")
        bot.conversation._records.prepare = _raise(ValueError(f"about {SENTINEL}"))  # type: ignore[method-assign]
        turn = await bot.ask(f"hello {SENTINEL}")
    assert turn.outcome is Outcome.FAILED
    incidents = [line for line in logs if line["event"] == "incident"]
    assert len(incidents) == 2
    assert SENTINEL not in str(logs)
    assert "test_conversation.py" in incidents[1]["cause"]
    assert [line["turn"] for line in logs if line["event"] == "turn"] == [line["turn"] for line in incidents]


async def test_an_answer_that_cannot_be_recorded_is_still_an_answer(bot: World) -> None:
    bot.conversation._records.reply = _raise(StorageError("disk full"))  # type: ignore[method-assign]
    with capture_logs() as logs:
        turn = await bot.ask("hi")
    assert (turn.text, turn.outcome, turn.reply_id) == ("base speaking", Outcome.ANSWERED, None)
    assert logs[0]["cause"] == "disk full"


async def test_without_a_database_the_bot_does_not_answer(bot: World) -> None:
    bot.conversation._records.prepare = _raise(StorageError("disk full"))  # type: ignore[method-assign]
    turn = await bot.ask("hi")
    assert turn.outcome is Outcome.FAILED
    assert bot.backend.chats == []


async def test_a_prompt_that_is_too_long_loses_its_oldest_context_first(bot: World) -> None:
    for number in range(3):
        await bot.ask(f"message {number}")
    too_long = Refuse(400, message="This model's maximum context length is 512 tokens")
    bot.backend.faults.extend([too_long, too_long])
    turn = await bot.ask("now")
    assert turn.outcome is Outcome.ANSWERED
    tried = [[part["content"] for part in chat["messages"][1:]] for chat in bot.backend.chats[-3:]]
    assert [len(prompt) for prompt in tried] == [7, 3, 1]
    assert tried[-1] == ["now"]
    bot.backend.faults.extend([too_long] * 5)
    assert "Try it shorter" in (await bot.ask("x" * 2000)).text


async def test_a_closed_answer_stops_the_backend_and_is_not_recorded(bot: World) -> None:
    bot.backend.models["base"] = says("one ", "two ", "three ", "four ")
    bot.backend.faults.append(Hang(after=4))
    async with aclosing(await bot.conversation.turn(bot.incoming("count"))) as turn:
        async for _ in turn:
            break
    assert (turn.outcome, bot.backend.answers_cancelled, replies(bot)) == (Outcome.OPEN, 1, [])


async def test_an_answer_that_nobody_reads_is_given_back_to_the_backend(bot: World) -> None:
    bot.backend.faults.append(Hang(after=1))
    turn = await bot.conversation.turn(bot.incoming("hi"))
    await turn.aclose()
    assert bot.backend.answers_cancelled == 1


async def test_personal_data_in_an_answer_is_scrubbed_and_nobody_is_mass_mentioned(bot: World) -> None:
    bot.backend.models["base"] = says("call +49 170 ", "1234567 or @every", "one")
    turn = await bot.ask("hi")
    assert "1234567" not in turn.text
    assert "@everyone" not in turn.text
    assert "[phone]" in turn.text


async def test_an_empty_message_and_an_empty_answer_get_a_sentence(bot: World) -> None:
    assert (await bot.ask("  \n")).text == messages.EMPTY
    assert bot.backend.chats == []
    bot.backend.models["base"] = says()
    turn = await bot.ask("hi")
    assert (turn.text, turn.outcome, turn.reply_id) == (messages.NOTHING_TO_SAY, Outcome.NOTICE, None)


async def test_a_channel_that_is_off_gets_silence_and_stores_nothing(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    with bot.database.write() as session:
        set_channel(session, CHANNEL, mode=ChannelMode.OFF)
    turn = await bot.ask("hi")
    assert (turn.text, turn.outcome) == ("", Outcome.SILENT)
    assert (bot.backend.chats, stored_texts(bot)) == ([], [])


async def test_moderators_settings_hold_at_once(bot: World) -> None:
    await bot.ask("hi")
    with bot.database.write() as session:
        assert get_channel(session, CHANNEL) is not None
        set_channel(session, CHANNEL, voice=VoiceName("nobody"))
    turn = await bot.ask("hi")
    assert turn.outcome is Outcome.FAILED
    assert "only my operator can mend that" in turn.text


async def test_too_many_turns_get_one_friendly_sentence_and_then_silence(tmp_path: Path) -> None:
    limits = RateLimits(member_per_minute=2, channel_per_minute=100, everyone_per_minute=100, monotonic=lambda: 0.0)
    with world(tmp_path, limits=limits) as bot:
        somewhere = {"provenance": Provenance.TELEGRAM_MESSAGE}
        turns = [await bot.ask("hi", **somewhere) for _ in range(4)]
        assert [turn.outcome for turn in turns] == ["answered", "answered", "notice", "silent"]
        assert "Ask me again in 30 s" in turns[2].text
        assert (await bot.ask("hi", BEN, **somewhere)).outcome is Outcome.ANSWERED
        assert [(await bot.ask("hi")).outcome for _ in range(5)] == [Outcome.ANSWERED] * 5  # at the terminal


async def test_forty_turns_at_once_are_all_answered_and_recorded(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    bot.backend.models["base"] = lambda said: [f"heard {said[-1]['content']}"]
    channels = [ChannelKey(f"{number:032x}") for number in range(40)]
    turns = await asyncio.gather(*(bot.ask(f"number {i}", channel=channel) for i, channel in enumerate(channels)))
    assert [turn.text for turn in turns] == [f"heard number {i}" for i in range(40)]
    assert len({turn.reply_id for turn in turns}) == 40


async def test_the_same_message_twice_is_stored_once(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    key = MessageKey("e" * 32)
    await bot.ask("hi", message_key=key)
    await bot.ask("hi", message_key=key)
    with bot.database.read() as session:
        assert [row.key for row in recent_messages(session, CHANNEL, 10)] == [key]


async def test_consent_to_training_alone_stores_nothing(bot: World) -> None:
    bot.collect()
    bot.consent(ADA, Purpose.TRAIN)
    await bot.ask("hi")
    assert stored_texts(bot) == []


def test_a_bot_process_never_loads_torch() -> None:
    code = (
        "import sys, bots.terminal.chat, bots.commands, bots.conversation, inference.responder\n"
        "heavy = {'torch', 'transformers', 'peft', 'trl', 'bitsandbytes', 'sklearn', 'scipy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _raise(error: Exception):  # type: ignore[no-untyped-def]
    def fail(*arguments: object) -> None:
        raise error

    return fail


async def test_a_deleted_message_leaves_database_and_memory(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    incoming = bot.incoming(f"my {SENTINEL}")
    async for _ in await bot.conversation.turn(incoming):
        pass
    assert await bot.conversation.deleted(incoming.message_key)
    assert stored_texts(bot) == []
    assert (replies(bot)[0].prompt, replies(bot)[0].text) == (None, None)
    await bot.ask("hi")
    assert SENTINEL not in str(bot.backend.chats[-1]["messages"])


async def test_a_message_deleted_while_it_is_answered_is_not_kept_either(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    incoming = bot.incoming(f"my {SENTINEL}")
    turn = await bot.conversation.turn(incoming)
    await bot.conversation.deleted(incoming.message_key)
    async for _ in turn:
        pass
    assert stored_texts(bot) == []
    assert (replies(bot)[0].prompt, replies(bot)[0].text) == (None, None)
    assert bot.conversation.memory.recall(CHANNEL) == ()


async def test_an_edit_replaces_what_is_stored(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    incoming = bot.incoming(f"my {SENTINEL}")
    async for _ in await bot.conversation.turn(incoming):
        pass
    await bot.conversation.edited(incoming.message_key, "something else, call +1 202 555 0143")
    (text,) = stored_texts(bot)
    assert text.startswith("something else") and "0143" not in text
    assert replies(bot)[0].prompt is None
    assert not await bot.conversation.edited(MessageKey("f" * 32), "never seen")


async def test_a_thread_has_talk_of_its_own_under_the_channels_settings(bot: World) -> None:
    thread = ChannelKey("7" * 32)
    await bot.ask("said in the channel")
    await bot.ask("said in the thread", thread=thread)
    assert "in the channel" not in str(bot.backend.chats[-1]["messages"])
    await bot.ask("and then?", thread=thread)
    assert "in the thread" in str(bot.backend.chats[-1]["messages"])
    with bot.database.write() as session:
        set_channel(session, CHANNEL, mode=ChannelMode.OFF)
    assert (await bot.ask("hi", thread=thread)).text == ""


async def test_a_reply_has_its_chain_as_context_even_after_a_restart(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    answer = MessageKey("9" * 32)
    incoming = bot.incoming("about cats")
    turn = await bot.conversation.turn(incoming)
    async for _ in turn:
        pass
    await bot.conversation.posted(incoming, turn, [answer])
    await bot.ask("about dogs")
    for _ in range(2):
        await bot.ask("go on", reply_to=answer)
        prompt = [one["content"] for one in bot.backend.chats[-1]["messages"][1:]]
        assert prompt == ["about cats", "base speaking", "go on"]
        bot.restart()
    assert await bot.conversation.reply_of(answer) == turn.reply_id


async def test_a_voter_in_a_frenzy_is_capped(bot: World) -> None:
    turn = await bot.ask("hi")
    assert turn.reply_id is not None
    with pytest.raises(NotPermitted, match="lot of votes"):
        for number in range(100):
            await bot.conversation.vote(turn.reply_id, BEN, Vote.UP if number % 2 else None)


async def test_members_pile_nothing_up_on_a_slow_backend(bot: World) -> None:
    bot.backend.gate = asyncio.Event()
    foreign = {"provenance": Provenance.TELEGRAM_MESSAGE, "platform": "telegram"}
    tasks = [asyncio.create_task(bot.ask(f"hello {number}", **foreign)) for number in range(6)]
    for _, told in zip(range(3), asyncio.as_completed(tasks), strict=False):
        assert (await told).text == messages.STILL_THINKING
    bot.backend.gate.set()
    texts = [turn.text for turn in await asyncio.gather(*tasks)]
    assert texts.count("base speaking") == 3
    assert texts.count(messages.STILL_THINKING) == 3


async def test_what_is_overheard_is_stored_only_with_consent_and_gets_no_answer(bot: World) -> None:
    bot.collect()
    bot.consent(ADA)
    assert await bot.conversation.overheard(bot.incoming("just chatting"))
    assert not await bot.conversation.overheard(bot.incoming("me too", BEN))
    assert stored_texts(bot) == ["just chatting"]
    assert (bot.backend.chats, bot.conversation.memory.recall(CHANNEL)) == ([], ())
