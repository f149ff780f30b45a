from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from nocap.domain import ChannelKey, MemberKey, Provenance, Purpose, VoiceName
from nocap.errors import InputError
from nocap.importing import common
from nocap.importing.common import ImportReport, import_file
from storage.consent import has_consent, record_consent
from storage.database import Database
from storage.messages import forget_member
from storage.tables import Channel, ConsentEvent, Message

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
POLICY = "2026-11"


def row(number: int, member: str = "ada", **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "member": member,
        "channel": "general",
        "sent_at": "2026-11-01T12:00:00Z",
        "text": f"text {number}",
    } | changes


def grant(member: str = "ada", **changes: Any) -> dict[str, Any]:
    return {"member": member, "channel": "*", "purposes": ["store", "train"], "granted": True} | changes


@pytest.fixture
def importing(tmp_path: Path) -> Callable[..., ImportReport]:
    """Imports the given rows (JSONL) with the given consent lines."""

    def run(database: Database, rows: list[Any], consent: list[Any] | None = None, **options: Any) -> ImportReport:
        file, side_file = tmp_path / "chat.jsonl", tmp_path / "consent.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in rows), encoding="utf-8")
        side_file.write_text("".join(json.dumps(line) + "\n" for line in consent or []), encoding="utf-8")
        defaults = {"policy_version": POLICY, "voice": VoiceName("genz"), "at": AT}
        return import_file(
            database, file, "jsonl", consent_file=side_file if consent is not None else None, **(defaults | options)
        )

    return run


Importing = Callable[..., ImportReport]


def stored(database: Database) -> list[Message]:
    with database.read() as session:
        return list(session.exec(select(Message)))


def member_key(database: Database, member: str = "ada", platform: str = "import:jsonl") -> MemberKey:
    return MemberKey(database.keyring.pseudonym("member", platform, member))


def channel_key(database: Database, channel: str = "general") -> ChannelKey:
    return ChannelKey(database.keyring.pseudonym("channel", "import:jsonl", channel))


def test_consented_rows_are_stored_scrubbed_once(database: Database, importing: Importing) -> None:
    rows = [row(1, text="mail a@b.com"), row(2, reply_to=1, provenance="telegram_submission"), row(1), row(3, "eve")]
    first = importing(database, rows, [grant()])
    assert (first.rows, first.added, first.duplicates, first.not_consented) == (4, 2, 1, 1)
    again = importing(database, rows, [grant()])
    assert (again.rows, again.added, again.duplicates, again.not_consented) == (4, 0, 3, 1)
    one, two = sorted(stored(database), key=lambda message: message.text)
    assert (one.text, two.text) == ("mail [email]", "text 2")
    assert (one.provenance, two.provenance) == (Provenance.DONATION, Provenance.TELEGRAM_SUBMISSION)
    assert two.reply_to == one.key
    assert one.member == member_key(database)


def test_without_a_side_file_nothing_is_stored(database: Database, importing: Importing) -> None:
    report = importing(database, [row(1), row(2)])
    assert (report.added, report.not_consented) == (0, 2)
    assert stored(database) == []


def test_consent_for_one_channel_does_not_reach_another(database: Database, importing: Importing) -> None:
    report = importing(database, [row(1), row(2, channel="other")], [grant(channel="other")])
    assert (report.added, report.not_consented) == (1, 1)


def test_consent_to_an_older_policy_does_not_count(database: Database, importing: Importing) -> None:
    report = importing(database, [row(1)], [grant(policy_version="2025-01")])
    assert (report.added, report.not_consented) == (0, 1)


def test_the_ledger_gets_the_stated_purposes_and_no_second_line(database: Database, importing: Importing) -> None:
    for _ in range(2):
        importing(database, [row(1)], [grant(at="2026-10-01T00:00:00Z")])
    with database.read() as session:
        lines = session.exec(select(ConsentEvent)).all()
        assert sorted((line.purpose, line.granted, line.at.month) for line in lines) == [
            ("store", True, 10), ("train", True, 10),
        ]  # fmt: skip


@pytest.mark.parametrize("moment", [{}, {"at": "2026-11-02T00:00:00Z"}])
def test_importing_again_never_undoes_a_later_no(
    database: Database, importing: Importing, moment: dict[str, str]
) -> None:
    importing(database, [row(1)], [grant(**moment)])
    member, channel = member_key(database), channel_key(database)
    with database.write() as session:
        record_consent(session, member, channel, [Purpose.STORE], False, POLICY, AT)
    report = importing(database, [row(2)], [grant(**moment)])
    assert report.not_consented == 1
    with database.read() as session:
        assert not has_consent(session, member, channel, Purpose.STORE, POLICY)


def test_a_later_statement_takes_consent_back(database: Database, importing: Importing) -> None:
    no = grant(granted=False, at="2026-11-03T00:00:00Z")
    report = importing(database, [row(1)], [grant(at="2026-11-02T00:00:00Z"), no])
    assert report.not_consented == 1


def test_a_forgotten_members_rows_do_not_come_back(database: Database, importing: Importing) -> None:
    importing(database, [row(1), row(2)], [grant()])
    with database.write() as session:
        forget_member(session, member_key(database), AT)
    report = importing(database, [row(1), row(2), row(3)], [grant()])
    assert (report.added, report.tombstoned) == (0, 3)


@pytest.mark.parametrize(
    "line",
    [
        grant(purposes=[]), grant(purposes=["everything"]), grant(purposes="store"), grant(granted="yes"),
        grant(member=None), grant(at="2026-11-01T00:00:00"), grant(purposes=[["store"]]), [],
    ],
)  # fmt: skip
def test_a_bad_consent_line_refuses_the_whole_import(database: Database, importing: Importing, line: Any) -> None:
    with pytest.raises(InputError, match=r"Nothing was imported: .*consent\.jsonl, line 2"):
        importing(database, [row(1)], [grant(), line])
    assert stored(database) == []


def test_skipping_reports_bad_rows_and_stores_the_others(database: Database, importing: Importing) -> None:
    report = importing(database, [row(1), row(2, text=5), row(3)], [grant()])
    assert (report.rows, report.added, report.bad_rows) == (3, 2, 1)
    assert report.bad == [("line 2", "`text` must be a text, not a number")]


def test_stopping_at_a_bad_row_writes_nothing(
    database: Database, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "CHUNK_ROWS", 2)
    rows = [row(number) for number in range(5)] + [row(9, sent_at="2026-11-01")]
    with pytest.raises(InputError, match=r"Nothing was imported: .*chat\.jsonl, line 6: `sent_at` has no time zone"):
        importing(database, rows, [grant()], on_error="stop")
    assert stored(database) == []
    with database.read() as session:
        assert session.exec(select(Channel)).all() == []
        assert session.exec(select(ConsentEvent)).all() == []


def test_rows_from_the_future_are_refused(database: Database, importing: Importing) -> None:
    soon, late = (AT + timedelta(hours=hours) for hours in (23, 25))
    rows = [row(1, sent_at=soon.isoformat()), row(2, sent_at=late.isoformat())]
    report = importing(database, rows, [grant()])
    assert report.added == 1
    assert report.bad == [("line 2", "lies in the future; check the date or this machine's clock")]


def test_the_channel_is_made_collecting_and_an_existing_one_keeps_its_own(
    database: Database, importing: Importing
) -> None:
    importing(database, [row(1)], [grant()])
    with database.write() as session:
        channel = session.get_one(Channel, channel_key(database))
        assert (channel.collect, channel.voice, channel.platform) == (True, "genz", "import:jsonl")
        channel.collect = False
    assert importing(database, [row(2)], [grant()]).not_collecting == 1


def test_the_reports_counts_add_up_and_progress_is_told(
    database: Database, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "CHUNK_ROWS", 3)
    monkeypatch.setattr(common, "MAX_REPORTED", 1)
    told: list[int] = []
    rows = [row(1), row(1), row(2, "eve"), row(3, text=" "), row(4, text=None), row(5, text=None), row(6)]
    report = importing(database, rows, [grant()], progress=told.append)
    counts = (report.added, report.duplicates, report.not_consented, report.empty, report.bad_rows)
    assert counts == (2, 1, 1, 1, 2)
    assert sum(counts) == report.rows == 7
    assert len(report.bad) == 1
    assert told == [3, 6, 7]


def test_no_plaintext_and_no_outside_id_is_in_the_database_file(
    sqlite_database: Database, importing: Importing, tmp_path: Path
) -> None:
    importing(sqlite_database, [row(1, "ada.lovelace", text="a very secret sentence")], [grant("ada.lovelace")])
    sqlite_database.close()
    content = b"".join(file.read_bytes() for file in tmp_path.glob("nocap.db*"))
    assert len(content) > 10_000
    assert b"secret sentence" not in content
    assert b"lovelace" not in content


@pytest.mark.parametrize("member", ["42", "user42"])
def test_a_telegram_export_gives_the_platforms_own_pseudonym(database: Database, tmp_path: Path, member: str) -> None:
    message = {"id": 1, "type": "message", "date_unixtime": "1793530800", "from_id": "user42", "text": "yo"}
    export = {
        "name": "Gang",
        "type": "private_group",
        "id": 9,
        "messages": [message, message | {"id": 2, "from_id": "user7"}],
    }
    (tmp_path / "result.json").write_text(json.dumps(export), encoding="utf-8")
    (tmp_path / "consent.jsonl").write_text(json.dumps(grant(member)), encoding="utf-8")
    report = import_file(
        database,
        tmp_path,
        "telegram",
        policy_version=POLICY,
        voice=VoiceName("genz"),
        consent_file=tmp_path / "consent.jsonl",
        at=AT,
    )
    assert (report.added, report.not_consented) == (1, 1)
    (message_row,) = stored(database)
    assert message_row.member == member_key(database, "42", "telegram")


def test_an_unknown_format_is_refused(database: Database, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whatsapp"):
        import_file(
            database, tmp_path, "whatsapp", policy_version=POLICY, voice=VoiceName("genz"), at=AT  # type: ignore[arg-type]
        )  # fmt: skip


def test_rows_that_may_name_somebody_are_dropped_and_counted_where_that_is_set(
    database: Database, importing: Importing
) -> None:
    rows = [row(1, text="ask Jordan about it"), row(2, text="that slaps")]
    report = importing(database, rows, [grant()], drop_on_doubt=True)
    assert (report.rows, report.added, report.doubtful) == (2, 1, 1)
    assert [message.text for message in stored(database)] == ["that slaps"]
