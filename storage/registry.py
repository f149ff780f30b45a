"""Voices, their adapters, and the one pointer that says which adapter is live."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from nocap.domain import BASE, AdapterName, AdapterStatus, VoiceName
from nocap.errors import AdapterError, InputError, NotPermitted
from storage._sql import insert_missing
from storage.audit import record_event
from storage.tables import Adapter, AuditEvent, Deployment, Retirement, Run, Voice

# Names reach file paths, URLs and vLLM's resolver, so they are kept to what is safe in all three.
_VOICE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
_ADAPTER_NAME = re.compile(r"(?P<voice>[a-z0-9][a-z0-9_-]{0,47})-v(?P<number>[1-9][0-9]{0,8})")

END_CANARY = "end_canary"


@dataclass(frozen=True, slots=True)
class PointerMove:
    voice: VoiceName
    before: AdapterName
    after: AdapterName


def ensure_voice(session: Session, name: VoiceName, system_prompt: str, lexicon: Sequence[str], at: datetime) -> Voice:
    """The voice, made with these values and served by the base model where there is none yet."""
    voice = session.get(Voice, name)
    if voice is not None:
        return voice
    if not _VOICE_NAME.fullmatch(name):
        raise InputError(f"A voice cannot be named {name!r}; use up to 48 lower-case letters, digits, - and _.")
    row = {"name": name, "system_prompt": system_prompt, "lexicon": list(lexicon), "created_at": at}
    insert_missing(session, Voice, [row], key="name")
    pointer = Deployment(voice=name, current=BASE, since=at)
    insert_missing(session, Deployment, [pointer.model_dump()], key="voice")
    return session.get_one(Voice, name)


def voice_names(session: Session) -> list[VoiceName]:
    """Every voice, by name."""
    return [VoiceName(name) for name in session.exec(select(Voice.name).order_by(Voice.name))]


def register_adapter(session: Session, adapter: Adapter) -> Adapter:
    """The adapter's row; registering the same one again changes nothing.

    Raises NotPermitted where the name stands for another adapter: names are never reused.
    """
    parts = _ADAPTER_NAME.fullmatch(adapter.name)
    if parts is None or parts["voice"] != adapter.voice:
        raise InputError(
            f"An adapter of {adapter.voice} cannot be named {adapter.name!r}; use {adapter.voice}-v1, -v2, …"
        )
    known = session.get(Adapter, adapter.name)
    if known is None:
        session.add(adapter)
        session.flush()
        return adapter
    if known is not adapter and known.digest != adapter.digest:
        raise NotPermitted(f"{adapter.name} names another adapter already; names are never reused, take the next one.")
    return known


def get_adapter(session: Session, name: AdapterName) -> Adapter:
    """The adapter's row. Raises AdapterError for an unknown name."""
    adapter = session.get(Adapter, name)
    if adapter is None:
        raise AdapterError(f"There is no adapter {name}; `nocap adapters list` shows them.")
    return adapter


def set_adapter_status(session: Session, name: AdapterName, status: AdapterStatus) -> None:
    """Raises AdapterError for an unknown name."""
    get_adapter(session, name).status = status
    session.flush()


def adapters(session: Session, voice: VoiceName) -> list[Adapter]:
    """The voice's adapters, oldest first."""
    rows = session.exec(select(Adapter).where(Adapter.voice == voice)).all()
    return sorted(rows, key=lambda row: _number(row.name))


def next_adapter_name(session: Session, voice: VoiceName) -> AdapterName:
    """`<voice>-v<n>`, one above every number that an adapter or a run of the voice ever had."""
    names = list(session.exec(select(Adapter.name).where(Adapter.voice == voice)))
    names += [name for name in session.exec(select(Run.challenger).where(Run.voice == voice)) if name]
    return AdapterName(f"{voice}-v{max(map(_number, names), default=0) + 1}")


def deployment(session: Session, voice: VoiceName) -> Deployment:
    """What is live for the voice. Raises InputError for an unknown voice."""
    row = session.get(Deployment, voice)
    if row is None:
        raise no_voice(voice)
    return row


def deployed_adapters(session: Session) -> list[AdapterName]:
    """Every adapter that some voice serves or may roll back to, by name; the base is not among them."""
    rows = session.exec(select(Deployment)).all()
    names = {name for row in rows for name in (row.current, row.previous, row.canary)}
    return sorted(AdapterName(name) for name in names if name and name != BASE)


def move_pointer(
    session: Session, voice: VoiceName, to: AdapterName, *, actor: str, reason: str, at: datetime
) -> PointerMove:
    """Makes `to` the live adapter (it may be the base), ends any canary, and writes it to the audit log.

    Moving to what is live already changes nothing. Raises NotPermitted for an adapter that is unknown, retired, to
    be retired or another voice's, and InputError for an unknown voice.
    """
    pointer = session.get(Deployment, voice, with_for_update=True, populate_existing=True)
    if pointer is None:
        raise no_voice(voice)
    move = PointerMove(voice, AdapterName(pointer.current), to)
    if move.before == to:
        return move
    _check_deployable(session, voice, to)
    how = f"promoted: {reason}" if pointer.canary == to else f"withdrawn: {to} went live"
    _end_canary(session, pointer, how, actor=actor, at=at)
    pointer.previous, pointer.current = pointer.current, to
    pointer.revision += 1
    pointer.since = at
    detail = {"before": move.before, "after": to, "reason": reason, "revision": pointer.revision}
    record_event(session, actor, "move_pointer", voice, detail, at)
    return move


def request_retirement(session: Session, names: Sequence[str], at: datetime) -> None:
    """Marks adapters as having learnt from erased texts; an earlier mark stays."""
    retired = set(session.exec(select(Adapter.name).where(Adapter.status == AdapterStatus.RETIRED)))
    rows = [{"adapter": name, "requested_at": at} for name in names if name not in retired]
    insert_missing(session, Retirement, rows, key="adapter")


def retirements(session: Session, voice: VoiceName | None = None) -> list[Retirement]:
    """The adapters that are to be retired and still are not, the one waiting longest first."""
    rows = (
        select(Retirement)
        .join(Adapter, col(Adapter.name) == Retirement.adapter)
        .where(Adapter.status != AdapterStatus.RETIRED)
        .order_by(col(Retirement.requested_at), col(Retirement.adapter))
    )
    return list(session.exec(rows if voice is None else rows.where(Adapter.voice == voice)))


def retire_adapter(session: Session, name: AdapterName, *, actor: str, at: datetime) -> None:
    """Takes an adapter that is not live out of service for good: no rollback and no canary leads to it any more.

    Raises NotPermitted for one that is live, AdapterError for an unknown name.
    """
    adapter = get_adapter(session, name)
    for pointer in session.exec(select(Deployment).where(Deployment.voice == adapter.voice).with_for_update()):
        if pointer.current == name:
            raise NotPermitted(f"{name} is live; move the pointer of {adapter.voice} away from it first.")
        if pointer.previous == name:
            pointer.previous = None
        if pointer.canary == name:
            _end_canary(session, pointer, f"withdrawn: {name} learnt from erased texts", actor=actor, at=at)
    if adapter.status != AdapterStatus.RETIRED:
        adapter.status = AdapterStatus.RETIRED
        record_event(session, actor, "retire_adapter", name, {"because": "texts that it learnt from were erased"}, at)
    session.flush()


def set_canary(
    session: Session,
    voice: VoiceName,
    name: AdapterName | None,
    share: float,
    *,
    actor: str,
    at: datetime,
    reason: str = "",
) -> None:
    """Gives `share` of the voice's channels to `name`, or to nobody but the live adapter where it is None; audited.

    Raises NotPermitted for an adapter that is live already, unknown, retired or another voice's, and InputError for
    an unknown voice or a share outside of 0 to 1.
    """
    pointer = session.get(Deployment, voice, with_for_update=True, populate_existing=True)
    if pointer is None:
        raise no_voice(voice)
    if name is None:
        share = 0.0
    elif not 0 < share < 1:
        raise InputError(f"A canary's share is {share}; it must lie between 0 and 1. `nocap promote` gives it all.")
    elif name == pointer.current:
        raise NotPermitted(f"{name} is the live adapter of {voice}; try out another one.")
    else:
        _check_deployable(session, voice, name)
    _end_canary(session, pointer, f"withdrawn: {reason}" if reason else "withdrawn", actor=actor, at=at)
    pointer.canary, pointer.canary_share = name, share
    pointer.revision += 1
    detail = {"canary": name, "share": share, "revision": pointer.revision}
    record_event(session, actor, "set_canary", voice, detail, at)


def ended_canaries(session: Session, voice: VoiceName, since: datetime) -> list[AuditEvent]:
    """The audit log's lines on canaries of the voice that ended, oldest first; `detail` has `canary` and `how`."""
    rows = select(AuditEvent).where(AuditEvent.action == END_CANARY, AuditEvent.target == voice, AuditEvent.at >= since)
    return list(session.exec(rows.order_by(col(AuditEvent.id))))


def canary_since(session: Session, voice: VoiceName, canary: AdapterName) -> datetime | None:
    """When the voice's canary was last set; None where the audit log does not say."""
    rows = select(AuditEvent).where(AuditEvent.action == "set_canary", AuditEvent.target == voice)
    found = [row.at for row in session.exec(rows.order_by(col(AuditEvent.id))) if row.detail.get("canary") == canary]
    return found[-1] if found else None


def _end_canary(session: Session, pointer: Deployment, how: str, *, actor: str, at: datetime) -> None:
    if pointer.canary:
        detail = {"canary": pointer.canary, "how": how}
        record_event(session, actor, END_CANARY, pointer.voice, detail, at)
    pointer.canary, pointer.canary_share = None, 0.0


def _check_deployable(session: Session, voice: VoiceName, name: AdapterName) -> None:
    if name == BASE:
        return
    adapter = session.get(Adapter, name)
    if adapter is None or adapter.voice != voice:
        raise NotPermitted(f"{voice} has no adapter {name}; `nocap adapters list` shows its adapters.")
    if adapter.status == AdapterStatus.RETIRED:
        raise NotPermitted(f"{name} is retired because texts it was trained on were erased; choose a younger one.")
    if session.get(Retirement, name) is not None:
        raise NotPermitted(f"{name} learnt from texts that were erased since, and is being retired; choose another.")


def no_voice(voice: VoiceName) -> InputError:
    return InputError(f"There is no voice {voice}; `nocap init` makes the one that `voice` in the settings names.")


def _number(name: str) -> int:
    parts = _ADAPTER_NAME.fullmatch(name)
    return int(parts["number"]) if parts else 0
