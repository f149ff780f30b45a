"""Does the scrub find what is personal and leave chat alone, fast enough; and does eligibility decide fast enough?

`python -m benchmarks.privacy [--quick] [--json]`. Texts that nobody here wrote come from `../shared/data` and are left
out where that is absent; the project's own chat-style set (`chat_pii.txt`) is always there.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import insert

from benchmarks._report import Bar, publish
from nocap.domain import Provenance, Purpose, VoiceName
from nocap.text._names import name_spans
from nocap.text.scrub import Found, scrub, scrub_with_counts
from storage.crypto import Keyring
from storage.database import Database
from storage.eligibility import EligibilityQuery, eligible_messages, exclusion_counts
from storage.tables import Channel, ConsentEvent

SHARED = Path(__file__).parents[2] / "shared" / "data"
OWN = Path(__file__).with_name("chat_pii.txt")
CHATS = {
    "reddit_college_dev": "text",
    "ubuntu_irc_2004_2018": "text",
    "wnut17_youtube_comments_2017": "text",
    "nus_sms_2003_2015_dev": "text",
    "conda_dota2_chat_dev": "utterance",
    "topical_chat_valid": "text",
    "taskmaster4": "text",
    "youtube_comments_2023_spam_labelled_dev": "text",
}
"""The ordinary chat of `shared/data`, mixed in the proportion of their rows."""
GENERATED_KINDS = {
    "EMAIL_ADDRESS": Found.EMAIL,
    "PHONE_NUMBER": Found.PHONE,
    "CREDIT_CARD": Found.ACCOUNT,
    "IBAN_CODE": Found.ACCOUNT,
    "US_SSN": Found.ACCOUNT,
    "IP_ADDRESS": Found.IP,
    "DOMAIN_NAME": Found.LINK,
}
OWN_KINDS = {
    "email": Found.EMAIL,
    "phone": Found.PHONE,
    "card": Found.ACCOUNT,
    "ip": Found.IP,
    "link": Found.LINK,
    "key": Found.SECRET,
    "name": Found.NAME,
    "address": Found.ADDRESS,
    "user": Found.USER,
}
_MARKED = re.compile(r"\{(\w+)\|([^}]*)\}")


class Labelled(NamedTuple):
    text: str
    pieces: list[tuple[Found, str]]


class Score(NamedTuple):
    recall: float
    precision: float
    pieces: int


def own_set() -> list[Labelled]:
    """The project's chat-style messages with what must go from each."""
    lines = [line for line in OWN.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [
        Labelled(
            _MARKED.sub(lambda match: match[2], line),
            [(OWN_KINDS[kind], text) for kind, text in _MARKED.findall(line)],
        )
        for line in lines
    ]


def generated_set() -> list[dict[str, Any]]:
    """Presidio's generated sentences; empty where they are not here."""
    file = SHARED / "pii" / "presidio_generated_large.jsonl"
    return [json.loads(line) for line in file.open(encoding="utf-8")] if file.exists() else []


def score_by_kind(rows: Iterable[Labelled]) -> dict[Found, Score]:
    """A labelled piece is found if it is gone; a placeholder is right if a labelled piece of its kind is gone."""
    labelled: Counter[Found] = Counter()
    gone: Counter[Found] = Counter()
    placed: Counter[Found] = Counter()
    right: Counter[Found] = Counter()
    for text, pieces in rows:
        scrubbed, counts = scrub_with_counts(text)
        gone_here = Counter(kind for kind, piece in pieces if piece not in scrubbed)
        labelled += Counter(kind for kind, _ in pieces)
        gone += gone_here
        placed += Counter(counts)
        right += Counter({kind: min(count, gone_here[kind]) for kind, count in counts.items()})
    return {
        kind: Score(gone[kind] / total, right[kind] / placed[kind] if placed[kind] else 0.0, total)
        for kind, total in labelled.items()
    }


def score_names(records: Iterable[dict[str, Any]]) -> Score:
    """A person is found if a removed span touches them; a removed span is right if it touches a person."""
    total = found = removed = right = 0
    for record in records:
        people = [
            (span["start_position"], span["end_position"])
            for span in record["spans"]
            if span["entity_type"] == "PERSON"
        ]
        spans = list(name_spans(record["full_text"]))
        total += len(people)
        found += sum(_touches(person, spans) for person in people)
        removed += len(spans)
        right += sum(_touches(span, people) for span in spans)
    return Score(found / total, right / removed, total)


def _touches(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)


def as_labelled(records: Iterable[dict[str, Any]]) -> Iterator[Labelled]:
    for record in records:
        kinds = [(GENERATED_KINDS.get(span["entity_type"]), span["entity_value"]) for span in record["spans"]]
        yield Labelled(record["full_text"], [(kind, value) for kind, value in kinds if kind is not None])


def ordinary_chat(rows: int) -> list[str]:
    """A sample of all shared chats together; empty where they are not here."""
    from pyarrow import parquet

    texts: list[str] = []
    for name, column in CHATS.items():
        file = SHARED / "chat" / f"{name}.parquet"
        if file.exists():
            texts += [text for text in parquet.read_table(file, columns=[column])[column].to_pylist() if text]
    return random.Random(5).sample(texts, min(rows, len(texts)))


def share_changed(texts: Sequence[str]) -> float:
    """Share of rows that lose something else than mentions and links."""
    changed = sum(bool(scrub_with_counts(text)[1].keys() - {Found.LINK, Found.USER}) for text in texts)
    return changed / len(texts)


def messages_per_second(texts: Sequence[str], repeats: int) -> float:
    """Of one core's CPU time; the median of the repeats."""
    rates = []
    for _ in range(repeats):
        began = time.process_time()
        for text in texts:
            scrub(text)
        rates.append(len(texts) / (time.process_time() - began))
    return statistics.median(rates)


HOSTILE = (
    "a",
    "a.",
    "@",
    "1 ",
    "Ab ",
    "1-",
    "http://",
    "a@",
    "key=",
    "Dr. ",
    "::",
    "Anna, ",
    "via a ",
    "[email] ",
    "> ",
)


def hostile_seconds(characters: int) -> float:
    """CPU seconds of the slowest of the texts that repeat one hostile piece up to `characters`."""
    slowest = 0.0
    for piece in HOSTILE:
        text = piece * (characters // len(piece))
        began = time.process_time()
        scrub(text)
        slowest = max(slowest, time.process_time() - began)
    return slowest


def eligibility_seconds(rows: int) -> tuple[float, float]:
    """Wall seconds to count every exclusion among `rows` messages, and to fetch and decrypt the eligible 1 %."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    with tempfile.TemporaryDirectory() as folder:
        keyring = Keyring.create(Path(folder) / "key")
        database = Database.open(f"sqlite:///{folder}/nocap.db", keyring, create=True)
        _fill(database, rows, now)
        query = EligibilityQuery(VoiceName("genz"), Purpose.TRAIN, "2026-11", None, now - timedelta(days=28), now)
        with database.read() as session:
            began = time.perf_counter()
            exclusion_counts(session, query)
            counted = time.perf_counter() - began
        few = EligibilityQuery(VoiceName("genz"), Purpose.TRAIN, "2026-11", None, now - timedelta(days=1), now)
        with database.read() as session:
            began = time.perf_counter()
            eligible_messages(session, few)
            fetched = time.perf_counter() - began
        database.close()
    return counted, fetched


def _fill(database: Database, rows: int, now: datetime) -> None:
    members, channels = 5000, 50
    draw = random.Random(7)
    text = database.keyring.encrypt("no cap")
    with database.write() as session:
        connection = session.connection()
        connection.execute(
            insert(Channel.__table__),  # type: ignore[attr-defined]
            [
                {"key": f"c{n}", "platform": "telegram", "voice": "genz", "mode": "mention", "collect": n % 10 != 0,
                 "duels": True, "created_at": now} for n in range(channels)
            ],
        )  # fmt: skip
        connection.execute(
            insert(ConsentEvent.__table__),  # type: ignore[attr-defined]
            [
                {"member": f"m{n}", "channel": f"c{n % channels}", "purpose": purpose, "granted": n % 3 != 0,
                 "policy_version": "2026-11", "at": now} for n in range(members) for purpose in Purpose
            ],
        )  # fmt: skip
        raw = connection.connection.driver_connection
        assert raw is not None
        provenances = list(Provenance)
        raw.executemany(
            "INSERT INTO message (key, channel, member, provenance, sent_at, received_at, text) VALUES (?,?,?,?,?,?,?)",
            (
                (f"k{n}", f"c{n % channels}", f"m{(n % channels) + channels * draw.randrange(members // channels)}",
                 provenances[n % len(provenances)], str(now - timedelta(seconds=draw.randrange(100 * 86_400)))[:19]
                 + ".000000", str(now)[:19] + ".000000", text) for n in range(rows)
            ),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    figures: dict[str, float] = {}
    bars: dict[str, Bar] = {}
    certain = {Found.EMAIL, Found.PHONE, Found.ACCOUNT, Found.IP, Found.LINK, Found.SECRET}
    for where, scores in (
        ("generated", score_by_kind(as_labelled(generated_set()))),
        ("own chat", score_by_kind(own_set())),
    ):
        for kind, score in scores.items():
            figures |= {f"{where}: {kind} recall": score.recall, f"{where}: {kind} precision": score.precision}
            recall, precision = (0.95, 0.95) if kind in certain else (0.7, 0.8)
            if kind in certain or kind is Found.NAME:
                bars[f"{where}: {kind} recall"] = Bar(recall, at_most=False)
                bars[f"{where}: {kind} precision"] = Bar(precision, at_most=False)
    if records := generated_set():
        names = score_names(records)
        figures |= {"generated: name recall": names.recall, "generated: name precision": names.precision}
        bars |= {
            "generated: name recall": Bar(0.7, at_most=False),
            "generated: name precision": Bar(0.8, at_most=False),
        }
    if chat := ordinary_chat(60_000 // scale):
        figures["ordinary chat: share of rows changed"] = share_changed(chat)
        figures["ordinary chat: messages per second, one core"] = messages_per_second(chat[: 20_000 // scale], 3)
        bars["ordinary chat: share of rows changed"] = Bar(0.02)
        bars["ordinary chat: messages per second, one core"] = Bar(20_000, at_most=False)
    figures["hostile megabyte, slowest, seconds"] = hostile_seconds(1_000_000)
    figures["hostile: time of 1 MB over that of 0.25 MB"] = figures["hostile megabyte, slowest, seconds"] / max(
        hostile_seconds(250_000), 1e-9
    )
    bars["hostile megabyte, slowest, seconds"] = Bar(1.0)
    bars["hostile: time of 1 MB over that of 0.25 MB"] = Bar(6.0)
    counted, fetched = eligibility_seconds(1_000_000 // scale)
    figures[f"eligibility of {1_000_000 // scale:,} rows, seconds"] = counted
    figures["eligible rows of one day, seconds"] = fetched
    bars[f"eligibility of {1_000_000 // scale:,} rows, seconds"] = Bar(2.0)
    publish("privacy", figures, bars, packages=("sqlalchemy", "cryptography"), as_json=options.json)


if __name__ == "__main__":
    main()
