"""From stored messages to training examples: who answered whom, in which words."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby, pairwise

from nocap.domain import ChatMessage, MemberKey, MessageKey, Provenance
from storage.tables import Message

ANSWER_WITHIN = timedelta(minutes=10)
"""A message without `reply_to` answers the previous one of another member only this soon after it."""

_ADDRESSED = re.compile(r"^(?:\s*\[user\][\s,:]*)+")


class DropReason(StrEnum):
    """Why an eligible message is not a training or evaluation reply; `docs/curation.md` explains each."""

    NO_PROMPT = "no_prompt"
    CONTEXT_NOT_ELIGIBLE = "context_not_eligible"
    QUARANTINED = "quarantined"
    HELD_OUT_MEMBER = "held_out_member"
    HELD_OUT_ROW = "held_out_row"
    EVALUATE_CAP = "evaluate_cap"
    REPLAY_CAP = "replay_cap"
    EXAMPLE_CAP = "example_cap"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    EMOJI_ONLY = "emoji_only"
    COMMAND = "command"
    PERSONAL_DATA = "personal_data"
    LINK_OR_SPAM = "link_or_spam"
    LANGUAGE = "language"
    TOXIC = "toxic"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    RARE_NGRAM = "rare_ngram"
    MEMBER_CAP = "member_cap"
    TOKEN_CAP = "token_cap"
    MARKER_SURPLUS = "marker_surplus"


@dataclass(frozen=True, slots=True)
class Example:
    """One human reply and what it answers, without a system message."""

    messages: tuple[ChatMessage, ...]
    """Alternating turns, oldest first, from a `user` to a `user`; `assistant` is the replying member."""
    reply: str
    member: MemberKey
    """Who replied."""
    sent_at: datetime
    message_keys: tuple[MessageKey, ...]
    """Every stored row that was read for it, oldest first; the last is the reply's own."""
    provenance: Provenance
    """Of the reply."""
    turn_keys: tuple[MessageKey, ...] = ()
    """For each of `messages` the last stored row that it holds, which tells it from another turn of equal words;
    empty where the example is not made of stored rows."""

    @property
    def prompt(self) -> str:
        return self.messages[-1].content

    @property
    def key(self) -> MessageKey:
        return self.message_keys[-1]


def example_of(rows: Sequence[Message]) -> Example | DropReason:
    """The example whose reply is the last of `rows` and whose context and prompt are the others, in order."""
    reply = rows[-1]
    turns = list(_joined(rows[:-1], reply.member))
    if not turns or turns[-1][0].role != "user":
        return DropReason.NO_PROMPT
    return Example(
        messages=tuple(message for message, _ in turns),
        reply=_spoken(reply.text),
        member=MemberKey(reply.member),
        sent_at=reply.sent_at,
        message_keys=tuple(MessageKey(row.key) for row in rows),
        provenance=Provenance(reply.provenance),
        turn_keys=tuple(key for _, key in turns),
    )


def _spoken(text: str) -> str:
    """`text` without the mentions that it opens with: whom a reply addresses is the platform's business."""
    return _ADDRESSED.sub("", text).strip()


def _joined(rows: Iterable[Message], replying: str) -> Iterator[tuple[ChatMessage, MessageKey]]:
    """Turns of alternating roles with their last rows, from the first one of another member on; without empty texts."""
    spoken = [(row.member == replying, text, MessageKey(row.key)) for row in rows if (text := _spoken(row.text))]
    for index, (own, run) in enumerate(groupby(spoken, key=lambda turn: turn[0])):
        if index > 0 or not own:
            _, texts, keys = zip(*run, strict=True)
            yield ChatMessage("assistant" if own else "user", "\n".join(texts)), keys[-1]


class Threads:
    """Who answers whom among `messages`; rows in `blocked` are known but must not be used.

    A message that names none it answers goes with the one above it, unless it opens something itself: others answer
    it by name, or it is one of `to_the_bot`.
    """

    def __init__(
        self,
        messages: Iterable[Message],
        *,
        context_turns: int,
        blocked: Collection[MessageKey] = frozenset(),
        to_the_bot: Collection[MessageKey] = frozenset(),
    ) -> None:
        self._context_turns = context_turns
        self._blocked = blocked
        self._rows = {row.key: row for row in sorted(messages, key=lambda row: (row.sent_at, row.key))}
        self._openers = {row.reply_to for row in self._rows.values()} | set(to_the_bot)
        self._before: dict[str, Message] = {}
        self._before_by_other: dict[str, Message] = {}
        channels: defaultdict[str, list[Message]] = defaultdict(list)
        for row in self._rows.values():
            channels[row.channel].append(row)
        for rows in channels.values():
            self._index(rows)

    def _index(self, rows: Sequence[Message]) -> None:
        other: Message | None = None
        for previous, row in pairwise(rows):
            self._before[row.key] = previous
            if previous.member != row.member:
                other = previous
            if other is not None:
                self._before_by_other[row.key] = other

    def example(self, reply: Message) -> Example | DropReason:
        """The example that ends in `reply`, or why there is none."""
        if reply.key in self._blocked:
            return DropReason.HELD_OUT_ROW
        prompt = self._answered(reply)
        if isinstance(prompt, DropReason):
            return prompt
        if prompt.key in self._blocked:
            return DropReason.HELD_OUT_ROW
        context = self._context(prompt, reply)
        return example_of((*context, reply))

    def _answered(self, reply: Message) -> Message | DropReason:
        """The message of another member that `reply` answers."""
        if reply.reply_to is None:
            prompt = self._before_by_other.get(reply.key)
            if prompt is None or reply.key in self._openers or reply.sent_at - prompt.sent_at > ANSWER_WITHIN:
                return DropReason.NO_PROMPT
            return prompt
        seen = {reply.key}
        at = reply
        while at.member == reply.member:
            if at.reply_to is None or at.reply_to in seen:
                return DropReason.NO_PROMPT
            if at.reply_to not in self._rows:
                return DropReason.CONTEXT_NOT_ELIGIBLE
            at = self._rows[at.reply_to]
            seen.add(at.key)
        return at

    def _context(self, prompt: Message, reply: Message) -> list[Message]:
        """`prompt` and up to `context_turns` - 1 messages before it, oldest first."""
        chain = [prompt]
        seen = {prompt.key, reply.key}
        explicit = reply.reply_to is not None
        while len(chain) < self._context_turns:
            explicit = explicit or chain[-1].reply_to is not None
            earlier = self._earlier(chain[-1], explicit=explicit)
            if earlier is None or earlier.key in seen or earlier.key in self._blocked:
                break
            chain.append(earlier)
            seen.add(earlier.key)
        return chain[::-1]

    def _earlier(self, row: Message, *, explicit: bool) -> Message | None:
        """What `row` goes on from: in a thread only what it answers, else what stood just above it."""
        if explicit:
            return None if row.reply_to is None else self._rows.get(row.reply_to)
        above = self._before.get(row.key)
        return above if above is not None and row.sent_at - above.sent_at <= ANSWER_WITHIN else None


def build_examples(messages: Iterable[Message], *, context_turns: int) -> tuple[list[Example], dict[DropReason, int]]:
    """The examples of all `messages` in the order of sending, and how many messages gave none, by reason."""
    ordered = sorted(messages, key=lambda row: (row.sent_at, row.key))
    threads = Threads(ordered, context_turns=context_turns)
    examples: list[Example] = []
    dropped: Counter[DropReason] = Counter()
    for row in ordered:
        built = threads.example(row)
        if isinstance(built, Example):
            examples.append(built)
        else:
            dropped[built] += 1
    return examples, dict(dropped)
