"""What a look at the installation found: one line each, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, but not as well as it could, or not for long."""
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    level: Level
    sentence: str
    remedy: str = ""
    """What to do; empty where all is well."""


def ok(subject: str, sentence: str) -> Finding:
    return Finding(subject, Level.OK, sentence)


def warning(subject: str, sentence: str, remedy: str) -> Finding:
    return Finding(subject, Level.WARNING, sentence, remedy)


def problem(subject: str, sentence: str, remedy: str) -> Finding:
    return Finding(subject, Level.PROBLEM, sentence, remedy)


def has_problems(findings: Iterable[Finding]) -> bool:
    return any(finding.level is Level.PROBLEM for finding in findings)
