"""Every sentence that members read, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from bots.limits import Limit, Limited
from nocap.domain import BASE, AdapterName, DuelChoice, Purpose, RunState, Verdict, Vote
from nocap.errors import (
    AdapterError,
    BackendBusy,
    BackendPaused,
    BackendUnavailable,
    ConfigurationError,
    InferenceError,
    InputError,
    NocapError,
    NotPermitted,
    PromptTooLong,
    RunError,
    StorageError,
    VoteWaits,
)
from storage.messages import ErasureReceipt
from storage.tables import Deployment, GateOutcome, Run, SlangTerm

EMPTY = "I only read text. Say it in words and I'm in."
CHANNEL_OFF = "I'm switched off in this chat."
NOTHING_TO_SAY = "I've got nothing to say to that. Try putting it another way."
DUELS_OFF = "Duels are switched off in this chat."
NO_OPPONENT = "There is only one voice so far, so there is nobody to duel. Ask again after the next retrain."
REPORTED = "Thanks, this chat's moderators will see it."
REPORTED_BEFORE = "You've reported that one already; the moderators have it."
REPORTS_TOO_MANY = "That's a lot of reports. The moderators have your earlier ones; try again in an hour."
STILL_THINKING = "I'm still on your last ones. One moment."
VOTES_TOO_FAST = "That's a lot of votes at once. Give it a minute; the earlier ones count."
UNKNOWN_REPLY = "That answer is gone, so it can't be voted on any more."
UNKNOWN_DUEL = "That duel is gone, so it can't be voted on any more."
NOTHING_TO_VOTE_ON = "There is no answer to vote on yet."

WELCOME = """\
Hi, I'm a bot: a language model that picks up how this community talks, not a person.
Nothing that you write is stored unless you say so: /consent says what and why, /privacy all the rest. The default \
is no.
Write something, or /help."""
WELCOME_BACK = "Back again, still a bot. /help says what I can do."
STOPPED = " (stopped)"
GOODBYE = "Bye."
UNKNOWN_COMMAND = "I don't know that command. /help lists them."
DUEL_USAGE = "Say what they should answer: /duel TEXT."
DUEL_ASK = "Which one: left, right, tie or both bad?"
DUEL_SKIPPED = "No vote, then."
MYDATA_USAGE = "Either /mydata export [FILE] or /mydata delete."
TYPE_YES = "Type yes to go on."

FAILURES: tuple[tuple[type[Exception], str], ...] = (
    (BackendPaused, "I'm being retrained right now and can't think meanwhile. Ask me again in a while."),
    (BackendBusy, "Too many people are talking to me at once. Give me a moment and ask again."),
    (PromptTooLong, "That's more than I can take in at once. Try it shorter."),
    (BackendUnavailable, "I can't reach the machine I think with. Try again in a minute."),
    (InferenceError, "I couldn't get a proper answer together. Try again; if it stays like this, tell a moderator."),
    (ConfigurationError, "I'm not set up right, and only my operator can mend that."),
    (VoteWaits, "Your vote is safe and will count. I just can't look up who was who right now."),
    (StorageError, "I can't reach my notebook right now, so I'd rather not answer. Try again in a minute."),
)
UNEXPECTED = "Something broke on my side. Try again; if it stays like this, tell a moderator."

PRIVACY = """\
I'm a bot: an open language model with a small adapter on top, not a person.
What is kept about you by default: no text at all. What you write passes through memory to answer you and is gone \
soon after.
What is always kept: under which pseudonym (a keyed hash, never your name) an answer was given, by which adapter, \
and the votes that you cast yourself.
What is kept only if you say yes, in this chat alone: your messages to me (scrubbed of addresses and numbers, \
encrypted), and, each on its own, their use for teaching me and for testing me.
You can look at everything and erase everything at any time: /mydata export, /mydata delete. Take back a yes: \
/consent revoke."""

HELP = """\
I'm a bot that speaks this community's slang; I get things wrong, so don't rely on me.
Write to me and I answer. Afterwards: /up, /down or /cringe votes on the last answer, /undo takes the vote back.
/duel TEXT      two hidden voices answer, you pick
/slang [TERM]   what a term means, or what's trending
/consent        what you may agree to, and what you have agreed to
/mydata export  everything held about you; /mydata delete erases it
/privacy        what is kept and what isn't
/help           this"""

HELP_IN_CHAT = """\
I'm a bot that speaks this community's slang; I get things wrong, so don't rely on me.
Mention me, reply to me, or write to me in private, and I answer. Vote with the buttons below an answer; press again \
to take it back.
/ask            ask me from anywhere
/duel           two hidden voices answer, you pick, then you see who was who
/slang          what a term means, or what's trending
/consent        what you may agree to, and what you have agreed to
/mydata         export: everything held about you; delete: erases it
/whatsnew       what I learnt last, and what was refused
/report         tell the moderators about an answer
/privacy        what is kept and what isn't
Moderators: /channel, /slang approve, block and queue, /reports."""

SEES_NO_PICTURES = "I can't see pictures, stickers or files, only words. What's in it?"
REPLY_WITHOUT_PING = "I can't read that one. Mention me, or leave the ping on when you reply."
ASK_ABOUT = "What do you say to that?"
RETRY_IS_THEIRS = "Only who asked can try that again."
RETRY_IS_GONE = "That question is gone. Ask me again."
CONSENT_TAP = "Tap to say yes or to take it back; it holds from the next message on."
NOT_SERVED = "I'm not set up for this server."
ONLY_IN_SERVERS = "That works in a server's channels only."
NO_LONGER = "That button is too old. Ask for it again."

PURPOSES: Mapping[Purpose, str] = {
    Purpose.STORE: "keep my messages to the bot in this chat, scrubbed and encrypted",
    Purpose.TRAIN: "teach the bot's next adapters from them (needs `store`)",
    Purpose.EVALUATE: "test new adapters against them (needs `store`)",
    Purpose.FEEDBACK: "teach it from my votes too (needs `store`)",
}

CONSENT_LEAD = """\
Your choice, for this chat only, and the answer to everything is no until you say yes.
Why: the bot learns how people here really talk. How long: until you take it back or erase it; texts that an \
adapter has learnt from leave with the next retrain, which starts from the plain base model."""

ERASE_ASK = "This erases your texts and votes everywhere for good and takes back every consent."
NOT_ERASED = "Nothing was erased."


def limited(limit: Limited) -> str:
    wait = _seconds(limit.wait_seconds)
    match limit.by:
        case Limit.MEMBER:
            return f"Easy, I need a breather. Ask me again in {wait}."
        case Limit.CHANNEL:
            return f"This chat is quicker than I am. Ask me again in {wait}."
        case Limit.EVERYONE:
            return f"I'm in a lot of chats right now. Ask me again in {wait}."


def failure(error: Exception, incident: str) -> str:
    """What a member is told; the incident id leads the operator to the cause in the log."""
    sentence = next((text for kind, text in FAILURES if isinstance(error, kind)), UNEXPECTED)
    if isinstance(error, BackendBusy) and not isinstance(error, BackendPaused) and error.retry_after_seconds >= 2:
        sentence = f"Too many people are talking to me at once. Ask again in {_seconds(error.retry_after_seconds)}."
    return f"{sentence} (incident {incident})"


def refusal(error: NocapError, incident: str) -> str:
    """What whoever asked for a command is told: our own errors about input and rights speak for themselves."""
    if isinstance(error, InputError | NotPermitted | RunError | AdapterError):
        return str(error)
    return failure(error, incident)


def broke_off(incident: str) -> str:
    """Closes an answer that fails after some of it was shown."""
    return f"\n(… I lost the thread there. Ask me again. Incident {incident})"


def voted(vote: Vote | None) -> str:
    return {Vote.UP: "Noted: 👍", Vote.DOWN: "Noted: 👎", Vote.CRINGE: "Noted: cringe 😬", None: "Vote taken back."}[
        vote
    ]


def revealed(left: AdapterName, right: AdapterName, choice: DuelChoice) -> str:
    picked = {
        DuelChoice.LEFT: f"You picked the left one: {left}.",
        DuelChoice.RIGHT: f"You picked the right one: {right}.",
        DuelChoice.TIE: "You called it a tie.",
        DuelChoice.BOTH_BAD: "Both bad, fair enough.",
    }[choice]
    return f"{picked} Left was {left}, right was {right}."


def slang_entry(term: SlangTerm) -> str:
    seen = f"first seen {_day(term.first_seen)}, " if term.first_seen else ""
    return f"{term.term}: {term.gloss or 'no meaning written down yet'} ({seen}{_freshness(term.freshness)})"


def slang_unknown(term: str) -> str:
    return f"“{term}” isn't in this community's glossary (yet)."


def trending(terms: Sequence[SlangTerm]) -> str:
    if not terms:
        return "Nothing is in the glossary yet; terms get there once enough people use them and a moderator agrees."
    return "\n".join(["Trending here:", *(f"  {slang_entry(term)}" for term in terms)])


def whatsnew(live: Deployment, ended: Sequence[tuple[Run, Sequence[GateOutcome]]], fresh_terms: Sequence[str]) -> str:
    """What is live, what the retrains `ended` came to by their gates, and which words are new."""
    if live.current == BASE:
        lines = ["I still speak with the plain base model: nothing learnt from you is live."]
    else:
        lines = [f"I've been speaking with {live.current} since {_day(live.since)}."]
    for run, gates in ended:
        lines.append(_outcome_of(run))
        if run.state not in (RunState.PROMOTED, RunState.ON_TRIAL):
            failed = [one for one in gates if one.verdict != Verdict.PASS]
            lines += [f"  {one.gate.replace('_', ' ')}: {one.sentence}" for one in failed]
    if fresh_terms:
        lines.append(f"New words I know: {', '.join(fresh_terms)}.")
    return "\n".join(lines)


def _outcome_of(run: Run) -> str:
    name, day = run.challenger or "a new adapter", _day(run.ended_at or run.created_at)
    match RunState(run.state):
        case RunState.PROMOTED:
            return f"The retrain of {day} taught {name}; it passed every check and went live."
        case RunState.ON_TRIAL:
            return f"The retrain of {day} taught {name}; some channels try it out, and your duels decide."
        case RunState.REFUSED:
            return f"The retrain of {day} was refused: {name} failed a check, so the voice stayed as it was."
        case RunState.ABSTAINED:
            return f"The retrain of {day} changed nothing: there was too little to judge {name} by."
        case RunState.NOTHING_TO_LEARN:
            return f"The retrain of {day} found too little that it may learn from."
        case _:
            return f"The retrain of {day} did not finish; the voice stayed as it was."


def consent_overview(
    state: Mapping[Purpose, bool],
    collects: bool,
    policy_version: str,
    *,
    minimum_age: int | None = None,
    has_buttons: bool = False,
) -> str:
    """What may be agreed to and what has been; below it there are buttons, or words have to be typed."""
    lines = [f"  [{'yes' if state[purpose] else 'no'}] {purpose}: {text}" for purpose, text in PURPOSES.items()]
    say_yes = f"Say yes: {_granting(minimum_age)} [PURPOSE …]."
    closing = f"{say_yes} Take it back: /consent revoke [PURPOSE …]. None named means all."
    if has_buttons:
        closing = CONSENT_TAP
    if minimum_age is not None:
        closing += f" Every yes here says: {age_sentence(minimum_age)}. Whoever is younger says no."
    if not collects:
        closing += "\nThis chat's moderators have collecting switched off, so nothing is stored here even with a yes."
    return "\n".join([CONSENT_LEAD, *lines, closing, f"(privacy text {policy_version}; see /privacy)"])


def consent_recorded(purposes: Sequence[Purpose], granted: bool, state: Mapping[Purpose, bool]) -> str:
    changed = "Agreed" if granted else "Taken back"
    held = ", ".join(purpose for purpose, given in state.items() if given) or "nothing"
    after = "" if granted else " What is stored already is used for nothing more; /mydata delete erases it."
    return f"{changed}: {', '.join(purposes)}. It holds from now on; you agree to {held} in this chat.{after}"


def duel_text(left: str, right: str) -> str:
    return f"Left:\n{left}\n\nRight:\n{right}\n\nWhich one is better? You'll see who was who once you have voted."


def consent_needs_store(purposes: Sequence[Purpose], minimum_age: int | None = None) -> str:
    needed = ", ".join(purposes)
    return f"{needed} can't work without `store`. Say {_granting(minimum_age)} store {' '.join(purposes)}."


def consent_needs_age(minimum_age: int) -> str:
    return (
        f"Nothing was recorded: a yes here says “{age_sentence(minimum_age)}”. If that is so, tap the button that"
        f" says it, or say {_granting(minimum_age)} [PURPOSE …]."
    )


def age_sentence(minimum_age: int) -> str:
    return f"I am {minimum_age} or older and agree"


def _granting(minimum_age: int | None) -> str:
    return "/consent grant" if minimum_age is None else f"/consent grant {minimum_age}+"


def unknown_purpose(word: str) -> str:
    return f"“{word}” is nothing that can be agreed to; choose from {', '.join(Purpose)}, or all."


def exported(file: str) -> str:
    return f"Everything held about you is in {file}, your own texts too, so look after it."


def export_refused(file: str, reason: str) -> str:
    return f"{file} was not written: {reason}. Name another file: /mydata export FILE."


def receipt(erased: ErasureReceipt, at: datetime) -> str:
    """What went and what had learnt from it."""
    counts = (
        f"{erased.messages} messages, the texts of {erased.replies} answers and {erased.duels} duels, "
        f"{erased.feedback} votes"
    )
    lines = [f"Erased on {_day(at)}, {at:%H:%M} UTC: {counts}. Every consent is taken back."]
    if erased.quotes:
        lines.append(f"Your words were taken out of {erased.quotes} answers and messages that repeated them.")
    if erased.adapters:
        by = f" by {_day(erased.retire_by)} at the latest" if erased.retire_by else ""
        lines.append(
            f"These adapters had learnt from your messages and are retired{by}: {', '.join(erased.adapters)}. "
            "The next one starts from the plain base model and never sees them."
        )
    else:
        lines.append("No adapter had learnt from your messages.")
    return "\n".join(lines)


def _freshness(share: float) -> str:
    return f"{share:.0%} of its recent uses are from the last two weeks"


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%B %Y}"


def _seconds(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
