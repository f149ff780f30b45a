"""`nocap consent show|audit`, as an operator types them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.nocap.cli.test_main import Run, nocap  # noqa: F401  (the fixture)
from tests.nocap.cli.test_members import imported


def test_the_ledger_is_shown_and_counted_and_names_nobody(
    nocap: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    imported(nocap, tmp_path)
    states = nocap("consent", "show", "import:jsonl:ana", "--json").json
    assert [(row["purpose"], row["granted"], row["holds"]) for row in states] == [
        ("store", True, True),
        ("train", True, True),
    ]
    assert "agreed" in nocap("consent", "show", "import:jsonl:ana").out
    assert "everything is a no" in nocap("consent", "show", "import:jsonl:nobody").out
    printed = nocap("consent", "audit", "--json")
    assert [(row["purpose"], row["agreed"], row["outdated"]) for row in printed.json["purposes"]] == [
        ("store", 2, 0),
        ("train", 2, 0),
    ]
    assert printed.json["due"] == []
    monkeypatch.setitem(os.environ, "NOCAP_POLICY_VERSION", "2027-01")
    after = nocap("consent", "audit", "--json").json
    assert [(row["agreed"], row["outdated"]) for row in after["purposes"]] == [(0, 2), (0, 2)]
    assert [(row["due"], row["asked"]) for row in after["due"]] == [(2, 0)]
    text = nocap("consent", "audit").out
    assert "Due to be asked again" in text
    for out in (printed.out, text):
        assert not {"ana", "ben"} & set(out.replace('"', " ").split())
