"""`nocap adapters compliance` and `nocap canary`, as an operator types them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import Session, select

from nocap.app import open_database
from nocap.domain import BASE, RunId, RunState, Verdict, VoiceName
from nocap.settings import load_settings
from storage import runs
from storage.registry import deployment
from storage.tables import Deployment, GateOutcome, Message, RunSource
from storage.tables import Run as TrainingRun
from tests.nocap.cli.test_main import NOW, Run, add_adapter, nocap  # noqa: F401  (the fixture)
from tests.nocap.cli.test_members import imported


def new_run(session: Session) -> TrainingRun:
    return runs.create_run(
        session,
        voice=VoiceName("genz"),
        trigger="test",
        as_of=NOW,
        incumbent=BASE,
        options={},
        permission_reference=None,
        at=NOW,
    )


def trained_on_everything(folder: Path) -> None:
    """genz-v2 as made by a run on all that is stored."""
    database = open_database(load_settings(folder / "nocap.toml"))
    with database.write() as session:
        run = new_run(session)
        used = [
            RunSource(run_id=run.id, message_key=row.key, role="train", member=row.member)
            for row in session.exec(select(Message))
        ]
        runs.set_sources(session, RunId(run.id), used)
        runs.finish_run(session, RunId(run.id), RunState.REFUSED, "over", NOW)
        run_id = run.id
    database.close()
    add_adapter(folder, "genz-v2", run_id=run_id)


def test_compliance_tells_the_basis_and_what_an_erasure_did_to_it(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    imported(nocap, tmp_path)
    add_adapter(tmp_path, "genz-v1")
    assert "was not trained here" in nocap("adapters", "compliance", "genz-v1").out
    trained_on_everything(tmp_path)
    before = nocap("adapters", "compliance", "genz-v2", "--json").json
    assert (before["rows"], before["members"], before["retire_by"]) == (3, 2, None)
    assert [(one["provenance"], one["purpose"], one["rows"]) for one in before["bases"]] == [("donation", "train", 3)]
    assert "Not marked for retirement" in nocap("adapters", "compliance", "genz-v2").out
    nocap("members", "forget", "import:jsonl:ana", "--yes")
    after = nocap("adapters", "compliance", "genz-v2", "--json").json
    assert [(one["provenance"], one["rows"], one["erased_rows"]) for one in after["bases"]] == [
        ("donation", 1, 0),
        (None, 2, 2),
    ]
    assert after["retire_by"] is not None
    text = nocap("adapters", "compliance", "genz-v2").out
    assert "to be retired by" in text
    assert "ana" not in text.split()
    assert nocap("adapters", "compliance", "genz-v9").code == 4


def test_an_adapter_is_exported_whole_and_never_over_a_file(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    nocap("init")
    folder = add_adapter(tmp_path, "genz-v1")
    told = nocap("adapters", "export", "genz-v1", "out", "--format", "peft")
    assert (told.code, told.out) == (0, "genz-v1 is in out.\n")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {file.name for file in folder.iterdir()}
    again = nocap("adapters", "export", "genz-v1", "out")
    assert again.code == 2 and "out is there already" in again.err
    other = nocap("adapters", "export", "genz-v1", "out.gguf", "--format", "gguf-lora")
    assert other.code == 4 and "belongs to another base model" in other.err


def judged(folder: Path, name: str, verdict: Verdict) -> None:
    """An adapter whose run's one gate said `verdict`."""
    database = open_database(load_settings(folder / "nocap.toml"))
    with database.write() as session:
        run_id = RunId(new_run(session).id)
        outcome = GateOutcome(
            run_id=run_id,
            gate="freshness",
            verdict=verdict,
            threshold="below 0",
            evidence=40,
            evidence_needed=40,
            sentence="Measured.",
        )
        runs.set_gate_results(session, run_id, [outcome])
        state = RunState.PROMOTED if verdict is Verdict.PASS else RunState.REFUSED
        runs.finish_run(session, run_id, state, "over", NOW)
    database.close()
    add_adapter(folder, name, run_id=run_id)


def pointer(folder: Path) -> Deployment:
    database = open_database(load_settings(folder / "nocap.toml"))
    with database.read() as session:
        row = deployment(session, VoiceName("genz"))
    database.close()
    return row


def test_a_canary_answers_in_its_share_until_it_is_ended(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    nocap("init")
    add_adapter(tmp_path, "genz-v1", live=True)
    judged(tmp_path, "genz-v2", Verdict.PASS)
    started = nocap("canary", "genz-v2", "--share", "0.2")
    assert (started.code, started.out.strip()) == (0, "genz-v2 answers in 20% of the channels.")
    row = pointer(tmp_path)
    assert (row.current, row.canary, row.canary_share) == ("genz-v1", "genz-v2", 0.2)
    assert nocap("status", "--json").json["canary"] == "genz-v2"
    listed = nocap("adapters", "list").out
    assert "genz-v1 │ live " in listed and "genz-v2 │ canary " in listed
    ended = nocap("canary")
    assert (ended.code, ended.out.strip()) == (0, "The live adapter answers everywhere.")
    row = pointer(tmp_path)
    assert (row.current, row.canary, row.canary_share) == ("genz-v1", None, 0.0)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("genz-v2", "--share", "1.0"), 2, "must lie between 0 and 1"),
        (("genz-v2", "--share", "0"), 2, "must lie between 0 and 1"),
        (("genz-v3",), 7, "gates did not pass genz-v3"),
        (("genz-v1",), 7, "gates did not pass genz-v1"),
        (("genz-v9",), 4, "genz-v9"),
        (("genz-v2", "--voice", "gaming"), 2, "an adapter of the voice genz, not of gaming"),
    ],
)
def test_what_may_not_be_tried_on_members_is_refused_and_nothing_moves(
    nocap: Run,  # noqa: F811
    tmp_path: Path,
    words: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    nocap("init")
    add_adapter(tmp_path, "genz-v1", live=True)
    judged(tmp_path, "genz-v2", Verdict.PASS)
    judged(tmp_path, "genz-v3", Verdict.FAIL)
    refused = nocap("canary", *words)
    assert (refused.code, said in refused.err) == (code, True), refused
    row = pointer(tmp_path)
    assert (row.current, row.canary) == ("genz-v1", None)
