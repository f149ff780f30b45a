"""PostgreSQL goes away in the middle of the talk and comes back: bots answer, votes wait on disk, none is doubled."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import URL
from sqlmodel import select

from bots.conversation import Conversation
from bots.limits import RateLimits
from bots.records import Incoming
from bots.turn import Outcome
from inference.client import BackendClient
from inference.responder import RoutedResponder
from inference.router import Replica, Router
from nocap.domain import (
    AdapterName,
    ChannelKey,
    DuelChoice,
    MemberKey,
    MessageKey,
    Provenance,
    VoiceName,
    Vote,
)
from nocap.errors import InputError, StorageError, VoteWaits
from nocap.settings import Settings
from storage.crypto import Keyring
from storage.database import Database
from storage.feedback import cast_vote, record_duel
from storage.invariants import check_rows
from storage.messages import forget_member
from storage.outbox import FILE, VoteOutbox
from storage.pointers import LivePointers
from storage.registry import ensure_voice, move_pointer, register_adapter
from storage.tables import Adapter, DuelVote, Feedback, Message, Reply
from tests.fakes.backend import FakeBackend
from tests.faults.proxy import Proxy
from tests.storage.community import ANA, BEN, FLAT, GENZ, NOW, POLICY, agree, answer, open_channel


class Away:
    """A database behind a proxy, and the same one reached directly."""

    def __init__(self, direct: Database, proxied: Database, proxy: Proxy) -> None:
        self.direct, self.proxied, self.proxy = direct, proxied, proxy

    def votes(self) -> dict[tuple[int, str], str]:
        with self.direct.read() as session:
            rows = session.exec(select(Feedback)).all()
        assert max(Counter((row.reply_id, row.member) for row in rows).values(), default=1) == 1
        return {(row.reply_id, row.member): row.vote for row in rows}


@pytest.fixture
def away(postgres_database: Database, keyring: Keyring) -> Iterator[Away]:
    url: URL = postgres_database.url
    proxy = Proxy((url.host or "127.0.0.1", url.port or 5432))
    through = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
    proxied = Database.open(through, keyring)
    with postgres_database.write() as session:
        ensure_voice(session, GENZ, "You are a bot.", ["fr"], NOW)
        open_channel(session)
        agree(session, ANA)
    yield Away(postgres_database, proxied, proxy)
    proxied.close()
    proxy.close()


def answers(database: Database, count: int) -> list[int]:
    with database.write() as session:
        return [answer(session) for _ in range(count)]


def test_votes_cast_while_the_database_is_away_are_written_once_when_it_is_back(away: Away, tmp_path: Path) -> None:
    replies = answers(away.direct, 4)
    outbox = VoteOutbox(away.proxied, tmp_path)
    assert outbox.cast(replies[0], BEN, Vote.UP, NOW)
    away.proxy.cut()
    assert not outbox.cast(replies[1], BEN, Vote.CRINGE, NOW)
    assert not outbox.cast(replies[0], BEN, Vote.DOWN, NOW + timedelta(seconds=1))
    assert not outbox.cast(replies[2], BEN, Vote.UP, NOW)
    assert not outbox.cast(replies[2], BEN, None, NOW + timedelta(seconds=1))
    assert outbox.waiting() == 4
    away.proxy.mend()
    assert VoteOutbox(away.proxied, tmp_path).flush(), "another process of the machine writes them too"
    assert outbox.waiting() == 0
    assert away.votes() == {(replies[0], BEN): "down", (replies[1], BEN): "cringe"}
    assert outbox.cast(replies[3], BEN, Vote.UP, NOW)


def test_a_kill_between_the_two_commits_doubles_no_vote(
    away: Away, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reply,) = answers(away.direct, 1)
    outbox = VoteOutbox(away.proxied, tmp_path)
    away.proxy.cut()
    outbox.cast(reply, BEN, Vote.UP, NOW)
    away.proxy.mend()

    class KilledError(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr("storage.outbox.log.info", killed)
        outbox.flush()
    assert away.votes() == {(reply, BEN): "up"}
    assert outbox.waiting() == 1
    assert outbox.flush()
    assert away.votes() == {(reply, BEN): "up"}


def test_a_newer_vote_cast_elsewhere_outlives_one_that_waited(away: Away, tmp_path: Path) -> None:
    (reply,) = answers(away.direct, 1)
    outbox = VoteOutbox(away.proxied, tmp_path)
    away.proxy.cut()
    outbox.cast(reply, BEN, Vote.UP, NOW)
    with away.direct.write() as session:
        cast_vote(session, reply, BEN, Vote.DOWN, NOW + timedelta(seconds=1))
    away.proxy.mend()
    assert outbox.flush()
    assert away.votes() == {(reply, BEN): "down"}


def test_a_vote_taken_back_elsewhere_does_not_come_back_when_an_older_one_waited(away: Away, tmp_path: Path) -> None:
    (reply,) = answers(away.direct, 1)
    outbox = VoteOutbox(away.proxied, tmp_path)
    away.proxy.cut()
    outbox.cast(reply, BEN, Vote.UP, NOW)
    assert VoteOutbox(away.direct, tmp_path / "another machine").cast(reply, BEN, None, NOW + timedelta(seconds=1))
    away.proxy.mend()
    assert outbox.flush()
    assert away.votes() == {}
    assert outbox.cast(reply, BEN, Vote.CRINGE, NOW + timedelta(seconds=2))
    assert away.votes() == {(reply, BEN): "cringe"}


def test_a_vote_of_a_member_who_was_forgotten_meanwhile_does_not_come_back(away: Away, tmp_path: Path) -> None:
    (reply,) = answers(away.direct, 1)
    outbox = VoteOutbox(away.proxied, tmp_path)
    away.proxy.cut()
    outbox.cast(reply, BEN, Vote.UP, NOW)
    with away.direct.write() as session:
        forget_member(session, BEN, NOW + timedelta(seconds=1))
    away.proxy.mend()
    assert outbox.flush()
    assert away.votes() == {}


def test_a_vote_on_what_was_erased_meanwhile_does_not_stop_the_others(away: Away, tmp_path: Path) -> None:
    gone, there = answers(away.direct, 2)
    outbox = VoteOutbox(away.proxied, tmp_path)
    away.proxy.cut()
    outbox.cast(gone, BEN, Vote.UP, NOW)
    outbox.cast(there, BEN, Vote.UP, NOW)
    with away.direct.write() as session:
        session.delete(session.get_one(Reply, gone))
    away.proxy.mend()
    assert outbox.flush()
    assert away.votes() == {(there, BEN): "up"}


def test_many_threads_lose_no_vote_while_the_database_comes_and_goes(away: Away, tmp_path: Path) -> None:
    replies = answers(away.direct, 120)
    outbox = VoteOutbox(away.proxied, tmp_path)
    expected = {(reply, BEN): Vote(["up", "down", "cringe"][reply % 3]) for reply in replies}
    stop = threading.Event()

    def disturb() -> None:
        while not stop.wait(0.05):
            away.proxy.cut()
            stop.wait(0.05)
            away.proxy.mend()

    def vote(part: int) -> None:
        for reply in replies[part::4]:
            outbox.cast(reply, BEN, expected[reply, BEN], NOW)

    disturber = threading.Thread(target=disturb)
    voters = [threading.Thread(target=vote, args=(part,)) for part in range(4)]
    for thread in (disturber, *voters):
        thread.start()
    for thread in voters:
        thread.join()
    stop.set()
    disturber.join()
    away.proxy.mend()
    assert outbox.flush()
    assert away.votes() == expected
    with away.direct.read() as session:
        assert {finding.level for finding in check_rows(session)} == {"ok"}


def test_the_outbox_holds_no_more_than_the_vote_and_is_private(away: Away, tmp_path: Path) -> None:
    (reply,) = answers(away.direct, 1)
    away.proxy.cut()
    VoteOutbox(away.proxied, tmp_path).cast(reply, BEN, Vote.UP, NOW)
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_an_unknown_reply_is_refused_at_once_where_the_database_is_there(away: Away, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        VoteOutbox(away.proxied, tmp_path).cast(10**6, BEN, Vote.UP, NOW)


class Bot:
    """One bot process's conversation over the proxied database and a fake backend."""

    def __init__(self, away: Away, folder: Path) -> None:
        self.backend = FakeBackend()
        client = BackendClient("http://fake", timeout_seconds=5, transport=self.backend.transport())
        responder = RoutedResponder(Router(LivePointers(away.proxied).read), [Replica(client)], str)
        limits = RateLimits(member_per_minute=1e6, channel_per_minute=1e6, everyone_per_minute=1e6)
        settings = Settings(data_dir=folder)
        self.conversation = Conversation(away.proxied, responder, settings, lambda: NOW, limits=limits)
        self._count = 0

    async def ask(self, channel: ChannelKey = FLAT, member: MemberKey = ANA) -> tuple[Outcome, str, int | None]:
        self._count += 1
        key = MessageKey(f"q{self._count}")
        incoming = Incoming("telegram", channel, member, key, "hello there", NOW, Provenance.TERMINAL)
        turn = await self.conversation.turn(incoming)
        async for _ in turn:
            pass
        return turn.outcome, turn.text, turn.reply_id


async def test_a_bot_answers_while_the_database_is_away_and_records_again_when_it_is_back(
    away: Away, tmp_path: Path
) -> None:
    bot = Bot(away, tmp_path)
    outcome, _, first = await bot.ask()
    assert (outcome, first is None) == (Outcome.ANSWERED, False)
    away.proxy.cut()
    outcome, text, unrecorded = await bot.ask()
    assert (outcome, unrecorded) == (Outcome.ANSWERED, None), text
    assert first is not None
    await bot.conversation.vote(first, BEN, Vote.UP)
    assert away.votes() == {}
    outcome, text, _ = await bot.ask(ChannelKey("never seen"))
    assert outcome is Outcome.FAILED
    away.proxy.mend()
    outcome, _, third = await bot.ask()
    assert (outcome, third is None) == (Outcome.ANSWERED, False)
    await bot.conversation.vote(third or 0, BEN, Vote.DOWN)
    assert away.votes() == {(first, BEN): "up", (third, BEN): "down"}
    with away.direct.read() as session:
        assert sorted(session.exec(select(Message.key))) == ["q1", "q4"]


async def test_a_duel_vote_waits_and_says_so(away: Away, tmp_path: Path) -> None:
    with away.direct.write() as session:
        duel = record_duel(
            session,
            channel=FLAT,
            voice=GENZ,
            prompt_member=ANA,
            prompt_key=None,
            prompt=None,
            left_adapter=AdapterName("base"),
            right_adapter=AdapterName("genz-v1"),
            left_text=None,
            right_text=None,
            provenance=Provenance.TERMINAL,
            policy_version=POLICY,
            at=NOW,
        )
    bot = Bot(away, tmp_path)
    away.proxy.cut()
    with pytest.raises(VoteWaits):
        await bot.conversation.duel_vote(duel, BEN, DuelChoice.LEFT)
    away.proxy.mend()
    assert (await bot.conversation.duel_vote(duel, ANA, DuelChoice.TIE)).left == "base"
    with away.direct.read() as session:
        assert {(row.member, row.choice) for row in session.exec(select(DuelVote))} == {(BEN, "left"), (ANA, "tie")}


def test_a_promotion_is_seen_by_the_next_request_and_the_last_one_known_goes_on_while_away(away: Away) -> None:
    one, other = LivePointers(away.proxied), LivePointers(away.direct)
    with pytest.raises(InputError):
        one.read(VoiceName("nobody"))
    assert (one.read(GENZ).current, other.read(GENZ).current) == ("base", "base")
    with away.direct.write() as session:
        register_adapter(
            session,
            Adapter(name="genz-v1", voice=GENZ, base="b", base_digest="b", digest="d", status="passed", created_at=NOW),
        )
        move_pointer(session, GENZ, AdapterName("genz-v1"), actor="test", reason="test", at=NOW)
    assert (one.read(GENZ).current, other.read(GENZ).current) == ("genz-v1", "genz-v1")
    assert away.proxied.why_away() is None
    away.proxy.cut()
    assert "cannot be used" in (away.proxied.why_away() or "")
    assert one.read(GENZ).current == "genz-v1"
    with pytest.raises(StorageError):
        LivePointers(away.proxied).read(GENZ)
