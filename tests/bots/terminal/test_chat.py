from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import select
import signal
import stat
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path

import pytest
from rich.console import Console
from sqlmodel import select as select_rows

from bots import messages
from bots.terminal.chat import chat_in_terminal
from nocap.domain import SlangStatus, Vote
from storage.feedback import feedback_since
from storage.slang import TermFinding, set_status, upsert_candidates
from storage.tables import Duel, Message, Reply
from tests.bots.support import START, VOICE, World
from tests.fakes.backend import Hang, Refuse, says

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "tests.bots.terminal.program"]


async def chat(bot: World, *lines: str) -> str:
    """Everything that one session prints for these lines, which end with the end of the input."""
    waiting = iter(lines)
    shown = io.StringIO()

    async def read(prompt: str) -> str | None:
        return next(waiting, None)

    console = Console(file=shown, width=40)
    bot.restart()
    await chat_in_terminal(bot.conversation, user="someone", voice=VOICE, console=console, read=read)
    return shown.getvalue()


def votes(bot: World) -> tuple[int, int, int]:
    with bot.database.read() as session:
        summary = feedback_since(session, VOICE, START)
    return summary.up, summary.down, summary.cringe


async def test_the_first_start_says_that_it_is_a_bot_and_stores_nothing_by_default(bot: World) -> None:
    first = await chat(bot)
    assert "I'm a bot" in first and "Nothing that you write is stored" in first and "/consent" in first
    second = await chat(bot)
    assert messages.WELCOME_BACK in second and "Nothing that you write" not in second


async def test_answers_are_printed_plainly_without_wrapping_or_markup(bot: World) -> None:
    bot.backend.models["base"] = says("[bold]x[/bold] :smile: ", "a long answer that is wider than the window is")
    shown = await chat(bot, "hi")
    assert "[bold]x[/bold] :smile: a long answer that is wider than the window is\n" in shown


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        (["/up"], (1, 0, 0)),
        (["/down"], (0, 1, 0)),
        (["/cringe"], (0, 0, 1)),
        (["/up", "/cringe"], (0, 0, 1)),
        (["/up", "/undo"], (0, 0, 0)),
        (["/UP"], (1, 0, 0)),
    ],
)
async def test_votes_go_to_the_last_answer(bot: World, commands: list[str], expected: tuple[int, int, int]) -> None:
    shown = await chat(bot, "hi", *commands)
    assert votes(bot) == expected
    assert messages.voted(None if commands[-1] == "/undo" else Vote(commands[-1][1:].lower())) in shown


async def test_there_is_nothing_to_vote_on_before_an_answer_or_after_a_failed_one(bot: World) -> None:
    bot.backend.faults.append(Refuse(503))
    shown = await chat(bot, "/up", "hi", "/up")
    assert shown.count(messages.NOTHING_TO_VOTE_ON) == 2
    assert votes(bot) == (0, 0, 0)


async def test_consent_is_kept_between_starts_and_restores_the_talk(bot: World) -> None:
    await chat(bot, "before", "/consent grant", "after")
    with bot.database.read() as session:
        assert [row.text for row in session.exec(select_rows(Message))] == ["after"]
    shown = await chat(bot, "/consent", "and now?")
    assert shown.count("[yes]") == 4
    prompt = [turn["content"] for turn in bot.backend.chats[-1]["messages"][1:]]
    assert prompt == ["after", "base speaking", "and now?"]


@pytest.mark.parametrize(("choice", "voted"), [("left", True), (" R ", True), ("both bad", True), ("tie", True)])
async def test_a_duel_is_voted_on_and_then_revealed(bot: World, choice: str, voted: bool) -> None:
    bot.promote("genz-v1", "no cap")
    shown = await chat(bot, "/duel is it good?", choice)
    before, _, after = shown.partition(messages.DUEL_ASK)
    assert "no cap" in before and "base speaking" in before
    assert "genz-v1" not in before
    assert "Left was" in after and "genz-v1" in after


async def test_a_line_that_is_no_choice_is_taken_as_the_next_line(bot: World) -> None:
    bot.promote("genz-v1", "no cap")
    shown = await chat(bot, "/duel hm?", "hello there", "/duel")
    assert messages.DUEL_SKIPPED in shown
    assert bot.backend.chats[-1]["messages"][-1]["content"] == "hello there"
    assert messages.DUEL_USAGE in shown
    with bot.database.read() as session:
        assert len(session.exec(select_rows(Duel)).all()) == 1


async def test_slang_privacy_help_and_a_misspelt_command(bot: World) -> None:
    finding = TermFinding("rizz", 4.0, START, START, 0.9, None)
    with bot.database.write() as session:
        upsert_candidates(session, VOICE, [finding])
        set_status(session, VOICE, "rizz", SlangStatus.APPROVED, "charm", actor="mod", at=START)
    shown = await chat(bot, "/slang", "/slang rizz", "/slang nope", "/privacy", "/help", "/hlep")
    assert shown.count("rizz: charm") == 2
    for expected in (messages.slang_unknown("nope"), messages.PRIVACY, messages.HELP, messages.UNKNOWN_COMMAND):
        assert expected in shown
    assert bot.backend.chats == []


async def test_mydata_is_exported_to_a_private_file_that_is_never_overwritten(bot: World, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    shown = await chat(bot, "/consent grant", "my words", f"/mydata export {file}", f"/mydata export {file}")
    assert json.loads(file.read_text())["messages"][0]["text"] == "my words"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert messages.exported(str(file)) in shown
    assert f"{file} was not written: File exists" in shown


async def test_mydata_is_erased_only_after_a_yes(bot: World) -> None:
    shown = await chat(bot, "/consent grant", "my words", "/mydata delete", "no", "/mydata")
    assert messages.NOT_ERASED in shown and messages.MYDATA_USAGE in shown
    with bot.database.read() as session:
        assert len(session.exec(select_rows(Message)).all()) == 1
    assert "Erased on" in await chat(bot, "/mydata delete", "yes")
    with bot.database.read() as session:
        assert session.exec(select_rows(Message)).all() == []
        assert [row.text for row in session.exec(select_rows(Reply))] == [None]


async def test_quit_ends_and_blank_lines_are_nothing(bot: World) -> None:
    shown = await chat(bot, "", "   ", "/quit", "hi")
    assert shown.endswith(f"{messages.GOODBYE}\n")
    assert bot.backend.chats == []


async def test_a_failing_command_gives_one_line_and_the_chat_goes_on(bot: World) -> None:
    if not (bot.folder / "nocap.db").is_file():
        pytest.skip("it fails by a broken file, which is SQLite's way")
    bot.database.close()
    nowhere = bot.folder / "nocap.db"
    content = nowhere.read_bytes()

    async def read(prompt: str) -> str | None:
        return next(lines)

    def script():  # type: ignore[no-untyped-def]
        nowhere.write_bytes(b"not a database" * 400)
        yield "/slang"
        nowhere.write_bytes(content)
        yield "/help"
        yield None

    lines = script()
    shown = io.StringIO()
    console = Console(file=shown)
    await chat_in_terminal(bot.conversation, user="someone", voice=VOICE, console=console, read=read)
    assert "incident" in shown.getvalue() and messages.HELP in shown.getvalue()


async def test_cancelling_the_chat_from_outside_cancels_the_answer_too(bot: World) -> None:
    bot.backend.faults.append(Hang(after=0))
    session = asyncio.create_task(chat(bot, "hi"))
    await bot.backend.was_asked.wait()
    session.cancel()
    with pytest.raises(asyncio.CancelledError):
        await session
    assert bot.backend.answers_cancelled == 1


def test_piped_lines_are_answered_plainly_and_without_prompts(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, str(tmp_path)], input="hi\r\n/up\nlast 🧢 line", capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout[done.stdout.index("you said") :]
    assert said == f"you said hi\n{messages.voted(Vote.UP)}\nyou said last 🧢 line\n{messages.GOODBYE}\n"


def test_ctrl_c_at_a_silent_pipe_ends_cleanly(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(b"/help\n")
    process.stdin.flush()
    _read_until(process.stdout.fileno(), messages.HELP[-20:].encode())
    time.sleep(0.3)  # until it waits for the next line
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == b""
    process.stdin.close()
    process.stdout.close()
    process.stderr.close()


def test_at_a_terminal_ctrl_c_stops_an_answer_and_ctrl_d_ends_the_chat(tmp_path: Path) -> None:
    with _Terminal([*PROGRAM, str(tmp_path)]) as terminal:
        terminal.until(b"you> ")
        terminal.type(b"hang\n")
        terminal.until(b"thinking")
        terminal.type(b"\x03")
        terminal.until(b"(stopped)")
        terminal.until(b"you> ")
        terminal.type(b"hi\n")
        terminal.until(b"you said hi")
        terminal.until(b"you> ")
        terminal.type(b"\x04")
        terminal.until(messages.GOODBYE.encode())
        assert terminal.wait() == 0


def test_at_a_terminal_ctrl_c_at_the_prompt_ends_the_chat_and_restores_the_terminal(tmp_path: Path) -> None:
    with _Terminal([*PROGRAM, str(tmp_path)]) as terminal:
        before = termios.tcgetattr(terminal.slave)
        terminal.until(b"you> ")
        terminal.type(b"half a li")
        terminal.until(b"half a li")
        terminal.type(b"\x03")
        terminal.until(messages.GOODBYE.encode())
        assert terminal.wait() == 0
        assert termios.tcgetattr(terminal.slave) == before


class _Terminal:
    """A process at a terminal of its own."""

    def __init__(self, command: Sequence[str]) -> None:
        self.master, self.slave = pty.openpty()
        self._unread = b""
        self._process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm"},
        )

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *failure: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self.master)
        os.close(self.slave)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def until(self, expected: bytes) -> None:
        self._unread = _read_until(self.master, expected, self._unread)

    def wait(self) -> int:
        return self._process.wait(timeout=30)


def _read_until(descriptor: int, expected: bytes, seen: bytes = b"") -> bytes:
    """What was read beyond `expected`."""
    while expected not in seen:
        ready, _, _ = select.select([descriptor], [], [], 60)
        assert ready, f"waited in vain for {expected!r}, saw {seen!r}"
        chunk = os.read(descriptor, 4096)
        assert chunk, f"ended before {expected!r}, saw {seen!r}"
        seen += chunk
    return seen.partition(expected)[2]
