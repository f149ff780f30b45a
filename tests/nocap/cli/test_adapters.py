"""`nocap adapters compliance`, as an operator types it."""

from __future__ import annotations

from pathlib import Path

from sqlmodel import select

from nocap.app import open_database
from nocap.domain import RunId, RunState
from nocap.settings import load_settings
from storage import runs
from storage.tables import Message, RunSource
from tests.nocap.cli.test_main import NOW, Run, add_adapter, nocap  # noqa: F401  (the fixture)
from tests.nocap.cli.test_members import imported


def trained_on_everything(folder: Path) -> None:
    """genz-v2 as made by a run on all that is stored."""
    database = open_database(load_settings(folder / "nocap.toml"))
    with database.write() as session:
        run = runs.create_run(
            session,
            voice="genz",  # type: ignore[arg-type]
            trigger="test",
            as_of=NOW,
            incumbent="base",
            options={},
            permission_reference=None,
            at=NOW,
        )
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
