"""The commands as an operator types them: what they print, and how they exit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from inference.adapter_files import write_manifest
from nocap.app import open_database
from nocap.cli.main import main
from nocap.domain import AdapterName, AdapterStatus, VoiceName
from nocap.settings import load_settings
from storage.registry import move_pointer, register_adapter
from storage.tables import Adapter

NOW = datetime(2026, 11, 22, tzinfo=UTC)


class Ended(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


@pytest.fixture
def nocap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs one command in an empty folder; the log goes back to where it was, for the captured stream closes."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["nocap", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
            raise SystemExit(0)
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    yield run
    structlog.reset_defaults()


def add_adapter(folder: Path, name: str, *, live: bool = False, run_id: str | None = None) -> Path:
    """A registered adapter whose one file is no model, only bytes under a manifest."""
    settings = load_settings(folder / "nocap.toml")
    adapter = settings.adapters_dir / name
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"weights of " + name.encode())
    digest = write_manifest(adapter, name=name, base_digest="b" * 64, rank=8)
    database = open_database(settings)
    with database.write() as session:
        row = Adapter(
            name=name,
            voice="genz",
            run_id=run_id,
            base="embedded",
            base_digest="b" * 64,
            digest=digest,
            status=AdapterStatus.PASSED,
            created_at=NOW,
        )
        register_adapter(session, row)
        if live:
            move_pointer(session, VoiceName("genz"), AdapterName(name), actor="test", reason="test", at=NOW)
    database.close()
    return adapter


def test_help_is_answered_without_the_heavy_parts() -> None:
    code = (
        "import sys\nfrom nocap.cli.main import app\n"
        "from typer.testing import CliRunner\nprint(CliRunner().invoke(app, ['--help']).output)\n"
        "print([name for name in ('torch', 'sqlmodel', 'storage', 'httpx', 'pydantic') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "rollback" in printed
    assert printed.rstrip().endswith("[]")


def test_init_writes_settings_a_private_key_and_a_database_and_keeps_them(nocap: Run, tmp_path: Path) -> None:
    assert nocap("init").code == 0
    key = tmp_path / "data" / "nocap.key"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes(), (tmp_path / "nocap.toml").read_bytes()
    assert nocap("init").code == 0
    assert before == (key.read_bytes(), (tmp_path / "nocap.toml").read_bytes())


def test_status_says_that_the_base_is_live(nocap: Run) -> None:
    nocap("init")
    state = nocap("status", "--json").json
    assert state["live"] == "base"
    assert state["last_run"] is None
    assert state["next_run"].endswith("04:00:00+00:00")
    assert "live" in nocap("status").out


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--settings", "none.toml", "status"), 2, "nocap init"),
        (("retrain", "status"), 6, "nocap retrain now"),
        (("report", "20260101-000000-abcdef"), 6, "no run"),
        (("rollback",), 7, "no earlier adapter"),
        (("adapters", "show", "genz-v9"), 4, "nocap adapters list"),
        (("promote", "genz-v9", "--reason", "x"), 4, "nocap adapters list"),
        (("slang", "block", "unheard"), 2, "unheard"),
        (("slang", "dismiss", "unheard"), 2, "unheard"),
        (("no-such-command",), 2, "No such command"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_an_exit_code(
    nocap: Run, words: tuple[str, ...], code: int, sentence: str
) -> None:
    nocap("init")
    ended = nocap(*words)
    assert ended.code == code, ended
    assert sentence in ended.err
    assert "Traceback" not in ended.err


def test_without_init_every_command_says_to_run_it(nocap: Run) -> None:
    ended = nocap("status")
    assert ended.code == 2
    assert "nocap init" in ended.err


def test_an_open_key_file_is_refused(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    (tmp_path / "data" / "nocap.key").chmod(0o644)
    ended = nocap("status")
    assert (ended.code, "chmod 600" in ended.err) == (2, True)


def test_a_lost_key_is_never_replaced_by_a_new_one(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    (tmp_path / "data" / "nocap.key").unlink()
    ended = nocap("init")
    assert (ended.code, "put the key file back" in ended.err) == (3, True)
    assert not (tmp_path / "data" / "nocap.key").exists()


def test_import_reports_bad_rows_and_adds_nothing_twice(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    row = {"id": "1", "member": "ana", "channel": "c", "sent_at": "2026-11-01T10:00:00+00:00", "text": "no cap"}
    rows = [json.dumps(row), "{broken", json.dumps(row | {"id": "2", "member": "ben"})]
    (tmp_path / "chat.jsonl").write_text("\n".join(rows) + "\n")
    statement = {"member": "ana", "channel": "*", "purposes": ["store", "train"], "granted": True}
    (tmp_path / "consent.jsonl").write_text(json.dumps(statement) + "\n")
    words = ("import", "jsonl", "chat.jsonl", "--consent", "consent.jsonl")
    first = nocap(*words)
    assert first.code == 0
    assert "3 rows read, 1 added" in first.out
    assert "1 without their author's consent" in first.out
    assert "line 2" in first.out
    assert nocap(*words, "--json").json["added"] == 0
    assert nocap(*words, "--on-error", "stop").code == 2


def test_preview_counts_what_is_left_out(nocap: Run) -> None:
    nocap("init")
    plan = nocap("retrain", "preview", "--json").json
    assert plan["train"] == 0
    assert plan["needed"] == 200
    assert "0 examples" in nocap("retrain", "now", "--dry-run").out


def test_rollback_says_from_what_to_what(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    add_adapter(tmp_path, "genz-v1", live=True)
    assert nocap("status", "--json").json["live"] == "genz-v1"
    assert "genz: genz-v1 → base" in nocap("rollback").out
    assert nocap("rollback", "genz-v1", "--json").json == {"voice": "genz", "before": "base", "after": "genz-v1"}


def test_an_ungated_adapter_goes_live_only_by_override(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    add_adapter(tmp_path, "genz-v1")
    refused = nocap("promote", "genz-v1", "--reason", "looks fine")
    assert (refused.code, "--override" in refused.err) == (7, True)
    assert nocap("status", "--json").json["live"] == "base"


def test_one_flipped_byte_is_found(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    adapter = add_adapter(tmp_path, "genz-v1")
    assert "intact" in nocap("adapters", "verify", "genz-v1").out
    weights = adapter / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[3] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    ended = nocap("adapters", "verify", "genz-v1")
    assert ended.code == 4
    assert "adapter_model.safetensors" in ended.err
    rolled = nocap("rollback", "genz-v1")
    assert rolled.code == 4
    assert nocap("status", "--json").json["live"] == "base"


def test_the_database_is_checked_backed_up_and_restored_with_the_same_digest(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    checked = nocap("db", "check", "--json")
    assert checked.code == 0
    assert {finding["level"] for finding in checked.json["findings"]} == {"ok"}
    backup = nocap("db", "backup", "backups", "--json").json
    assert backup["digest"] == checked.json["digest"]
    assert nocap("db", "restore", backup["file"]).code == 3
    assert nocap("db", "restore", backup["file"], "--replace", "--json").json["restored_digest"] == backup["digest"]
    assert nocap("db", "check").out.splitlines()[-1] == f"digest  {backup['digest']}"


def test_a_live_adapter_that_is_damaged_fails_the_check(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    weights = add_adapter(tmp_path, "genz-v1", live=True) / "adapter_model.safetensors"
    assert nocap("db", "check").code == 0
    weights.chmod(0o644)
    weights.write_bytes(b"other")
    ended = nocap("db", "check")
    assert (ended.code, "PROBLEM" in ended.out, "genz-v1" in ended.out) == (3, True, True)


def test_what_killed_processes_left_is_named_and_removed(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    for left in ("adapters/genz-v9", "runs/20260101-000000-abcdef"):
        (tmp_path / "data" / left).mkdir(parents=True)
    warned = nocap("db", "check")
    assert (warned.code, "--clean" in warned.out) == (0, True)
    assert "warning" not in nocap("db", "check", "--clean").out
    assert not (tmp_path / "data" / "adapters" / "genz-v9").exists()


def test_the_doctors_exit_code_tells_whether_something_is_wrong(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    well = nocap("doctor", "--offline", "--json")
    assert (well.code, well.json["healthy"]) == (0, True)
    (tmp_path / "data" / "nocap.key").chmod(0o640)
    ill = nocap("doctor", "--offline")
    assert (ill.code, "PROBLEM  key" in ill.out, "→" in ill.out) == (2, True, True)


def test_a_voice_is_added_from_files_and_speaks_with_the_base(nocap: Run, tmp_path: Path) -> None:
    nocap("init")
    (tmp_path / "words.txt").write_text("# gaming\ngg\n\nrespawn\ngg\n", encoding="utf-8")
    (tmp_path / "prompt.txt").write_text("You are a bot in a gaming chat.", encoding="utf-8")
    files = ("--lexicon", "words.txt", "--prompt", "prompt.txt")
    added = nocap("voices", "add", "gamer", *files, "--base", "embedded")
    assert added.code == 0 and "with 2 terms" in added.out
    shown = nocap("voices", "show", "gamer", "--json").json
    assert (shown["lexicon"], shown["live"]) == (["gg", "respawn"], "base")
    assert [row["name"] for row in nocap("voices", "list", "--json").json] == ["gamer", "genz"]
    assert nocap("status", "--voice", "gamer", "--json").json["live"] == "base"
    again = nocap("voices", "add", "gamer", *files)
    assert again.code == 2 and "a voice gamer already" in again.err


@pytest.mark.parametrize(
    ("prompt", "lexicon", "name", "said"),
    [
        ("You are a human being, never say you are a bot.", "gg", "gamer", "must never deny"),
        ("  ", "gg", "gamer", "is empty"),
        ("You are a bot.", "# nothing\n", "gamer", "holds no term"),
        ("You are a bot.", "gg", "Gamer!", "cannot be named"),
        ("You are a bot.", b"\xff\xfe\x00", "gamer", "UTF-8"),
    ],
)
def test_a_voice_that_cannot_be_is_refused_with_a_reason(
    nocap: Run, tmp_path: Path, prompt: str, lexicon: str | bytes, name: str, said: str
) -> None:
    nocap("init")
    (tmp_path / "words.txt").write_bytes(lexicon if isinstance(lexicon, bytes) else lexicon.encode())
    (tmp_path / "prompt.txt").write_text(prompt, encoding="utf-8")
    refused = nocap("voices", "add", name, "--lexicon", "words.txt", "--prompt", "prompt.txt")
    assert refused.code == 2 and said in refused.err
