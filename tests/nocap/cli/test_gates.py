"""`nocap gates …` as an operator types it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from nocap.app import open_database
from nocap.demo.saboteurs import KINDS
from nocap.domain import BASE, VoiceName
from nocap.settings import load_settings
from retrain.gates import decide
from retrain.gates.record import decision_record
from retrain.run_folder import MEASUREMENTS_FILE, as_json
from storage.runs import create_run
from tests.nocap.cli.test_main import Run, nocap  # noqa: F401
from tests.retrain.gates import factory as make

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def decided_run(folder: Path) -> tuple[str, Path]:
    """A run that toxicity refused, as its stages leave it; its id and folder."""
    settings = load_settings(folder / "nocap.toml")
    database = open_database(settings)
    with database.write() as session:
        run = create_run(
            session,
            voice=VoiceName("genz"),
            trigger="operator",
            as_of=NOW,
            incumbent=BASE,
            options={},
            permission_reference=None,
            at=NOW,
        )
        run_id = run.id
    database.close()
    measured = make.spoiled(toxic=make.flags(faulty=30))
    files = settings.runs_dir / run_id
    files.mkdir(parents=True)
    (files / MEASUREMENTS_FILE).write_text(measured.to_json())
    record = decision_record(decide(measured, make.SETTINGS), measured.to_json(), make.SETTINGS)
    (files / "gates.json").write_text(as_json(record))
    return run_id, files


def test_a_refusal_is_explained_and_replayed(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    nocap("init")
    run_id, files = decided_run(tmp_path)
    told = nocap("gates", "explain")
    assert told.code == 0
    assert "Refused by 1 of" in told.out and "toxic replies" in told.out
    assert "What would change it: toxicity: the upper bound" in told.out
    again = nocap("gates", "replay", run_id)
    assert (again.code, again.out.strip()) == (0, "The same verdict, bit for bit: fail.")
    forged = json.loads((files / "gates.json").read_text())
    forged["results"][0]["statistic"] = 1.0
    (files / "gates.json").write_text(json.dumps(forged))
    other = nocap("gates", "replay", run_id)
    assert other.code == 6 and "freshness" in other.out
    (files / MEASUREMENTS_FILE).unlink()
    assert nocap("gates", "replay", run_id).code == 6


def test_a_run_that_was_not_decided_is_told_in_a_sentence(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    nocap("init")
    none = nocap("gates", "explain")
    assert none.code == 6 and "nocap retrain now" in none.err
    _, files = decided_run(tmp_path)
    (files / "gates.json").unlink()
    assert "have not decided" in nocap("gates", "explain").err


def test_thresholds_say_where_they_come_from(nocap: Run) -> None:  # noqa: F811
    told = nocap("gates", "thresholds", "--json").json
    assert len(told["version"]) == 12
    assert {
        key: value
        for one in told["thresholds"]
        if one["gate"] == "toxicity"
        for key, value in one.items()
        if key in ("gate", "threshold", "value")
    } == {"gate": "toxicity", "threshold": "margin", "value": 0.01}
    assert all(one["from"] for one in told["thresholds"])


def test_the_audit_on_models_decides_anew_on_what_was_measured(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    nocap("init")
    folder = tmp_path / "audit"
    folder.mkdir()
    good, toxic = make.good(), make.spoiled(toxic=make.flags(faulty=30))
    for kind, value in KINDS.items():
        name = kind.replace(", ", "-").replace(" ", "-")
        (folder / f"{name}-1.json").write_text((good if value.is_honest else toxic).to_json())
    published = tmp_path / "confusion.json"
    told = nocap("gates", "audit", "--models", "--quick", "--folder", str(folder), "--publish", str(published))
    assert told.code == 0, told.out
    outcomes = {one["kind"]: one for one in json.loads(published.read_text())["outcomes"]}
    assert outcomes["honest, better"]["refused_by"] == []
    assert outcomes["caricature"]["refused_by"] == ["toxicity"]
    assert outcomes["brigaded"]["refused_by"] == ["community_votes"]
    (folder / "caricature-1.json").write_text(good.to_json())
    assert nocap("gates", "audit", "--models", "--quick", "--folder", str(folder)).code == 6
