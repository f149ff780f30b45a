"""How far one database goes: turns a second against processes, a promotion's way to all of them, and how the cost of
what runs by schedule grows with the stored messages. On PostgreSQL (the tests' own server), in a database of its own.

`--messages` says how many are stored at last (by tens, from 10,000); `--quick` stops at 20,000.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from sqlalchemy import event, insert, text
from sqlmodel import Session, SQLModel

from benchmarks._postgres import postgres_database
from benchmarks._report import Bar, publish
from bots.records import Exchange, Incoming, Records
from nocap.backup import write_backup
from nocap.domain import (
    BASE,
    AdapterName,
    AdapterStatus,
    ChannelKey,
    MemberKey,
    MessageKey,
    Provenance,
    Purpose,
    VoiceName,
    Vote,
    utc_now,
)
from nocap.observability.state import StateCollector
from nocap.settings import DatabaseSettings, Settings
from retrain.slang import BACKGROUND, RECENT, find_terms, uses_of
from storage.channels import ensure_channel
from storage.consent import record_consent
from storage.crypto import Keyring
from storage.database import Database
from storage.eligibility import EligibilityQuery, eligible_messages, exclusion_counts
from storage.invariants import check_rows, digest
from storage.pointers import LivePointers
from storage.registry import ensure_voice, move_pointer, register_adapter
from storage.tables import Adapter, Message, Reply

VOICE = VoiceName("genz")
NOW = datetime(2026, 11, 1, tzinfo=UTC)
MEMBERS, CHANNELS = 2000, 50
WORDS = ("no", "cap", "fr", "the", "game", "was", "wild", "today", "bet", "school", "music", "late", "again", "who")
PARTS = ("turns", "pointer", "growth")
PROCESSES = (1, 2, 4)
READERS, MOVES = 4, 40
SECONDS_PER_LOAD = 6.0
CHUNK = 20_000
INDEX_PAYS_MESSAGES = 100_000
"""Below it PostgreSQL may rightly read a whole table rather than its index."""

BARS = {
    "pointer_seen_by_all_p99_seconds": Bar(1.0),
    "turn_queries_without_index": Bar(0),
    "window_jobs_without_index": Bar(0),
    "votes_lost_or_doubled": Bar(0),
}
GROWTH = Bar(1.3)
"""Cost per message at the most messages over that at the fewest: at most linear, with room for noise."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 messages at last, fewer seconds")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of the three, to run them apart")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--child", nargs=3, metavar=("KIND", "DATA", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        kind, data, url = arguments.child
        {"turns": turn_child, "pointer": pointer_child}[kind](_opened(Path(data), url))
        return
    most = 20_000 if arguments.quick else arguments.messages
    with postgres_database() as url, TemporaryDirectory() as name:
        if url is None:
            sys.exit("PostgreSQL does not answer on 127.0.0.1:5432; start it and run this again.")
        data = Path(name) / "data"
        settings, database = _installed(data, url)
        figures: dict[str, float] = {}
        if "turns" in arguments.parts:
            figures |= turns_by_processes(data, url, database, 2.0 if arguments.quick else SECONDS_PER_LOAD)
        if "pointer" in arguments.parts:
            figures |= pointer_way(data, url, database)
        if "growth" in arguments.parts:
            figures |= growth(settings, database, most)
        database.close()
    bars = {name: bar for name, bar in BARS.items() if name in figures}
    bars |= {name: GROWTH for name in figures if name.endswith("_cost_per_message_ratio")}
    publish("scale", figures, bars, packages=("SQLAlchemy", "psycopg"), as_json=arguments.as_json)


def turns_by_processes(data: Path, url: str, database: Database, seconds: float) -> dict[str, float]:
    """Chat turns (settings, consent, message, reply, vote) a second, all processes together."""
    figures: dict[str, float] = {}
    voted = 0
    before = server_cpu(url)
    for count in PROCESSES:
        children = [_child("turns", data, url) for _ in range(count)]
        for child in children:
            _read(child, "ready")
        for child in children:
            _tell(child, f"{seconds}")
        answers = [_read(child, "turns").split() for child in children]
        serving = server_cpu(url) - before
        for child in children:
            _tell(child, "end")
            child.wait()
        totals, client = [int(turns) for turns, _ in answers], sum(float(cpu) for _, cpu in answers)
        voted += sum(totals)
        if count == 1:
            figures["turn_client_cpu_ms"] = 1000 * client / max(1, sum(totals))
            figures["turn_server_cpu_ms"] = 1000 * serving / max(1, sum(totals))
        figures[f"turns_per_second_{count}_processes"] = sum(totals) / seconds
    with database.read() as session:
        counted = session.connection().execute(
            text("SELECT count(*), count(DISTINCT (reply_id, member)) FROM feedback")
        )
        rows, distinct = counted.one()
    return figures | {"votes_lost_or_doubled": float(abs(voted - rows) + abs(rows - distinct))}


def turn_child(opened: tuple[Settings, Database]) -> None:
    settings, database = opened
    records, draw = Records(database, settings, VOICE), random.Random()
    print("ready", flush=True)
    until = time.monotonic() + float(sys.stdin.readline())
    turns, begun = 0, time.process_time()
    while time.monotonic() < until:
        channel, member = ChannelKey(f"c{draw.randrange(CHANNELS)}"), MemberKey(f"m{draw.randrange(MEMBERS)}")
        key = MessageKey(f"{draw.getrandbits(128):032x}")
        incoming = Incoming("telegram", channel, member, key, _sentence(draw), NOW, Provenance.TERMINAL)
        stored = records.prepare(incoming, NOW).stored
        reply = records.reply(Exchange(incoming, VOICE, Provenance.TERMINAL, stored, stored, ()), BASE, "bet", NOW)
        records.vote(reply, member, Vote.UP, NOW)
        turns += 1
    print(f"turns {turns} {time.process_time() - begun}", flush=True)
    sys.stdin.readline()  # the connection stays until the server's part is read


def pointer_way(data: Path, url: str, database: Database) -> dict[str, float]:
    """From a promotion's commit until the slowest of several processes that ask 50 times a second has seen it."""
    readers = [_child("pointer", data, url) for _ in range(READERS)]
    for reader in readers:
        _read(reader, "ready")
    moved: dict[str, float] = {}
    names = itertools.cycle(["genz-v1", "genz-v2"])
    for _ in range(MOVES):
        time.sleep(random.uniform(0.05, 0.15))
        with database.write() as session:
            move_pointer(session, VOICE, AdapterName(next(names)), actor="bench", reason="bench", at=utc_now())
            revision = session.connection().execute(text("SELECT revision FROM deployment")).scalar_one()
        moved[str(revision)] = time.time()
    time.sleep(1.5)
    slowest: dict[str, float] = {}
    missed = 0
    for reader in readers:
        _tell(reader, "stop")
        seen: dict[str, float] = json.loads(_read(reader, "seen"))
        reader.wait()
        for revision, at in moved.items():
            missed += revision not in seen
            slowest[revision] = max(slowest.get(revision, 0.0), seen.get(revision, at + 60) - at)
    ordered = sorted(slowest.values())
    return {
        "pointer_seen_by_all_median_seconds": statistics.median(ordered),
        "pointer_seen_by_all_p99_seconds": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "pointer_moves_missed": float(missed),
    }


def pointer_child(opened: tuple[Settings, Database]) -> None:
    import select

    _, database = opened
    pointers = LivePointers(database)
    pointers.read(VOICE)
    seen: dict[int, float] = {}
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        revision = pointers.read(VOICE).revision
        seen.setdefault(revision, time.time())
    print("seen " + json.dumps(seen), flush=True)


def growth(settings: Settings, database: Database, most: int) -> dict[str, float]:
    """CPU seconds (ours, the tools' and the server's) of each scheduled job by stored messages, and each one's cost
    per message at the end over the start: on a busy machine the clock on the wall tells nothing."""
    figures: dict[str, float] = {}
    costs: dict[str, dict[int, float]] = {}
    for size in sorted({10_000, min(100_000, most), most}):
        _fill(database, size)
        for name, job in jobs(settings, database).items():
            seconds = min(_cpu_seconds(job, database.url.database or "") for _ in range(3 if size <= 10_000 else 1))
            costs.setdefault(name, {})[size] = seconds
            figures[f"{name}_cpu_seconds_{size}"] = seconds
    figures["turn_queries_without_index"] = float(len(queries_without_index(database)))
    if most >= INDEX_PAYS_MESSAGES:
        figures["window_jobs_without_index"] = float(
            reads_whole_table(database, jobs(settings, database)["eligible_rows"])
        )
    for name, by_size in costs.items():
        fewest, most_stored = min(by_size), max(by_size)
        figures[f"{name}_cost_per_message_ratio"] = (by_size[most_stored] / most_stored) / (by_size[fewest] / fewest)
    return figures


def _cpu_seconds(job: Callable[[], object], name: str) -> float:
    def spent() -> float:
        tools = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + tools.ru_utime + tools.ru_stime + server_cpu(name)

    begun = spent()
    job()
    return spent() - begun


def server_cpu(url: str) -> float:
    """CPU seconds of the server's processes that now serve the database that `url` ends with, and of all that have
    ended (a tool's connection, parallel workers): so nobody else's work should end meanwhile."""
    name, total = url.rsplit("/", 1)[-1], 0.0
    servers: set[psutil.Process] = set()
    for process in psutil.process_iter(["cmdline", "cpu_times"]):
        if f" {name} " in " ".join(process.info["cmdline"] or ()) and "postgres:" in process.info["cmdline"][0]:
            total += process.info["cpu_times"].user + process.info["cpu_times"].system
            servers.add(process.parent())
    ended = [server.cpu_times() for server in servers]
    return total + sum(times.children_user + times.children_system for times in ended)


def jobs(settings: Settings, database: Database) -> dict[str, Callable[[], object]]:
    """What runs by schedule or by scrape, as it is called there."""
    query = EligibilityQuery(VOICE, Purpose.TRAIN, settings.policy_version, None, NOW - timedelta(days=28), NOW)
    slang = EligibilityQuery(VOICE, Purpose.TRAIN, settings.policy_version, None, NOW - RECENT - BACKGROUND, NOW)

    def reading(work: Callable[[Session], object]) -> Callable[[], object]:
        def job() -> object:
            with database.read() as session:
                return work(session)

        return job

    def backup() -> object:
        with TemporaryDirectory() as name:
            return write_backup(settings, database, Path(name), NOW, keep=None)

    return {
        "eligible_rows": reading(lambda session: len(eligible_messages(session, query))),
        "left_out_by_reason": reading(lambda session: exclusion_counts(session, query)),
        "slang": reading(lambda session: find_terms(uses_of(session, slang), NOW, [])),
        "metrics": lambda: list(StateCollector(database, settings).collect()),
        "check_rows": reading(check_rows),
        "digest": reading(digest),
        "backup": backup,
    }


def queries_without_index(database: Database) -> list[str]:
    """Of the queries that every turn makes, those whose plan reads a whole big table."""
    queries = {
        "message by key": "SELECT key FROM message WHERE key IN ('k1', 'k2')",
        "newest of a channel": "SELECT * FROM message WHERE channel = 'c1' ORDER BY sent_at DESC, id DESC LIMIT 6",
        "a member's messages": "SELECT key FROM message WHERE member = 'm1'",
        "reply by prompt": "SELECT id FROM reply WHERE prompt_key = 'k1'",
        "vote": "SELECT id FROM feedback WHERE reply_id = 5 AND member = 'm1'",
        "consent": "SELECT max(id) FROM consent_event WHERE member = 'm1' AND channel = 'c1' GROUP BY purpose",
        "tombstone": "SELECT key FROM tombstone WHERE key IN ('k1', 'm1')",
    }
    slow = []
    with database.write() as session:
        session.connection().execute(text("ANALYZE"))
    with database.read() as session:
        for name, query in queries.items():
            plan = "\n".join(session.connection().execute(text(f"EXPLAIN {query}")).scalars())
            if any(f"Seq Scan on {table}" in plan for table in ("message", "reply", "consent_event")):
                print(f"{name} reads a whole table:\n{plan}", file=sys.stderr)
                slow.append(name)
    return slow


def reads_whole_table(database: Database, job: Callable[[], object]) -> bool:
    """Whether a query of the job, which wants 28 days of a year, is planned by going through all messages."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    with database.read() as session:
        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", note)
        job()
        event.remove(engine, "before_cursor_execute", note)
        plans = [
            "\n".join(session.connection().exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
            for statement, parameters in asked
            if statement.startswith("SELECT")
        ]
    assert any("message" in plan for plan in plans), "the job reads messages"
    print("\n".join(plans), file=sys.stderr)
    return any("Seq Scan on message" in plan for plan in plans)


def _installed(data: Path, url: str) -> tuple[Settings, Database]:
    settings = Settings(data_dir=data, database=DatabaseSettings(url=url))
    data.mkdir(parents=True)
    database = Database.open(url, Keyring.create(settings.key_file), create=True)
    with database.write() as session:
        ensure_voice(session, VOICE, "You are a bot.", ["no cap"], NOW)
        for number in range(CHANNELS):
            key = ChannelKey(f"c{number}")
            ensure_channel(session, key, platform="telegram", label=None, voice=VOICE, at=NOW, collect=True)
        for name in ("genz-v1", "genz-v2"):
            register_adapter(
                session,
                Adapter(name=name, voice=VOICE, base="b", base_digest="b", digest=name, status=AdapterStatus.PASSED,
                        created_at=NOW),
            )  # fmt: skip
    with database.write() as session:
        for member, channel in itertools.product(range(MEMBERS), range(CHANNELS)):
            if (member + channel) % 10 == 0:
                record_consent(session, MemberKey(f"m{member}"), ChannelKey(f"c{channel}"), list(Purpose), True,
                               settings.policy_version, NOW - timedelta(days=365))  # fmt: skip
    return settings, database


def _fill(database: Database, size: int) -> None:
    """Only messages of the last year, in the order in which they were said, every tenth answered; every table's
    statistics are fresh then, as the server itself sees to in time."""
    draw = random.Random(size)
    with database.write() as session:
        session.connection().execute(text("TRUNCATE message, reply CASCADE"))
    for start in range(0, size, CHUNK):
        numbers = range(start, min(start + CHUNK, size))
        with database.write() as session:
            _insert(session, Message, [_message(draw, number, _said(number, size)) for number in numbers])
            _insert(session, Reply, [_reply(draw, number, _said(number, size)) for number in numbers[::10]])
    database.wipe_freed()
    with database.write() as session:
        session.connection().execute(text("ANALYZE"))


def _said(number: int, size: int) -> datetime:
    return NOW - timedelta(days=365) * (1 - number / size)


def _insert(session: Session, table: type[SQLModel], rows: Sequence[dict[str, Any]]) -> None:
    session.connection().execute(insert(table), rows)


def _message(draw: random.Random, number: int, at: datetime) -> dict[str, Any]:
    channel = draw.randrange(CHANNELS)
    member = (10 * draw.randrange(MEMBERS // 10) - channel) % MEMBERS  # one who agreed in this channel
    return {
        "key": f"k{number}", "channel": f"c{channel}", "member": f"m{member}", "provenance": "donation",
        "sent_at": at, "received_at": at, "text": _sentence(draw), "reply_to": None,
    }  # fmt: skip


def _reply(draw: random.Random, number: int, at: datetime) -> dict[str, Any]:
    return {
        "channel": f"c{draw.randrange(CHANNELS)}", "voice": VOICE, "adapter": "genz-v1",
        "prompt_member": f"m{draw.randrange(MEMBERS)}", "prompt_key": f"k{number}", "prompt": None, "text": None,
        "provenance": "donation", "at": at,
    }  # fmt: skip


def _sentence(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=12))


def _opened(data: Path, url: str) -> tuple[Settings, Database]:
    settings = Settings(data_dir=data, database=DatabaseSettings(url=url))
    return settings, Database.open(url, Keyring.load(settings.key_file))


def _child(kind: str, data: Path, url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.scale", "--child", kind, str(data), url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _lines(child: subprocess.Popen[str]) -> Iterator[str]:
    assert child.stdout is not None
    return iter(child.stdout)


def _read(child: subprocess.Popen[str], word: str) -> str:
    line = next(_lines(child)).strip()
    assert line.startswith(word), line
    return line.removeprefix(word).strip()


def _tell(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


if __name__ == "__main__":
    main()
