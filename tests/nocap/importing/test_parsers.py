from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nocap.domain import Provenance
from nocap.errors import InputError
from nocap.importing import discord, jsonl, telegram
from nocap.importing.common import PARSERS
from nocap.importing.rows import MAX_TEXT_CHARACTERS, BadRow, Row

GOOD: dict[str, Any] = {
    "id": 7, "member": "ada", "channel": "general", "sent_at": "2026-11-01T12:00:00+01:00", "text": "no cap",
}  # fmt: skip
MOMENT = datetime(2026, 11, 1, 11, tzinfo=UTC)


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def reasons(rows: Iterable[Row | BadRow]) -> list[tuple[str, str]]:
    return [(row.place, row.reason) for row in rows if isinstance(row, BadRow)]


@pytest.fixture
def parsed_jsonl(tmp_path: Path) -> Callable[[bytes], list[Row | BadRow]]:
    def parse(content: bytes) -> list[Row | BadRow]:
        file = tmp_path / "chat.jsonl"
        file.write_bytes(content)
        return list(jsonl.parse(file))

    return parse


Parse = Callable[[bytes], list[Row | BadRow]]


def test_a_jsonl_line_becomes_a_row_in_utc(parsed_jsonl: Parse) -> None:
    assert parsed_jsonl(lines(GOOD | {"reply_to": "6"})) == [
        Row("line 1", "7", "ada", "general", MOMENT, "no cap", reply_to="6", provenance=Provenance.DONATION)
    ]


def test_bom_crlf_blank_lines_and_a_missing_last_newline_are_fine(parsed_jsonl: Parse) -> None:
    one = json.dumps(GOOD).encode()
    rows = parsed_jsonl(b"\xef\xbb\xbf" + one + b"\r\n\r\n  \n" + one)
    assert [row.place for row in rows if isinstance(row, Row)] == ["line 1", "line 4"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sent_at": "2026-11-01T12:00:00"}, "has no time zone"),
        ({"sent_at": "yesterday"}, "is not a date like"),
        ({"sent_at": 1700000000}, "must be a date like"),
        ({"sent_at": "0001-01-01T00:00:00+10:00"}, "is not a date like"),
        ({"text": None}, "`text` must be a text, not missing"),
        ({"text": ["a"]}, "`text` must be a text, not a list"),
        ({"text": "\ud800"}, "half a character"),
        ({"text": "x" * (MAX_TEXT_CHARACTERS + 1)}, "longer than"),
        ({"member": ""}, "`member` is empty"),
        ({"member": True}, "not true or false"),
        ({"channel": {}}, "not an object"),
        ({"id": 1.5}, "not a number"),
        ({"id": 10**60}, "too long a number"),
        ({"reply_to": []}, "`reply_to` must be"),
        ({"provenance": "operator_seed"}, "`provenance` must be one of"),
        ({"provenance": "synthetic"}, "`provenance` must be one of"),
        ({"provenance": []}, "`provenance` must be one of"),
    ],
)
def test_a_bad_field_is_reported_by_line_and_reason(parsed_jsonl: Parse, change: dict[str, Any], reason: str) -> None:
    ((place, said),) = reasons(parsed_jsonl(lines(GOOD, GOOD | change)))
    assert place == "line 2"
    assert reason in said


def test_reasons_never_quote_the_row(parsed_jsonl: Parse) -> None:
    content = b'{"text": "mysecretword"\n' + lines(
        {"text": "mysecretword", "id": {"mysecretword": 1}}, GOOD | {"provenance": "mysecretword"}
    )
    said = reasons(parsed_jsonl(content))
    assert len(said) == 3
    assert "mysecretword" not in str(said)


def test_a_line_that_is_no_json_object_or_no_utf8_is_reported(parsed_jsonl: Parse) -> None:
    deep = b"[" * 100_000
    content = b"[1]\n" + b'{"text": "caf\xe9"}\n' + deep + b"\n" + b'{"id": 1, "text": "cut o'
    assert reasons(parsed_jsonl(content)) == [
        ("line 1", "must be an object in braces, not a list"),
        ("line 2", "is not UTF-8"),
        ("line 3", "is not JSON"),
        ("line 4", "is not JSON; it is the last one and may have been cut off"),
    ]


def test_an_overlong_line_is_one_bad_row(parsed_jsonl: Parse) -> None:
    for padding in (jsonl.MAX_LINE_BYTES, jsonl.MAX_LINE_BYTES + 1, 3 * jsonl.MAX_LINE_BYTES):
        rows = parsed_jsonl(b"x" * padding + b"\n" + lines(GOOD))
        assert reasons(rows) == [("line 1", "is longer than 1 MiB")]
        assert isinstance(rows[1], Row)


def test_utf16_and_missing_files_are_refused_with_what_to_do(parsed_jsonl: Parse, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="UTF-16; save it as UTF-8"):
        parsed_jsonl(json.dumps(GOOD).encode("utf-16"))
    with pytest.raises(InputError, match="cannot be read"):
        list(jsonl.parse(tmp_path / "nowhere.jsonl"))
    with pytest.raises(InputError, match="cannot be read"):
        list(jsonl.parse(tmp_path))


def telegram_message(**changes: Any) -> dict[str, Any]:
    return {
        "id": 5, "type": "message", "date": "2026-11-01T12:00:00", "date_unixtime": "1793530800",
        "from": "Ada", "from_id": "user42", "text": "hi",
    } | changes  # fmt: skip


def parse_telegram(tmp_path: Path, export: Any) -> list[Row | BadRow]:
    (tmp_path / "result.json").write_text(json.dumps(export), encoding="utf-8")
    return list(telegram.parse(tmp_path))


def chat(*messages: Any, **changes: Any) -> dict[str, Any]:
    return {"name": "Gang", "type": "private_group", "id": 99, "messages": list(messages)} | changes


def test_a_telegram_message_becomes_a_row(tmp_path: Path) -> None:
    assert parse_telegram(tmp_path, chat(telegram_message(reply_to_message_id=4))) == [
        Row("chat 1, message 1", "5", "42", "99", MOMENT, "hi", reply_to="4", channel_label="Gang")
    ]


def test_pieces_are_joined_and_what_telegram_marks_as_personal_is_removed(tmp_path: Path) -> None:
    pieces = [
        "yo ", {"type": "bold", "text": "bruh"}, " ", {"type": "mention_name", "text": "Bob Smith", "user_id": 3},
        " ", {"type": "phone", "text": "12345"}, {"type": "custom_emoji", "text": "💀"},
    ]  # fmt: skip
    (row,) = parse_telegram(tmp_path, chat(telegram_message(text=pieces)))
    assert isinstance(row, Row)
    assert row.text == "yo bruh [user] [phone]💀"


def test_what_is_not_the_senders_own_words_is_passed_over(tmp_path: Path) -> None:
    export = chat(
        telegram_message(type="service"), telegram_message(forwarded_from="Eve"), telegram_message(via_bot="@gif")
    )
    assert parse_telegram(tmp_path, export) == []


def test_a_full_export_holds_many_chats_and_private_ones_get_no_label(tmp_path: Path) -> None:
    private = chat(telegram_message(), type="personal_chat", id=100)
    rows = parse_telegram(
        tmp_path, {"chats": {"list": [chat(telegram_message()), private]}, "left_chats": {"list": []}}
    )
    assert [(row.channel, row.channel_label) for row in rows if isinstance(row, Row)] == [("99", "Gang"), ("100", None)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (telegram_message(date_unixtime=None), "`date` alone has no time zone"),
        (telegram_message(date_unixtime="soon"), "`date` alone has no time zone"),
        (telegram_message(date_unixtime="9" * 30), "outside the calendar"),
        (telegram_message(from_id=None), "`from_id` must be"),
        (telegram_message(text=[{"type": "bold"}]), "`text` must be a text, not missing"),
        ("hello", "must be an object in braces, not a text"),
    ],
)
def test_a_bad_telegram_message_is_reported(tmp_path: Path, message: Any, reason: str) -> None:
    ((place, said),) = reasons(parse_telegram(tmp_path, chat(telegram_message(), message)))
    assert place == "chat 1, message 2"
    assert reason in said


@pytest.mark.parametrize("export", [[], {}, {"chats": {"list": 3}}, 7])
def test_other_json_is_no_telegram_export(tmp_path: Path, export: Any) -> None:
    with pytest.raises(InputError, match="no Telegram Desktop export"):
        parse_telegram(tmp_path, export)


def test_a_cut_off_telegram_export_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(chat(telegram_message()))[:-5], encoding="utf-8")
    with pytest.raises(InputError, match="not complete JSON"):
        list(telegram.parse(file))


SNOWFLAKE = str((int(MOMENT.timestamp() * 1000) - discord.DISCORD_EPOCH_MILLISECONDS) << 22)
USER = {"Account/user.json": json.dumps({"id": "42", "username": "ada"})}


def as_csv(*records: dict[str, str]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["ID", "Timestamp", "Contents", "Attachments"])
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


PACKAGES = {
    "json": USER
    | {
        "Nachrichten/c99/messages.json": json.dumps(
            [{"ID": int(SNOWFLAKE), "Timestamp": "", "Contents": "line\nbreak"}]
        ),
        "Nachrichten/c99/channel.json": json.dumps({"id": "99", "name": "memes", "guild": {"id": "1"}}),
    },
    "csv": USER
    | {
        "messages/c99/messages.csv": "\ufeff" + as_csv({"ID": SNOWFLAKE, "Contents": "line\nbreak"}),
        "messages/c99/channel.json": json.dumps({"id": "99", "name": "memes", "guild": {"id": "1"}}),
    },
}


def write_package(path: Path, files: dict[str, str], zipped: bool) -> Path:
    if zipped:
        with zipfile.ZipFile(path / "package.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path / "package.zip"
    for name, content in files.items():
        (path / "package" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "package" / name).write_text(content, encoding="utf-8")
    return path / "package"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", PACKAGES)
def test_a_discord_package_is_read_zipped_or_not_in_both_forms(tmp_path: Path, form: str, zipped: bool) -> None:
    rows = list(discord.parse(write_package(tmp_path, PACKAGES[form], zipped)))
    assert rows == [Row("channel 1, message 1", SNOWFLAKE, "42", "99", MOMENT, "line\nbreak", channel_label="memes")]


def test_bad_discord_messages_and_files_are_reported(tmp_path: Path) -> None:
    files = USER | {
        "messages/c1/messages.json": "{",
        "messages/c2/messages.json": json.dumps([{"ID": "abc", "Contents": "x"}, {"ID": SNOWFLAKE}, 5]),
    }
    assert reasons(discord.parse(write_package(tmp_path, files, zipped=True))) == [
        ("channel 1", "its messages.json is damaged, too large or not JSON"),
        ("channel 2, message 1", "`ID` is no Discord message id"),
        ("channel 2, message 2", "`Contents` must be a text, not missing"),
        ("channel 2, message 3", "must be an object in braces, not a number"),
    ]


def test_private_discord_chats_get_no_label(tmp_path: Path) -> None:
    files = PACKAGES["json"] | {"Nachrichten/c99/channel.json": json.dumps({"name": "DM with Bob"})}
    (row,) = discord.parse(write_package(tmp_path, files, zipped=True))
    assert isinstance(row, Row)
    assert row.channel_label is None


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a.txt": "x"}, "no account/user.json"),
        (USER, "holds no messages"),
        ({"user.json": '{"id": []}'}, "`id` must be"),
    ],
)
def test_another_zip_is_no_discord_package(tmp_path: Path, files: dict[str, str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        list(discord.parse(write_package(tmp_path, files, zipped=True)))


def test_one_damaged_file_in_a_zip_costs_only_its_channel(tmp_path: Path) -> None:
    file = write_package(tmp_path, PACKAGES["json"] | {"messages/c1/messages.json": "[]" + " " * 500}, zipped=True)
    content = file.read_bytes()
    file.write_bytes(content.replace(b"[]   ", b"[!   ", 1))
    rows = list(discord.parse(file))
    assert [type(row) for row in rows] == [Row, BadRow]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "member", "channel", "sent_at", "text", "messages", "chats", "list", "from_id",
                         "date_unixtime", "type", "ID", "Contents", "name", "reply_to"]), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("form", ["jsonl", "telegram", "discord"])
@given(content=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_content_makes_a_parser_raise_anything_but_input_error(tmp_path: Path, form: Any, content: bytes) -> None:
    file = tmp_path / "input"
    file.write_bytes(content)
    try:
        assert all(isinstance(row, Row | BadRow) for row in PARSERS[form](file))
    except InputError as error:
        assert str(file) in str(error)


PLACES = ["messages/c1/messages.json", "messages/c1/messages.csv", "messages/c1/channel.json", "account/user.json"]


@given(
    content=st.binary(max_size=80) | json_values.map(lambda value: json.dumps(value).encode()),
    name=st.sampled_from(PLACES),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_inside_a_package_makes_the_parser_raise(tmp_path: Path, content: bytes, name: str) -> None:
    file = tmp_path / "package.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for other, text in (PACKAGES["csv"] | PACKAGES["json"]).items():
            archive.writestr(other.lower(), text)
        archive.writestr(f"more/{name}", content)
    rows = list(discord.parse(file))
    assert sum(isinstance(row, Row) for row in rows) >= 2


@given(cut=st.integers(0, 600), flip=st.integers(0, 600))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_zip_is_refused_or_reported(tmp_path: Path, cut: int, flip: int) -> None:
    content = bytearray(write_package(tmp_path, PACKAGES["json"], zipped=True).read_bytes())
    content[flip % len(content)] ^= 0x55
    file = tmp_path / "damaged.zip"
    file.write_bytes(content[: len(content) - cut % 40])
    try:
        list(discord.parse(file))
    except InputError as error:
        assert str(file) in str(error)
