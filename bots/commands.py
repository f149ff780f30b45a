"""Answers to members' commands, as plain text, for every platform."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import cached_property

import structlog

from bots import messages
from bots.desk import Desk
from bots.limits import RateLimits
from nocap.domain import ChannelKey, MemberKey, Purpose, RunId, RunState, SlangStatus
from nocap.observability.turns import INCIDENTS
from storage.channels import get_channel
from storage.consent import claim_ask, consent_state, record_consent
from storage.erasure import export, forget
from storage.registry import deployment
from storage.reports import file_report, raise_storm
from storage.runs import gate_results, latest_runs
from storage.slang import terms
from storage.tables import SlangTerm

TRENDING_TERMS = 8
LOOKED_BACK_RUNS = 10
NEWS = timedelta(days=28)
MAX_REASON_CHARACTERS = 500
log = structlog.get_logger("bots")
_GRANTING = frozenset({"grant", "yes", "agree"})
_AGE = re.compile(r"[0-9]{1,3}\+")
_REVOKING = frozenset({"revoke", "no", "withdraw"})


class Commands(Desk):
    """What members may ask besides chatting."""

    @cached_property
    def _report_limits(self) -> RateLimits:
        return RateLimits.per_member(self._settings.bots.reports_per_hour, per_seconds=3600.0)

    def help(self) -> str:
        return messages.HELP

    def privacy(self) -> str:
        return messages.PRIVACY

    async def slang(self, channel: ChannelKey, term: str = "") -> str:
        """A term's meaning and age, or what is trending; only what a moderator approved is ever shown."""
        approved = await asyncio.to_thread(self._approved, channel)
        wanted = term.strip()
        if not wanted or wanted.casefold() == "trending":
            freshest = sorted(approved, key=lambda one: (-one.freshness, -one.score, one.term))
            return messages.trending(freshest[:TRENDING_TERMS])
        found = [one for one in approved if one.term.casefold() == wanted.casefold()]
        exact = [one for one in found if one.term == wanted]
        return messages.slang_entry((exact or found)[0]) if found else messages.slang_unknown(wanted)

    async def consent(self, member: MemberKey, channel: ChannelKey, words: str = "") -> str:
        """What the member agrees to in this channel; `grant …` and `revoke …` change it first.

        Without named purposes, all are meant. `18+` among the words says that the member is that old.
        """
        verb, *said = words.casefold().split() or [""]
        ages = [int(word[:-1]) for word in said if _AGE.fullmatch(word)]
        named = [word for word in said if not _AGE.fullmatch(word)]
        age = max(ages, default=None)
        if verb not in _GRANTING | _REVOKING:
            return await asyncio.to_thread(self._overview, member, channel)
        unknown = [word for word in named if word != "all" and word not in Purpose.__members__.values()]
        if unknown:
            return messages.unknown_purpose(unknown[0])
        chosen = [Purpose(word) for word in named if word != "all"]
        purposes = list(Purpose) if "all" in named or not named else chosen
        return await self.record_consent(member, channel, purposes, granted=verb in _GRANTING, confirmed_age=age)

    async def record_consent(
        self,
        member: MemberKey,
        channel: ChannelKey,
        purposes: Sequence[Purpose],
        *,
        granted: bool,
        confirmed_age: int | None = None,
    ) -> str:
        """Writes it to the ledger; it holds from the next message on, and for the very next snapshot.

        A change of STORE drops the member's talk from memory: neither may what was agreed to before live on where
        it was taken back, nor may an answer that saw what was never agreed to be written afterwards.
        A yes without the confirmation of `privacy.minimum_age`, where that is set, is not recorded.
        """
        if granted and self.minimum_age is not None and (confirmed_age or 0) < self.minimum_age:
            return messages.consent_needs_age(self.minimum_age)
        needs_store = [purpose for purpose in purposes if purpose is not Purpose.STORE]
        stores = Purpose.STORE in purposes or not needs_store
        if granted and not stores and not (await self.consent_state(member, channel))[Purpose.STORE]:
            return messages.consent_needs_store(needs_store, self.minimum_age)
        state = await asyncio.to_thread(self._record, member, channel, purposes, granted)
        if Purpose.STORE in purposes:
            self._memory.forget_member(member, channel)
        return messages.consent_recorded(purposes, granted, state)

    @property
    def minimum_age(self) -> int | None:
        """What a yes must confirm, in years; None where nobody asks."""
        return self._settings.privacy.minimum_age

    async def consent_overview(self, member: MemberKey, channel: ChannelKey) -> tuple[str, dict[Purpose, bool]]:
        """What may be agreed to here, for a message with buttons, and what has been."""
        text = await asyncio.to_thread(self._overview, member, channel, has_buttons=True)
        return text, await self.consent_state(member, channel)

    async def consent_state(self, member: MemberKey, channel: ChannelKey) -> dict[Purpose, bool]:
        """What the member agrees to in this channel, for every purpose."""
        return await asyncio.to_thread(self._state, member, channel)

    async def ask_consent(self, member: MemberKey, channel: ChannelKey) -> str | None:
        """What to ask the member, in private; None where the chat does not collect, or they were asked before."""
        return await asyncio.to_thread(self._ask, member, channel)

    async def whatsnew(self, channel: ChannelKey) -> str:
        """What the newest adapter learned and what was refused and why, in plain words."""
        return await asyncio.to_thread(self._whatsnew, channel)

    async def report(self, member: MemberKey, channel: ChannelKey, reply_id: int | None, reason: str = "") -> str:
        """Files a complaint for the chat's moderators: one a member and answer, and not too many an hour."""
        if self._report_limits.take(member, channel):
            return messages.REPORTS_TOO_MANY
        is_new = await asyncio.to_thread(self._report, member, channel, reply_id, reason)
        return messages.REPORTED if is_new else messages.REPORTED_BEFORE

    async def export(self, member: MemberKey) -> str:
        """Everything held about the member, as JSON text for a file."""
        held = await asyncio.to_thread(self._export, member)
        return json.dumps(held, ensure_ascii=False, indent=2) + "\n"

    async def erase(self, member: MemberKey) -> str:
        """Erases the member's texts and votes everywhere; the receipt."""
        self._memory.forget_member(member)
        receipt = await asyncio.to_thread(self._erase, member)
        self._memory.forget_member(member)
        return receipt

    def _approved(self, channel: ChannelKey) -> list[SlangTerm]:
        now = self._clock()
        with self._database.read() as session:
            voice = self._voice_of(session, channel)
            approved = terms(session, voice, SlangStatus.APPROVED)
        return [one for one in approved if one.expires_at is None or one.expires_at > now]

    def _whatsnew(self, channel: ChannelKey) -> str:
        with self._database.read() as session:
            voice = self._voice_of(session, channel)
            live = deployment(session, voice)
            runs = latest_runs(session, voice, LOOKED_BACK_RUNS)
            ended = [run for run in runs if RunState(run.state).is_over]
            refused = next((run for run in ended if run.state == RunState.REFUSED), None)
            told = [*ended[:1], *([refused] if refused and refused is not ended[0] else [])]
            outcomes = [(run, gate_results(session, RunId(run.id))) for run in told]
        fresh = [one.term for one in self._approved(channel) if one.first_seen and one.first_seen > live.since - NEWS]
        return messages.whatsnew(live, outcomes, sorted(fresh)[:TRENDING_TERMS])

    def _report(self, member: MemberKey, channel: ChannelKey, reply_id: int | None, reason: str) -> bool:
        at = self._clock()
        with self._database.write() as session:
            filed = file_report(session, channel, member, reply_id, reason[:MAX_REASON_CHARACTERS], at)
            members = raise_storm(session, filed, at) if filed else None
        if members is not None:
            INCIDENTS.labels("report storm").inc()
            log.warning("report storm", channel=filed, members=members)
        return filed is not None

    def _ask(self, member: MemberKey, channel: ChannelKey) -> str | None:
        policy = self._settings.policy_version
        with self._database.read() as session:
            row = get_channel(session, channel)
            if row is None or not row.collect:
                return None
        with self._database.write() as session:
            may_ask = claim_ask(session, member, channel, policy, self._clock())
        return self._overview(member, channel, has_buttons=True) if may_ask else None

    def _state(self, member: MemberKey, channel: ChannelKey) -> dict[Purpose, bool]:
        with self._database.read() as session:
            return consent_state(session, member, channel, self._settings.policy_version)

    def _overview(self, member: MemberKey, channel: ChannelKey, *, has_buttons: bool = False) -> str:
        with self._database.read() as session:
            row = get_channel(session, channel)
            state = consent_state(session, member, channel, self._settings.policy_version)
        collects = row is not None and row.collect
        return messages.consent_overview(
            state, collects, self._settings.policy_version, minimum_age=self.minimum_age, has_buttons=has_buttons
        )

    def _record(
        self, member: MemberKey, channel: ChannelKey, purposes: Collection[Purpose], granted: bool
    ) -> dict[Purpose, bool]:
        policy = self._settings.policy_version
        with self._database.write() as session:
            record_consent(session, member, channel, purposes, granted, policy, self._clock())
            return consent_state(session, member, channel, policy)

    def _export(self, member: MemberKey) -> dict[str, object]:
        return export(self._database, member)

    def _erase(self, member: MemberKey) -> str:
        now = self._clock()
        return messages.receipt(forget(self._database, self._settings, member, now), now)
