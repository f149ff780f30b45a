"""Fixed prompts of our own that every challenger is asked, the same for ever: package data and its loader.

`anchors` are everyday openings, `serious` ones call for plain words, and `retention` are multiple-choice items: 240
drawn once from held-out compositions of the demo's grammar (is the reply about what was asked?) and 68 of everyday
knowledge. Changing a file changes `digest`, so that figures taken with other probes are never reused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FILES = ("anchors.txt", "serious.txt", "retention.json")


@dataclass(frozen=True, slots=True)
class Choice:
    """A multiple-choice item: the gold choice stands first."""

    prompt: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Probes:
    anchors: tuple[str, ...]
    serious: tuple[str, ...]
    retention: tuple[Choice, ...]
    digest: str
    """SHA-256 over the three files."""


@cache
def load_probes() -> Probes:
    """The probes that ship with this package."""
    contents = {name: files(__package__).joinpath(name).read_bytes() for name in _FILES}
    return Probes(
        anchors=_lines(contents["anchors.txt"]),
        serious=_lines(contents["serious.txt"]),
        retention=tuple(Choice(prompt, tuple(choices)) for prompt, *choices in json.loads(contents["retention.json"])),
        digest=hashlib.sha256(b"\0".join(contents.values())).hexdigest(),
    )


def _lines(content: bytes) -> tuple[str, ...]:
    return tuple(content.decode("utf-8").split("\n")[:-1])
