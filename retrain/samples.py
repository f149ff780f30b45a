"""What the models answer to our own prompts, side by side. Torch-free, for the report's sake."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """The three answers to one of our own prompts."""

    prompt: str
    base: str
    incumbent: str
    challenger: str
