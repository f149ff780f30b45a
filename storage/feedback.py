"""The bot's answers, the votes on them, and blind duels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy
from sqlalchemy import delete, func, tuple_
from sqlmodel import Session, col, select

from nocap.domain import (
    AdapterName,
    ChannelKey,
    DuelChoice,
    MemberKey,
    MessageKey,
    Provenance,
    Purpose,
    VoiceName,
    Vote,
)
from nocap.errors import InputError
from nocap.text.scrub import scrub
from storage._sql import lock_texts, upsert
from storage.consent import has_consent
from storage.tables import Channel, Duel, DuelVote, Feedback, Reply, Tombstone, WithdrawnVote


@dataclass(slots=True)
class VoteCounts:
    up: int = 0
    down: int = 0
    cringe: int = 0
    replies: int = 0


@dataclass(frozen=True, slots=True)
class FeedbackSummary:
    """Votes cast and answers given in a span of time."""

    up: int
    down: int
    cringe: int
    replies: int
    by_adapter: dict[str, VoteCounts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DuelScore:
    """Votes of the duels between two adapters, from the challenger's side."""

    wins: int
    losses: int
    ties: int
    both_bad: int


# Built once: every turn of the chat asks.
_COLLECTING = sqlalchemy.select(
    col(Channel.collect),
    sqlalchemy.exists().where(col(Tombstone.key) == sqlalchemy.bindparam("prompt_key")).label("is_erased"),
).where(col(Channel.key) == sqlalchemy.bindparam("channel"))


_NEW_REPLY = sqlalchemy.insert(Reply).returning(col(Reply.id))


def record_reply(
    session: Session,
    *,
    channel: ChannelKey,
    voice: VoiceName,
    adapter: AdapterName,
    prompt_member: MemberKey,
    prompt_key: MessageKey | None,
    prompt: str | None,
    text: str | None,
    provenance: Provenance,
    policy_version: str,
    at: datetime,
) -> int:
    """The new reply's id. Its texts are kept, scrubbed, only where the channel collects and the author agreed."""
    keep = _may_store(session, prompt_member, channel, prompt_key, policy_version)
    row = {
        "channel": channel,
        "voice": voice,
        "adapter": adapter,
        "prompt_member": prompt_member,
        "prompt_key": prompt_key,
        "prompt": _kept(prompt, keep),
        "text": _kept(text, keep),
        "provenance": provenance,
        "at": at,
    }
    return _id(session.connection().execute(_NEW_REPLY, row).scalar())


def prompts_to_the_bot(session: Session, voice: VoiceName) -> frozenset[MessageKey]:
    """Keys of the messages that the bot has answered: they answer nobody themselves."""
    keys = session.exec(select(Reply.prompt_key).where(Reply.voice == voice, col(Reply.prompt_key).is_not(None)))
    duels = session.exec(select(Duel.prompt_key).where(Duel.voice == voice, col(Duel.prompt_key).is_not(None)))
    return frozenset(MessageKey(key) for key in (*keys, *duels) if key is not None)


def cast_vote(
    session: Session,
    reply_id: int,
    member: MemberKey,
    vote: Vote | None,
    at: datetime,
    *,
    only_if_newer: bool = False,
) -> None:
    """Sets the member's one vote on a reply, or withdraws it (None). Raises InputError for an unknown reply.

    A vote that comes late (`only_if_newer`) changes nothing where the member voted, took the vote back or was
    forgotten after it.
    """
    if session.get(Reply, reply_id) is None:
        raise InputError(f"There is no reply {reply_id} to vote on; vote on a newer one.")
    if vote is None:
        mine = [col(Feedback.reply_id) == reply_id, col(Feedback.member) == member]
        session.execute(delete(Feedback).where(*mine, *([col(Feedback.at) <= at] if only_if_newer else [])))
        taken_back = {"reply_id": reply_id, "member": member, "at": at}
        upsert(session, WithdrawnVote, taken_back, key=("reply_id", "member"), where=col(WithdrawnVote.at) < at)
        return
    if only_if_newer:
        taken_back_later = session.get(WithdrawnVote, (reply_id, member))
        if _forgotten_since(session, member, at) or (taken_back_later is not None and taken_back_later.at > at):
            return
    row = {"reply_id": reply_id, "member": member, "vote": vote, "at": at}
    upsert(session, Feedback, row, key=("reply_id", "member"), where=col(Feedback.at) <= at if only_if_newer else None)


def present_vote(session: Session, reply_id: int, member: MemberKey) -> Vote | None:
    """The member's vote on the reply, if any."""
    row = select(Feedback.vote).where(Feedback.reply_id == reply_id, Feedback.member == member)
    found = session.exec(row).first()
    return Vote(found) if found else None


def record_duel(
    session: Session,
    *,
    channel: ChannelKey,
    voice: VoiceName,
    prompt_member: MemberKey,
    prompt_key: MessageKey | None,
    prompt: str | None,
    left_adapter: AdapterName,
    right_adapter: AdapterName,
    left_text: str | None,
    right_text: str | None,
    provenance: Provenance,
    policy_version: str,
    at: datetime,
) -> int:
    """The new duel's id. Its texts are kept, scrubbed, only where the channel collects and the author agreed."""
    keep = _may_store(session, prompt_member, channel, prompt_key, policy_version)
    duel = Duel(
        channel=channel,
        voice=voice,
        prompt_member=prompt_member,
        prompt_key=prompt_key,
        provenance=provenance,
        prompt=_kept(prompt, keep),
        left_adapter=left_adapter,
        right_adapter=right_adapter,
        left_text=_kept(left_text, keep),
        right_text=_kept(right_text, keep),
        at=at,
    )
    session.add(duel)
    session.flush()
    return _id(duel.id)


def cast_duel_vote(
    session: Session,
    duel_id: int,
    member: MemberKey,
    choice: DuelChoice,
    at: datetime,
    *,
    only_if_newer: bool = False,
) -> None:
    """Sets the member's one vote in a duel, as `cast_vote` does. Raises InputError for an unknown duel."""
    if session.get(Duel, duel_id) is None:
        raise InputError(f"There is no duel {duel_id} to vote on; start a new one.")
    if only_if_newer and _forgotten_since(session, member, at):
        return
    row = {"duel_id": duel_id, "member": member, "choice": choice, "at": at}
    upsert(session, DuelVote, row, key=("duel_id", "member"), where=col(DuelVote.at) <= at if only_if_newer else None)


def feedback_since(
    session: Session, voice: VoiceName, since: datetime, until: datetime | None = None
) -> FeedbackSummary:
    """Votes cast, and answers given, in [since, until), in all and by adapter."""
    by_adapter: dict[str, VoteCounts] = defaultdict(VoteCounts)
    replies = select(Reply.adapter, func.count()).where(Reply.voice == voice, Reply.at >= since)
    votes = (
        select(Reply.adapter, Feedback.vote, func.count())
        .join(Feedback, col(Feedback.reply_id) == Reply.id)
        .where(Reply.voice == voice, Feedback.at >= since)
    )
    if until is not None:
        replies, votes = replies.where(Reply.at < until), votes.where(Feedback.at < until)
    for adapter, count in session.exec(replies.group_by(col(Reply.adapter))):
        by_adapter[adapter].replies = count
    for adapter, vote, count in session.exec(votes.group_by(col(Reply.adapter), col(Feedback.vote))):
        setattr(by_adapter[adapter], Vote(vote).value, count)
    counts = by_adapter.values()
    return FeedbackSummary(
        up=sum(count.up for count in counts),
        down=sum(count.down for count in counts),
        cringe=sum(count.cringe for count in counts),
        replies=sum(count.replies for count in counts),
        by_adapter=dict(by_adapter),
    )


def duel_score(session: Session, voice: VoiceName, challenger: AdapterName, incumbent: AdapterName) -> DuelScore:
    """The votes of every duel between the two, whichever side each stood on."""
    sides = tuple_(col(Duel.left_adapter), col(Duel.right_adapter))
    rows = session.exec(
        select(Duel.left_adapter, DuelVote.choice, func.count())
        .join(DuelVote, col(DuelVote.duel_id) == Duel.id)
        .where(Duel.voice == voice, sides.in_([(challenger, incumbent), (incumbent, challenger)]))
        .group_by(col(Duel.left_adapter), col(DuelVote.choice))
    )
    score = {"wins": 0, "losses": 0, "ties": 0, "both_bad": 0}
    for left, choice, count in rows:
        score[_outcome(DuelChoice(choice), challenger_is_left=left == challenger)] += count
    return DuelScore(**score)


def _forgotten_since(session: Session, member: MemberKey, at: datetime) -> bool:
    forgotten = session.get(Tombstone, member)
    return forgotten is not None and at <= forgotten.at


def _outcome(choice: DuelChoice, *, challenger_is_left: bool) -> str:
    if choice is DuelChoice.TIE:
        return "ties"
    if choice is DuelChoice.BOTH_BAD:
        return "both_bad"
    return "wins" if (choice is DuelChoice.LEFT) == challenger_is_left else "losses"


def _may_store(
    session: Session, member: MemberKey, channel: ChannelKey, prompt_key: MessageKey | None, policy_version: str
) -> bool:
    lock_texts(session, erasing=False)
    row = session.connection().execute(_COLLECTING, {"channel": channel, "prompt_key": prompt_key}).first()
    may = row is not None and row.collect and not row.is_erased
    return bool(may) and has_consent(session, member, channel, Purpose.STORE, policy_version)


def _kept(text: str | None, keep: bool) -> str | None:
    return scrub(text) if keep and text is not None else None


def _id(value: int | None) -> int:
    assert value is not None, "a flushed row has its id"
    return value
