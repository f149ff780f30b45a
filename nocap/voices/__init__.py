"""Voices as data: the one that ships (genz.toml), and the files of which operators make others."""

from __future__ import annotations

import re
from pathlib import Path

from nocap.errors import InputError

MAX_PROMPT_CHARACTERS = 4_000
MAX_TERMS = 2_000
_DENIES = re.compile(
    r"(?:not|never|n.t) (?:say|admit|tell|reveal|mention)[^.]{0,60}\b(?:bot|ai)\b"
    r"|\b(?:you are|you're) (?:a )?(?:human|real person)\b|\bnot (?:a |an )?(?:bot|ai)\b",
    re.IGNORECASE,
)


def read_prompt(file: Path) -> str:
    """The system prompt in `file`. Raises InputError where it is empty, too long, or denies that it is a bot."""
    text = _text(file).strip()
    if not text:
        raise InputError(f"{file} is empty; write the system prompt into it.")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise InputError(f"{file} has {len(text)} characters; a system prompt has at most {MAX_PROMPT_CHARACTERS}.")
    if found := _DENIES.search(text):
        raise InputError(f"{file} says {found[0]!r}: the bot must never deny that it is one (EU AI Act, Art. 50).")
    return text


def read_lexicon(file: Path) -> list[str]:
    """The marker terms in `file`, one a line, each once; lines that begin with # are notes. Raises InputError."""
    lines = (" ".join(line.split()) for line in _text(file).splitlines())
    terms = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not terms:
        raise InputError(f"{file} holds no term; write one marker term a line, so that the gates know the voice by it.")
    if len(terms) > MAX_TERMS:
        raise InputError(f"{file} holds {len(terms)} terms; a lexicon has at most {MAX_TERMS}.")
    return terms


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as UTF-8 text: {error}.") from error
