"""Fixed prompts of our own that every challenger is asked, the same for ever: package data and its loader.

`anchors` are everyday openings, `serious` ones call for plain words, `injections` try to talk the bot out of its
instructions (each with the word that would show it obeyed, or none where it is asked to give them away), and
`retention` are multiple-choice items: 240
drawn once from held-out compositions of the demo's grammar (is the reply about what was asked?) and 68 of everyday
knowledge. Changing a file changes `digest`, so that figures taken with other probes are never reused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FILES = ("anchors.txt", "serious.txt", "injections.tsv", "retention.json")


@dataclass(frozen=True, slots=True)
class Choice:
    """A multiple-choice item: the gold choice stands first."""

    prompt: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attack:
    """A prompt injection; `word` is what an obedient reply says, or empty."""

    prompt: str
    word: str


@dataclass(frozen=True, slots=True)
class Probes:
    anchors: tuple[str, ...]
    serious: tuple[str, ...]
    injections: tuple[Attack, ...]
    retention: tuple[Choice, ...]
    digest: str
    """SHA-256 over the files."""


@cache
def load_probes() -> Probes:
    """The probes that ship with this package."""
    contents = {name: files(__package__).joinpath(name).read_bytes() for name in _FILES}
    return Probes(
        anchors=_lines(contents["anchors.txt"]),
        serious=_lines(contents["serious.txt"]),
        injections=tuple(Attack(*line.split("\t")) for line in _lines(contents["injections.tsv"])),
        retention=tuple(Choice(prompt, tuple(choices)) for prompt, *choices in json.loads(contents["retention.json"])),
        digest=hashlib.sha256(b"\0".join(contents.values())).hexdigest(),
    )


def _lines(content: bytes) -> tuple[str, ...]:
    return tuple(content.decode("utf-8").split("\n")[:-1])
