"""The frozen data set of a run: taken once, digested, and rebuilt from the same rows when the run resumes.

No text ever leaves the database for the disk: the run's folder holds row keys and keyed digests alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlmodel import Session

from nocap.domain import MemberKey, MessageKey, Purpose, RunId, VoiceName
from nocap.errors import ConfigurationError, NothingToLearn, RunError
from nocap.settings import Settings
from nocap.text.lexicon import Lexicon
from retrain._selection import Scope, Selection, held_out_member, select
from retrain.examples import Example, build_examples, example_of
from retrain.preferences import Preferences, preference_entries, rebuilt_preferences
from retrain.run_folder import write_file
from storage import runs, slang
from storage.crypto import Keyring
from storage.eligibility import eligible_answers, eligible_messages, exclusion_counts
from storage.tables import Duel, Message, Reply, Run, RunSource, Voice

__all__ = [
    "Preview",
    "Snapshot",
    "build_examples",
    "build_snapshot",
    "eligible_examples",
    "held_out_member",
    "load_snapshot",
    "preview",
    "record_snapshot",
    "take_snapshot",
    "voice_terms",
]

SNAPSHOT_FILE = "snapshot.json"
DIGEST_OPTION = "snapshot_digest"
LET_THROUGH_OPTION = "let_through"

Role = Literal["train", "validation", "evaluate"]
PREFERENCES = "preferences"


@dataclass(frozen=True)
class Snapshot:
    """Everything that a run learns from and is judged by."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    evaluate: tuple[Example, ...]
    """Replies of members none of whose replies any run trains on."""
    dropped: Mapping[str, int]
    """Rows eligible to train that are no training reply, by reason."""
    evaluate_dropped: Mapping[str, int]
    """Held-out members' rows of the evaluation days that are no evaluation reply, by reason."""
    authors: Mapping[MessageKey, MemberKey]
    """Of every row used."""
    digest: str
    """SHA-256 over the keyed digests of all examples and preferences in order."""
    preferences: Preferences = field(default_factory=Preferences)

    def by_role(self) -> Iterator[tuple[Role, Example]]:
        return _by_role(self)


@dataclass(frozen=True)
class Preview:
    """What a run would train on, in counts."""

    train: int
    train_members: int
    validation: int
    evaluate: int
    evaluate_members: int
    needed: int
    """`retrain.min_examples`, of train and validation together."""
    dropped: Mapping[str, int]
    evaluate_dropped: Mapping[str, int]
    not_eligible_to_train: Mapping[str, int]
    """Rows left out before any text was read, by `storage.eligibility.Exclusion`."""
    not_eligible_to_evaluate: Mapping[str, int]
    thumbs: int
    """Voted answers, 0 where there are too few."""
    pairs: int
    """Decided duels, 0 where there are too few."""
    votes_dropped: Mapping[str, int]


def eligible_examples(session: Session, voice: VoiceName, settings: Settings, as_of: datetime) -> Sequence[Example]:
    """The examples that a run as of `as_of` would train on, for an export."""
    chosen = _select(session, Scope(voice, as_of, settings.discord.training_permission_reference, settings))
    return (*chosen.train, *chosen.validation)


def voice_terms(session: Session, voice: VoiceName, at: datetime) -> tuple[str, ...]:
    """The voice's markers at `at`: its seed lexicon and its approved glossary. ConfigurationError if unknown."""
    row = session.get(Voice, voice)
    if row is None:
        raise ConfigurationError(f"There is no voice {voice!r}; `nocap init` or `nocap voices add` makes one.")
    approved = (entry.term for entry in slang.glossary(session, voice, at))
    return tuple(dict.fromkeys((*row.lexicon, *approved)))


def preview(session: Session, voice: VoiceName, settings: Settings, as_of: datetime) -> Preview:
    """What a run as of `as_of` would use, and what it would leave out for which reason."""
    scope = Scope(voice, as_of, settings.discord.training_permission_reference, settings)
    chosen = _select(session, scope)
    return Preview(
        train=len(chosen.train),
        train_members=len({example.member for example in (*chosen.train, *chosen.validation)}),
        validation=len(chosen.validation),
        evaluate=len(chosen.evaluate),
        evaluate_members=len({example.member for example in chosen.evaluate}),
        needed=settings.retrain.min_examples,
        dropped=_by_name(chosen.dropped),
        evaluate_dropped=_by_name(chosen.evaluate_dropped),
        not_eligible_to_train=_by_name(exclusion_counts(session, scope.query(Purpose.TRAIN))),
        not_eligible_to_evaluate=_by_name(exclusion_counts(session, scope.query(Purpose.EVALUATE))),
        thumbs=len(chosen.preferences.thumbs),
        pairs=len(chosen.preferences.pairs),
        votes_dropped=_by_name(chosen.preferences.votes_dropped),
    )


def take_snapshot(session: Session, run: Run, settings: Settings, keyring: Keyring) -> Snapshot:
    """`build_snapshot` and `record_snapshot` in one transaction; on a big database do them one after the other,
    so that nobody waits for the curation to write."""
    snapshot = build_snapshot(session, run, settings, keyring)
    record_snapshot(session, run, snapshot, settings, keyring)
    return snapshot


def build_snapshot(session: Session, run: Run, settings: Settings, keyring: Keyring) -> Snapshot:
    """The run's data set, the same for the same rows and settings; writes nothing.

    Raises NothingToLearn, with what was left out and why, where fewer than `retrain.min_examples` are left.
    """
    scope = _scope(run, settings)
    chosen = _select(session, scope)
    learned = len(chosen.train) + len(chosen.validation)
    if learned < settings.retrain.min_examples:
        excluded = exclusion_counts(session, scope.query(Purpose.TRAIN))
        raise NothingToLearn(
            f"Only {learned} examples are left of the {settings.retrain.min_examples} that a run needs"
            f" (`retrain.min_examples`). Left out by curation: {_listed(chosen.dropped)}; not eligible:"
            f" {_listed(excluded)}. Wait for more consented messages; `nocap retrain preview` shows the counts."
        )
    return Snapshot(
        train=chosen.train,
        validation=chosen.validation,
        evaluate=chosen.evaluate,
        dropped=_by_name(chosen.dropped),
        evaluate_dropped=_by_name(chosen.evaluate_dropped),
        authors=chosen.authors,
        digest=_overall(entry["digest"] for entry in _entries(chosen, keyring)),
        preferences=chosen.preferences,
    )


def record_snapshot(session: Session, run: Run, snapshot: Snapshot, settings: Settings, keyring: Keyring) -> None:
    """Writes the lineage, the snapshot's digest in the run's options, and `runs/<id>/snapshot.json`."""
    content = {
        "run": run.id,
        "digest": snapshot.digest,
        "dropped": dict(snapshot.dropped),
        "evaluate_dropped": dict(snapshot.evaluate_dropped),
        "votes_dropped": dict(snapshot.preferences.votes_dropped),
        "examples": [_example_entry(keyring, role, example) for role, example in snapshot.by_role()],
        PREFERENCES: preference_entries(snapshot.preferences, keyring),
    }
    _write(_file(run.id, settings), json.dumps(content, separators=(",", ":")))
    row = runs.get_run(session, RunId(run.id))
    row.options = {**row.options, DIGEST_OPTION: snapshot.digest}
    session.add(row)
    session.flush()
    runs.set_sources(session, RunId(run.id), _sources(run.id, snapshot))


def load_snapshot(session: Session, run: Run, settings: Settings, keyring: Keyring) -> Snapshot:
    """The recorded data set, rebuilt from rows that are all still eligible and unchanged.

    Raises RunError where that is not so: the run must then take its snapshot again.
    """
    content = _recorded(run, settings)
    scope = _scope(run, settings)
    to_train = _by_key(eligible_messages(session, scope.query(Purpose.TRAIN)))
    to_evaluate = _by_key(eligible_messages(session, scope.query(Purpose.EVALUATE)))
    rebuilt: dict[Role, list[Example]] = {"train": [], "validation": [], "evaluate": []}
    authors: dict[MessageKey, MemberKey] = {}
    for entry in content["examples"]:
        role: Role = entry["role"]
        rows = to_evaluate if role == "evaluate" else to_train
        rebuilt[role].append(_rebuilt(run, role, entry, rows, keyring))
        authors |= {MessageKey(key): MemberKey(rows[key].member) for key in entry["rows"]}
    return Snapshot(
        train=tuple(rebuilt["train"]),
        validation=tuple(rebuilt["validation"]),
        evaluate=tuple(rebuilt["evaluate"]),
        dropped=content["dropped"],
        evaluate_dropped=content["evaluate_dropped"],
        authors=authors,
        digest=content["digest"],
        preferences=_rebuilt_preferences(session, run, scope, content, keyring),
    )


def _rebuilt_preferences(
    session: Session, run: Run, scope: Scope, content: Mapping[str, Any], keyring: Keyring
) -> Preferences:
    entries = content[PREFERENCES]
    if not entries:
        return Preferences(votes_dropped=content["votes_dropped"])
    replies = {row.id: row for row in eligible_answers(session, scope.answers_query, Reply)}
    duels = {row.id: row for row in eligible_answers(session, scope.answers_query, Duel)}
    rebuilt = rebuilt_preferences(entries, replies, duels, content["votes_dropped"])
    if rebuilt is None or preference_entries(rebuilt, keyring) != entries:
        raise _unusable(run)
    return rebuilt


def _rebuilt(run: Run, role: Role, entry: Mapping[str, Any], rows: Mapping[str, Message], keyring: Keyring) -> Example:
    missing = [key for key in entry["rows"] if key not in rows]
    example = None if missing else example_of([rows[key] for key in entry["rows"]])
    if not isinstance(example, Example) or _example_digest(keyring, role, example) != entry["digest"]:
        raise _unusable(run)
    return example


def _unusable(run: Run) -> RunError:
    return RunError(
        f"The snapshot of run {run.id} cannot be used any more: a row of it was erased, changed or is no longer"
        " consented to. The run must take its snapshot again."
    )


def _recorded(run: Run, settings: Settings) -> dict[str, Any]:
    file = _file(run.id, settings)
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        recorded = _overall(entry["digest"] for entry in (*content["examples"], *content[PREFERENCES]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"The snapshot {file} of run {run.id} is missing or damaged; the run must take its snapshot again."
        ) from error
    if recorded != run.options.get(DIGEST_OPTION) or recorded != content.get("digest"):
        raise RunError(
            f"The snapshot {file} is not the one that run {run.id} recorded; the run must take its snapshot again."
        )
    return content


def _scope(run: Run, settings: Settings) -> Scope:
    let_through = frozenset(run.options.get(LET_THROUGH_OPTION, ()))
    return Scope(VoiceName(run.voice), run.as_of, run.permission_reference, settings, let_through)


def _select(session: Session, scope: Scope) -> Selection:
    return select(session, scope, Lexicon(voice_terms(session, scope.voice, scope.as_of)))


def _by_role(chosen: Selection | Snapshot) -> Iterator[tuple[Role, Example]]:
    yield from (("train", example) for example in chosen.train)
    yield from (("validation", example) for example in chosen.validation)
    yield from (("evaluate", example) for example in chosen.evaluate)


def _entries(chosen: Selection | Snapshot, keyring: Keyring) -> Iterator[dict[str, Any]]:
    yield from (_example_entry(keyring, role, example) for role, example in _by_role(chosen))
    yield from preference_entries(chosen.preferences, keyring)


def _example_entry(keyring: Keyring, role: Role, example: Example) -> dict[str, Any]:
    return {"role": role, "rows": example.message_keys, "digest": _example_digest(keyring, role, example)}


def _sources(run_id: str, snapshot: Snapshot) -> list[RunSource]:
    used: dict[tuple[str, str], str] = {}
    for role, example in snapshot.by_role():
        used |= {(role, key): snapshot.authors[key] for key in example.message_keys}
    used |= {("thumb", one.example.key): one.example.member for one in snapshot.preferences.thumbs}
    used |= {("duel", one.chosen.key): one.chosen.member for one in snapshot.preferences.pairs}
    return [RunSource(run_id=run_id, message_key=key, role=role, member=member) for (role, key), member in used.items()]


def _example_digest(keyring: Keyring, role: Role, example: Example) -> str:
    turns = [(message.role, message.content) for message in example.messages]
    return keyring.digest(json.dumps([role, example.member, example.message_keys, turns, example.reply]))


def _overall(digests: Iterator[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _by_key(rows: Sequence[Message]) -> dict[str, Message]:
    return {row.key: row for row in rows}


def _by_name(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(reason): count for reason, count in sorted(counts.items()) if count}


def _listed(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in _by_name(counts).items()) or "nothing"


def _file(run_id: str, settings: Settings) -> Path:
    return settings.runs_dir / run_id / SNAPSHOT_FILE


def _write(file: Path, content: str) -> None:
    try:
        write_file(file, content)
    except OSError as error:
        raise RunError(f"{file} cannot be written: {error.strerror or error}. Mend that and resume the run.") from error
