"""Value types that every house shares. Nothing here imports anything of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, NewType

AdapterName = NewType("AdapterName", str)
VoiceName = NewType("VoiceName", str)
RunId = NewType("RunId", str)
# Keyed pseudonyms (HMAC-SHA256, hex) of the platforms' own ids: see storage.crypto.Keyring.pseudonym.
MemberKey = NewType("MemberKey", str)
ChannelKey = NewType("ChannelKey", str)
MessageKey = NewType("MessageKey", str)

BASE = AdapterName("base")
"""The reserved name under which a voice without an adapter is served: the base model, asked for by name."""

Clock = Callable[[], datetime]
"""Returns the present moment, aware, in UTC. The demo passes a simulated one."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Provenance(StrEnum):
    """Where a stored text comes from; together with consent it decides what may be done with it."""

    DISCORD_MESSAGE = "discord_message"
    DISCORD_SUBMISSION = "discord_submission"
    TELEGRAM_MESSAGE = "telegram_message"
    TELEGRAM_SUBMISSION = "telegram_submission"
    DONATION = "donation"
    OPERATOR_SEED = "operator_seed"
    TERMINAL = "terminal"
    BOT_REPLY = "bot_reply"
    SYNTHETIC = "synthetic"


class Purpose(StrEnum):
    """What a member may agree to, each on its own; the default is no."""

    STORE = "store"
    TRAIN = "train"
    EVALUATE = "evaluate"
    FEEDBACK = "feedback"


class ChannelMode(StrEnum):
    MENTION = "mention"
    ALWAYS = "always"
    OFF = "off"


class Vote(StrEnum):
    UP = "up"
    DOWN = "down"
    CRINGE = "cringe"


class DuelChoice(StrEnum):
    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"


class SlangStatus(StrEnum):
    CANDIDATE = "candidate"
    APPROVED = "approved"
    BLOCKED = "blocked"
    """Never said, and never proposed again."""
    DISMISSED = "dismissed"
    """No slang: never proposed again, and said as any other word."""


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    ABSTAIN = "abstain"


class AdapterStatus(StrEnum):
    CANDIDATE = "candidate"
    PASSED = "passed"
    REFUSED = "refused"
    RETIRED = "retired"


class Stage(StrEnum):
    """The stages of a run, in order; each is idempotent and resumable."""

    SNAPSHOT = "snapshot"
    TRAIN = "train"
    PREFERENCES = "preferences"
    MEASURE = "measure"
    GATES = "gates"
    PROMOTE = "promote"


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    ON_TRIAL = "on_trial"
    """The gates passed; the adapter answers in a share of the channels until members' votes decide."""
    PROMOTED = "promoted"
    REFUSED = "refused"
    ABSTAINED = "abstained"
    NOTHING_TO_LEARN = "nothing_to_learn"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self not in (RunState.QUEUED, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat prompt, in the wire format's roles."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How a reply is drawn. `temperature` 0 is greedy; `seed` None draws a fresh one."""

    temperature: float = 0.8
    top_p: float = 0.95
    max_tokens: int = 96
    seed: int | None = None
    stop: tuple[str, ...] = ()
