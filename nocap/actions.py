"""What operators may do, implemented once for the command line, the chat and the web.

Nothing here imports torch: a retrain runs in a process of its own (`retrain.job`).
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlmodel import select

from inference.adapter_files import AdapterManifest, verify_adapter
from nocap.domain import (
    AdapterName,
    AdapterStatus,
    Clock,
    MemberKey,
    Purpose,
    RunId,
    RunState,
    SlangStatus,
    Verdict,
    VoiceName,
    utc_now,
)
from nocap.errors import InputError, NotPermitted, RunError
from nocap.settings import Settings
from nocap.voices import read_lexicon, read_prompt
from retrain.dataset import Preview, eligible_examples, preview
from retrain.job import WAITS_OPTION, can_train, is_running, is_waiting, start_job
from retrain.promote import Backend, promote, rollback, start_canary
from retrain.run_folder import read_cost
from retrain.schedule import next_retrain
from storage import audit, erasure, feedback, registry, runs, slang
from storage.compliance import Compliance, compliance
from storage.consent_audit import ConsentAudit, LedgerState, audit_consent, ledger_state
from storage.database import Database
from storage.eligibility import EligibilityQuery
from storage.messages import ErasureReceipt
from storage.registry import PointerMove
from storage.slang import FadingTerm
from storage.tables import Adapter, Retirement, Run, SlangTerm, Voice

if TYPE_CHECKING:
    from retrain.shifted import Shift

_PSEUDONYM = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Status:
    """What is live for a voice and how it is doing."""

    voice: str
    live: str
    previous: str | None
    canary: str | None
    since: datetime
    base: str
    last_run: dict[str, Any] | None
    next_run: datetime | None
    feedback_this_week: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Actions:
    """The operators' commands on one database; every change is written to the audit log under `actor`."""

    def __init__(self, database: Database, settings: Settings, *, actor: str, clock: Clock = utc_now) -> None:
        self._database = database
        self._settings = settings
        self._actor = actor
        self._clock = clock

    def retrain_now(
        self, voice: VoiceName, *, trigger: str = "operator", options: dict[str, Any] | None = None
    ) -> RunId:
        """The id of a new run, started in a process of its own, or left to a worker where `retrain.runs_in` says so.

        Raises RunError where a run of the voice is in progress already, or nothing here could train.
        """
        waits = self._settings.retrain.runs_in == "worker"
        if not waits:
            _need_training()
        with self._database.write() as session:
            active = runs.active_run(session, voice)
            if active is not None:
                raise RunError(
                    f"Run {active.id} of {voice} is still {active.state}; wait for it, or `nocap retrain cancel`"
                    " it, or `nocap retrain resume` it if it was interrupted."
                )
            run = runs.create_run(
                session,
                voice=voice,
                trigger=trigger,
                as_of=self._clock(),
                incumbent=registry.deployment(session, voice).current,
                options=(options or {}) | ({WAITS_OPTION: True} if waits else {}),
                permission_reference=self._settings.discord.training_permission_reference,
                at=self._clock(),
            )
            run_id = RunId(run.id)
            audit.record_event(session, self._actor, "retrain", run_id, {"trigger": trigger}, self._clock())
        if not waits:
            start_job(run_id, self._settings.for_voice(voice), clock=self._clock)
        return run_id

    def resume(self, run_id: RunId) -> None:
        """Starts a run that waits, or an interrupted one at the stage where it stood, in a process on this machine."""
        _need_training()
        with self._database.write() as session:
            run = runs.get_run(session, run_id, alone=True)
            if RunState(run.state).is_over or self.is_alive(run):
                raise RunError(
                    f"Run {run_id} is {run.state}; only an interrupted run can be resumed."
                    " Start a new one with `nocap retrain now`."
                )
            run.pid, run.heartbeat_at = None, self._clock()
            run.options = {name: value for name, value in run.options.items() if name != WAITS_OPTION}
            settings = self._settings.for_voice(run.voice)
        start_job(run_id, settings, clock=self._clock)

    def waiting_runs(self) -> list[Run]:
        """Runs of any voice that wait for a worker or were interrupted, oldest first."""
        with self._database.read() as session:
            return [run for run in runs.unfinished(session) if not self.is_alive(run)]

    def cancel(self, run_id: RunId) -> None:
        """Asks a run to stop between two steps, or ends an interrupted one; the live adapter stays."""
        now = self._clock()
        with self._database.write() as session:
            run = runs.request_cancel(session, run_id)
            if not self.is_alive(run):
                runs.finish_run(session, run_id, RunState.CANCELLED, "cancelled while it was interrupted", now)
            audit.record_event(session, self._actor, "cancel", run_id, {}, now)

    def preview(self, voice: VoiceName) -> Preview:
        """What a retrain would train on now and what is left out, by reason."""
        with self._database.read() as session:
            return preview(session, voice, self._settings.for_voice(voice), self._clock())

    def run(self, run_id: RunId) -> Run:
        with self._database.read() as session:
            return runs.get_run(session, run_id)

    def runs(self, voice: VoiceName, limit: int = 20) -> list[Run]:
        with self._database.read() as session:
            return runs.latest_runs(session, voice, limit)

    def is_alive(self, run: Run) -> bool:
        """Whether the run's process still works on it."""
        return is_running(run, self._clock())

    def is_waiting(self, run: Run) -> bool:
        """Whether no worker has taken the run up yet."""
        return is_waiting(run)

    def report(self, run_id: RunId) -> Path:
        """The run's page. Raises RunError where it has none (yet)."""
        run = self.run(run_id)
        folder = self._settings.runs_dir / run.id
        page = folder / "report.html"
        if not page.is_file() and RunState(run.state).is_over and folder.is_dir():  # an erasure took it away
            from retrain.artefacts import write_artefacts

            cost = read_cost(folder)
            settings, state = self._settings.for_voice(run.voice), RunState(run.state)
            write_artefacts(folder, settings, self._database, run_id, state, run.reason or "", cost)
        if not page.is_file():
            raise RunError(f"Run {run_id} is {run.state} and has no report; resume or repeat it.")
        return page

    def adapter(self, name: AdapterName) -> Adapter:
        with self._database.read() as session:
            return registry.get_adapter(session, name)

    def adapters(self, voice: VoiceName) -> list[Adapter]:
        with self._database.read() as session:
            return registry.adapters(session, voice)

    def verify(self, name: AdapterName) -> AdapterManifest:
        """The adapter's manifest after every file's digest was checked. Raises AdapterError."""
        adapter = self.adapter(name)
        return verify_adapter(self._settings.adapters_dir / name, base_digest=adapter.base_digest)

    def compliance(self, name: AdapterName) -> tuple[Compliance, datetime | None]:
        """What trained the adapter under which basis, and by when it is retired where it has to be."""
        with self._database.read() as session:
            found, mark = compliance(session, name), session.get(Retirement, name)
        return found, erasure.retire_by(self._settings, [mark] if mark else [])

    def export_adapter(self, name: AdapterName, output: Path, form: Literal["peft", "merged", "gguf-lora"]) -> Path:
        """`output` with the adapter, with the base that has taken it in, or as llama.cpp's LoRA file."""
        from retrain.export import export_adapter

        exported = export_adapter(self._database, self._settings, name, output, form)
        with self._database.write() as session:
            audit.record_event(session, self._actor, "export_adapter", name, {"format": form}, self._clock())
        return exported

    def push_adapter(self, name: AdapterName, repository: str) -> str:
        """The URL of the commit that holds the adapter with its card and bill of materials in a private repository."""
        from retrain.hub import push_adapter

        url = push_adapter(self._database, self._settings, name, repository)
        with self._database.write() as session:
            audit.record_event(session, self._actor, "push_adapter", name, {"repository": repository}, self._clock())
        return url

    def pull_adapter(self, repository: str, revision: str | None) -> AdapterManifest:
        """The verified adapter of the repository, now a candidate: never live without an operator's override."""
        from retrain.hub import pull_adapter

        manifest = pull_adapter(self._database, self._settings, repository, revision=revision, at=self._clock())
        with self._database.write() as session:
            detail = {"repository": repository, "revision": revision, "digest": manifest.digest}
            audit.record_event(session, self._actor, "pull_adapter", manifest.name, detail, self._clock())
        return manifest

    def export_dataset(self, voice: VoiceName, output: Path, form: Literal["axolotl", "llama-factory"]) -> int:
        """How many examples are in the new file `output` (mode 0600): those that a run would train on now, no others.

        They are members' texts outside the database, so it is written to the audit log.
        """
        from retrain.export import dataset_lines

        with self._database.read() as session:
            examples = eligible_examples(session, voice, self._settings.for_voice(voice), self._clock())
            prompt = session.get_one(Voice, voice).system_prompt
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise InputError(f"{output} is there already; name a new file.") from error
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in dataset_lines(examples, prompt, form))
        with self._database.write() as session:
            detail = {"format": form, "examples": len(examples)}
            audit.record_event(session, self._actor, "export_dataset", voice, detail, self._clock())
        return len(examples)

    def rollback(self, voice: VoiceName, to: AdapterName | None, backend: Backend | None) -> PointerMove:
        """Moves the pointer back to `to`, or to the previous adapter; takes effect on the next answer."""
        return rollback(
            self._database, backend, self._settings, voice, to, actor=self._actor, reason="rollback", at=self._clock()
        )

    def promote(
        self, name: AdapterName, reason: str, backend: Backend | None, *, override: bool = False
    ) -> PointerMove:
        """Makes an adapter the live one. Raises NotPermitted where its gates did not pass and `override` is off."""
        adapter, passed = self._judged(name)
        if adapter.status == AdapterStatus.RETIRED:
            raise NotPermitted(f"{name} is retired because its training data was erased; choose a younger adapter.")
        if not passed and not override:
            raise NotPermitted(
                f"The gates did not pass {name}; read `nocap report {adapter.run_id or 'RUN'}`, or promote it all"
                " the same with `--override`, which is written to the audit log."
            )
        actor = f"{self._actor} (override)" if override and not passed else self._actor
        return promote(self._database, backend, self._settings, name, actor=actor, reason=reason, at=self._clock())

    def member_key(self, member: str) -> MemberKey:
        """The pseudonym of `platform:id` (as the platform numbers its users), or `member` if it is one already.

        Raises InputError for anything else.
        """
        if _PSEUDONYM.fullmatch(member):
            return MemberKey(member)
        platform, separator, id_ = member.partition(":") if not member.startswith("import:") else _split_import(member)
        if not (platform and separator and id_):
            raise InputError(
                f"{member!r} names no member; write it as `telegram:123456789`, `discord:123456789012345678`,"
                " `import:jsonl:NAME`, or as the 32 digits of the pseudonym."
            )
        return MemberKey(self._database.keyring.pseudonym("member", platform, id_))

    def forget(self, member: MemberKey) -> ErasureReceipt:
        """Erases the member everywhere, for good; what cannot be undone in an adapter is retired by a deadline."""
        receipt = erasure.forget(self._database, self._settings, member, self._clock())
        with self._database.write() as session:
            detail = {"messages": receipt.messages, "adapters": receipt.adapters, "files": receipt.files}
            audit.record_event(session, self._actor, "forget", member, detail, self._clock())
        return receipt

    def export(self, member: MemberKey) -> dict[str, Any]:
        """All that is held about the member, ready for JSON."""
        return erasure.export(self._database, member)

    def consent_of(self, member: MemberKey) -> list[LedgerState]:
        """The ledger's last word on the member, per chat and purpose."""
        with self._database.read() as session:
            return ledger_state(session, member, self._settings.policy_version)

    def consent_audit(self) -> ConsentAudit:
        """The ledger counted, without anything that names a member."""
        with self._database.read() as session:
            return audit_consent(session, self._settings.policy_version)

    def canary(self, name: AdapterName, share: float, backend: Backend | None, voice: VoiceName | None = None) -> None:
        """Tries an adapter out in a share of its voice's channels.

        Raises InputError where it is not of `voice`, NotPermitted where its gates did not pass.
        """
        adapter, passed = self._judged(name)
        if voice and adapter.voice != voice:
            raise InputError(f"{name} is an adapter of the voice {adapter.voice}, not of {voice}; leave `--voice` out.")
        if not passed:
            raise NotPermitted(f"The gates did not pass {name}, so it is not tried on members; read its report.")
        start_canary(self._database, backend, self._settings, name, share, actor=self._actor, at=self._clock())

    def _judged(self, name: AdapterName) -> tuple[Adapter, bool]:
        """The adapter, and whether it has passed every gate of its run."""
        with self._database.read() as session:
            adapter = registry.get_adapter(session, name)
            verdicts = [row.verdict for row in runs.gate_results(session, adapter.run_id)] if adapter.run_id else []
        return adapter, bool(verdicts) and all(verdict == Verdict.PASS for verdict in verdicts)

    def end_canary(self, voice: VoiceName) -> None:
        """Every channel is answered by the live adapter again."""
        with self._database.write() as session:
            registry.set_canary(session, voice, None, 0.0, actor=self._actor, at=self._clock())

    def review_slang(self, voice: VoiceName, term: str, status: SlangStatus, gloss: str | None = None) -> None:
        """Approves or blocks a term; an approved one reaches the prompt of the very next answer."""
        with self._database.write() as session:
            slang.set_status(session, voice, term, status, gloss, actor=self._actor, at=self._clock())

    def slang_terms(self, voice: VoiceName, status: SlangStatus | None = None) -> list[SlangTerm]:
        with self._database.read() as session:
            return slang.terms(session, voice, status)

    def fading_slang(self, voice: VoiceName) -> list[FadingTerm]:
        """The glossary's terms that members are giving up."""
        with self._database.read() as session:
            return slang.fading(session, voice)

    def shifted_slang(self, voice: VoiceName) -> list[Shift]:
        """Old words in new company, from what may train; nothing of it is stored."""
        from retrain.shifted import shifted_words
        from retrain.slang import BACKGROUND, RECENT, uses_of

        now = self._clock()
        query = EligibilityQuery(
            voice=voice,
            purpose=Purpose.TRAIN,
            policy_version=self._settings.policy_version,
            permission_reference=self._settings.discord.training_permission_reference,
            since=now - RECENT - BACKGROUND,
            until=now,
        )
        with self._database.read() as session:
            return shifted_words(uses_of(session, query), now)

    def add_voice(self, name: VoiceName, prompt: Path, lexicon: Path, base: str | None) -> Voice:
        """A new voice of the prompt and the terms in these files, served by the base until its first promotion.

        Raises InputError where it is there already, a file is not usable, or `base` is not the one that is served.
        """
        served = self._settings.model.base
        if base is not None and base != served:
            raise InputError(
                f"All voices of one server share its base {served}; a voice on {base} needs its own installation."
            )
        text, terms = read_prompt(prompt), read_lexicon(lexicon)
        with self._database.write() as session:
            if session.get(Voice, name) is not None:
                raise InputError(f"There is a voice {name} already; `nocap voices show {name}` shows it.")
            voice = registry.ensure_voice(session, name, text, terms, self._clock())
            audit.record_event(session, self._actor, "add_voice", name, {"terms": len(terms)}, self._clock())
        return voice

    def voices(self) -> list[dict[str, Any]]:
        """Every voice with what is live for it, by name."""
        with self._database.read() as session:
            names = session.exec(select(Voice.name).order_by(Voice.name)).all()
        return [self.voice(VoiceName(name)) for name in names]

    def voice(self, name: VoiceName) -> dict[str, Any]:
        """The voice's row, what is live, and the settings of its own. Raises InputError for an unknown one."""
        with self._database.read() as session:
            live = registry.deployment(session, name)
            row = session.get_one(Voice, name)
        own = self._settings.voices.get(name)
        shown = row.model_dump(mode="json") | {"live": live.current, "previous": live.previous}
        return shown | {"own_settings": own.model_dump(mode="json", exclude_defaults=True) if own else {}}

    def status(self, voice: VoiceName) -> Status:
        now = self._clock()
        with self._database.read() as session:
            live = registry.deployment(session, voice)
            latest = runs.latest_runs(session, voice, 1)
            week = feedback.feedback_since(session, voice, now - timedelta(days=7))
        return Status(
            voice=voice,
            live=live.current,
            previous=live.previous,
            canary=live.canary,
            since=live.since,
            base=self._settings.model.base,
            last_run=_run_line(latest[0]) if latest else None,
            next_run=next_retrain(self._settings.for_voice(voice), now),
            feedback_this_week={"up": week.up, "down": week.down, "cringe": week.cringe, "replies": week.replies},
        )


def _need_training() -> None:
    if not can_train():
        raise RunError(
            "This environment has no torch, so it cannot train. Start the run where it is installed, or set"
            ' `retrain.runs_in = "worker"` here and let `nocap retrain work` take it up there.'
        )


def _split_import(member: str) -> tuple[str, str, str]:
    """`import:jsonl:NAME`: the platforms of imported files have a colon in their own names."""
    kind, separator, id_ = member.removeprefix("import:").partition(":")
    return f"import:{kind}", separator, id_


def _run_line(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "state": run.state,
        "stage": run.stage,
        "challenger": run.challenger,
        "reason": run.reason,
        "created_at": run.created_at,
        "ended_at": run.ended_at,
    }
