"""Every sentence that moderators and operators read, in one place; plain text, for every platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from bots.operators import VoiceStatus
from nocap.domain import BASE, AdapterStatus, RunId, RunState, SlangStatus
from storage.bursts import VoteBurst
from storage.messages import ChannelPurge
from storage.registry import PointerMove
from storage.reports import OpenReport
from storage.slang import FadingTerm
from storage.tables import Adapter, Channel, GateOutcome, Run, SlangTerm

if TYPE_CHECKING:
    from bots.moderation import Target

SHOWN_CHANNELS = 20
SHOWN_FADING = 10
NO_SLANG_WAITS = "No term waits for review."
NO_REPORTS = "No open reports. Nice."
PURGE_ASK = "This erases everything stored from {label} for good. Votes stay as bare counts. Go on?"
NOT_DONE = "Nothing was changed."
NO_RUNS = "No retrain yet."
NO_ADAPTERS = "No adapter yet: the base model speaks."
ROLLBACK_ASK = "Roll {voice} back to {to}? The next answer speaks with it."
PROMOTE_ASK = "Put {name} live? The next answer speaks with it."
SLANG_USAGE = (
    "/slang approve TERM [MEANING] puts it into the glossary, /slang dismiss TERM says that it is no slang,"
    " /slang block TERM keeps me from saying it."
)


def channel_status(rows: Sequence[Channel], targets: Sequence[Target]) -> str:
    lines = [_channel(row, target.label) for row, target in zip(rows, targets, strict=True)]
    return "\n".join([*lines[:SHOWN_CHANNELS], *_and_more(len(lines) - SHOWN_CHANNELS)])


def channels_changed(rows: Sequence[Channel], targets: Sequence[Target], detail: Mapping[str, object]) -> str:
    what = ", ".join(f"{name} {_shown(value)}" for name, value in detail.items())
    count = f"{len(rows)} channels" if len(rows) > 1 else targets[0].label
    lead = f"Done, from the next message on: {what} in {count}."
    if detail.get("collect"):
        lead += (
            " Collecting alone stores nothing: each member still has to say yes by /consent, and can take it back any"
            " time. Tell them."
        )
    return f"{lead}\n{channel_status(rows, targets)}"


def _channel(row: Channel, label: str) -> str:
    return (
        f"{label}: answers {_MODES[row.mode]}, voice {row.voice}, collecting {_shown(row.collect)},"
        f" duels {_shown(row.duels)}"
    )


_MODES = {"mention": "when addressed", "always": "to everything", "off": "nothing (off)"}


def slang_queue(waiting: Sequence[SlangTerm], total: int, fading: Sequence[FadingTerm] = ()) -> str:
    if not waiting:
        return "\n".join([NO_SLANG_WAITS, *_fading(fading)])
    lines = [f"{total} terms wait for review:"]
    lines += [
        f"  {one.term} (score {one.score:.1f}, {one.freshness:.0%} of its recent uses are from the last two weeks)"
        for one in waiting
    ]
    return "\n".join([*lines, *_and_more(total - len(waiting)), *_fading(fading), SLANG_USAGE])


def _fading(terms: Sequence[FadingTerm]) -> list[str]:
    if not terms:
        return []
    named = ", ".join(f"{one.term} ({one.before:.1f} → {one.now:.1f} a 1,000 messages)" for one in terms[:SHOWN_FADING])
    return [f"Going out of use: {named}. /slang block TERM takes one out of the glossary."]


def slang_reviewed(row: SlangTerm) -> str:
    if row.status == SlangStatus.APPROVED:
        return f"“{row.term}” is in the glossary{f': {row.gloss}' if row.gloss else ''}. The next answer knows it."
    if row.status == SlangStatus.DISMISSED:
        return f"“{row.term}” is no slang: I may say it, and won't propose it again."
    return f"“{row.term}” is blocked: I won't say it, and won't propose it again."


def report_queue(entries: Sequence[OpenReport], bursts: Sequence[VoteBurst] = ()) -> str:
    lines = ["Open reports, the most reported answer first:", *map(_report, entries)] if entries else [NO_REPORTS]
    return "\n".join([*lines, *map(_burst, bursts)])


def _burst(burst: VoteBurst) -> str:
    side = "up" if burst.is_up else "down"
    return (
        f"Looks like brigading: {burst.members} members voted {burst.adapter} {side} {burst.votes} times in a burst,"
        f" since {_moment(burst.first_at)}. The votes are kept; training leaves such bursts out."
    )


def _report(entry: OpenReport) -> str:
    about = f"an answer by {entry.adapter}" if entry.reply_id is not None else "the bot in this chat"
    if entry.is_storm:
        about = f"{entry.answers} answers to one and the same member" if entry.answers else "the bot in this chat"
        about += f" ({len(entry.ids)} reports within minutes, so perhaps a campaign; nobody is muted by it)"
    text = f"\n    I said: {_short(entry.text)}" if entry.text else ""
    reasons = "".join(f"\n    “{_short(reason)}”" for reason in entry.reasons[:3])
    people = "1 member" if entry.members == 1 else f"{entry.members} members"
    return f"  #{entry.ids[0]}: {about}, by {people}, since {_day(entry.first_at)}{text}{reasons}"


def report_settled(report_id: int, verdict: str) -> str:
    return f"Report #{report_id} is closed ({verdict})."


def purged(label: str, what: ChannelPurge) -> str:
    return (
        f"Purged {label}: {what.messages} messages, the texts of {what.replies} answers and {what.duels} duels."
        " The next retrain does without them."
    )


def status(one: VoiceStatus) -> str:
    lines = [
        f"Voice {one.voice}: {one.live} is live since {_day(one.since)}, on {one.base}.",
        f"Before it: {one.previous or 'nothing'}. Canary: {one.canary or 'none'}.",
        f"Last run: {one.last_run or 'none yet'}",
        f"Next run: {_moment(one.next_run) if one.next_run else 'by operators only'}",
        f"This week: {one.replies} answers, {one.up} 👍, {one.down} 👎, {one.cringe} cringe.",
    ]
    return "\n".join(lines)


def retrain_started(run_id: RunId) -> str:
    return (
        f"Run {run_id} is on its way. I'll say how it ended where I'm told to (`notice_channel`); /nocap runs shows it."
    )


def run_list(rows: Sequence[Run]) -> str:
    return "\n".join(run_line(row) for row in rows) if rows else NO_RUNS


def run_line(row: Run) -> str:
    where = f" at {row.stage}" if row.stage and not RunState(row.state).is_over else ""
    return f"{row.id}: {row.state}{where}{f', {row.challenger}' if row.challenger else ''}. {row.reason or ''}".rstrip()


def adapter_list(rows: Sequence[Adapter], live: VoiceStatus) -> str:
    if not rows:
        return NO_ADAPTERS
    marks = {live.live: " ← live", live.previous: " ← before it", live.canary: " ← canary"}
    lines = [f"{row.name}: {row.status}, {_day(row.created_at)}{marks.get(row.name, '')}" for row in rows[-15:]]
    if live.live == BASE:
        lines.append(f"{BASE}: the base model ← live")
    return "\n".join(lines)


def can_be_live(row: Adapter) -> bool:
    return row.status == AdapterStatus.PASSED


def moved(move: PointerMove) -> str:
    if move.before == move.after:
        return f"{move.voice} speaks with {move.after} already."
    return f"{move.voice} speaks with {move.after} from the next answer on (before: {move.before})."


def run_ended(run: Run, gates: Sequence[GateOutcome]) -> str:
    """The operators' notice: how the run ended and what each gate said."""
    lead = f"Retrain {run.id} of {run.voice}: {run.state}. {run.reason or ''}".rstrip()
    return f"{lead}\n{gate_table(gates)}" if gates else lead


def gate_table(gates: Sequence[GateOutcome]) -> str:
    """A fixed-width table, to be set in a fixed-width font."""
    marks = {"pass": "pass", "fail": "FAIL", "abstain": "----"}
    width = max(len(one.gate) for one in gates)
    return "\n".join(f"{marks.get(one.verdict, one.verdict):4}  {one.gate:{width}}  {one.sentence}" for one in gates)


def canary_ended(voice: str, canary: str, how: str) -> str:
    return f"The canary {canary} of {voice} was {how.rstrip('.')}."


def _and_more(count: int) -> list[str]:
    return [f"  … and {count} more"] if count > 0 else []


def _shown(value: object) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 160 else f"{flat[:159]}…"


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _moment(moment: datetime) -> str:
    return f"{_day(moment)}, {moment:%H:%M} UTC"
