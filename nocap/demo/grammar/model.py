"""The shapes of the grammar: a topic holds families, a family pairs subjects with frames."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Subject:
    """Something to talk about: its name, the single words tied to it, and clauses that use them."""

    name: str
    tied: tuple[str, ...]
    details: tuple[str, ...]
    is_plural: bool = False
    act: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """Prompt templates that share one set of fitting reply templates; the slots are in `words.SLOTS`."""

    prompts: tuple[str, ...]
    replies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """Subjects of one topic that the same frames fit."""

    topic: str
    subjects: tuple[Subject, ...]
    frames: tuple[Frame, ...]
    serious: bool = False


@dataclass(frozen=True)
class Exchange:
    """One prompt and a fitting reply; `context` holds the earlier (role, content) messages, oldest first.

    A prompt that comes with context may lean on it ("Why?"); one without always names its subject.
    """

    topic: str
    subject: str
    prompt: str
    reply: str
    serious: bool
    context: tuple[tuple[str, str], ...] = ()


def subjects(text: str, verb: str = "") -> tuple[Subject, ...]:
    """The subjects written in `text`: `name (plural, what one does): tied words`, then indented detail clauses.

    Clauses are separated by semicolons. What one does is `verb` and the name where the parenthesis does not say.
    """
    found = []
    for block in re.split(r"\n(?=\S)", textwrap.dedent(text).strip()):
        head, _, clauses = block.partition("\n")
        title, _, tied = head.partition(":")
        name, _, notes = title.rstrip(")").partition(" (")
        said = [note for note in notes.split(", ") if note and note != "plural"]
        details = tuple(clause.strip() for clause in re.sub(r"\s+", " ", clauses).split(";"))
        act = said[0] if said else f"{verb} {name}" if verb else ""
        found.append(Subject(name, tuple(tied.split()), details, "plural" in notes.split(", "), act))
    return tuple(found)
