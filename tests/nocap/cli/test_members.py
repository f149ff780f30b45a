"""`nocap members export|forget`, as an operator types them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.nocap.cli.test_main import Run, nocap  # noqa: F401  (the fixture)


def imported(nocap: Run, folder: Path) -> None:  # noqa: F811
    nocap("init")
    rows = [
        {
            "id": f"{number}",
            "member": who,
            "channel": "c",
            "sent_at": "2026-11-20T12:00:00Z",
            "text": f"{who} says {number}",
        }
        for number, who in enumerate(("ana", "ben", "ana"))
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    agreed = [
        {"member": who, "channel": "*", "purposes": ["store", "train"], "granted": True} for who in ("ana", "ben")
    ]
    (folder / "consent.jsonl").write_text("".join(json.dumps(line) + "\n" for line in agreed))
    assert nocap("import", "jsonl", "chat.jsonl", "--consent", "consent.jsonl", "--json").json["added"] == 3


def test_a_member_is_exported_forgotten_and_cannot_be_imported_again(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    imported(nocap, tmp_path)
    assert nocap("members", "export", "import:jsonl:ana", "--output", "ana.json").code == 0
    assert (tmp_path / "ana.json").stat().st_mode & 0o777 == 0o600
    assert [row["text"] for row in json.loads((tmp_path / "ana.json").read_text())["messages"]] == [
        "ana says 0",
        "ana says 2",
    ]
    receipt = nocap("members", "forget", "import:jsonl:ana", "--yes", "--json").json
    assert (receipt["messages"], receipt["adapters"], receipt["retire_by"]) == (2, [], None)
    assert json.loads(nocap("members", "export", "import:jsonl:ana").out)["messages"] == []
    again = nocap("import", "jsonl", "chat.jsonl", "--consent", "consent.jsonl", "--json").json
    assert (again["added"], again["duplicates"], again["tombstoned"]) == (0, 1, 2)


def test_a_name_that_is_no_member_is_refused_with_the_forms(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    nocap("init")
    ended = nocap("members", "forget", "ana", "--yes")
    assert ended.code == 2
    assert "telegram:123456789" in ended.err


def test_an_export_never_overwrites_a_file(nocap: Run, tmp_path: Path) -> None:  # noqa: F811
    nocap("init")
    (tmp_path / "ana.json").write_text("mine")
    assert nocap("members", "export", "telegram:1", "--output", "ana.json").code == 2
    assert (tmp_path / "ana.json").read_text() == "mine"
