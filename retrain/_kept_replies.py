"""Replies to our own fixed prompts, kept between runs: the next run's incumbent is this one's challenger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inference.server.generation import Completion, GenerationRequest
from nocap.domain import AdapterName
from retrain.run_folder import write_file


class KeptReplies:
    """By model, prompts, sampling and seeds: another adapter or another set of probes is drawn anew.

    The files hold what adapters said, so they go with the data directory's whole cache when a member is forgotten.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        """`identity` says which base in which quantisation on which device."""
        self._folder = folder
        self._identity = identity

    def read(self, digest: str, requests: Sequence[GenerationRequest]) -> list[Completion] | None:
        """The replies of the adapter with this digest, or None where they have to be drawn."""
        try:
            rows = json.loads(self._path(digest, requests).read_bytes())
            found = [_completion(row, one.adapter) for row, one in zip(rows, requests, strict=True)]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return found

    def write(self, digest: str, requests: Sequence[GenerationRequest], replies: Sequence[Completion]) -> None:
        write_file(self._path(digest, requests), json.dumps([asdict(one) for one in replies]))

    def _path(self, digest: str, requests: Sequence[GenerationRequest]) -> Path:
        asked = [(one.prompt_token_ids, asdict(one.sampling)) for one in requests]
        key = json.dumps([self._identity, digest, asked], default=str)
        return self._folder / f"replies-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _completion(row: dict[str, Any], adapter: AdapterName) -> Completion:
    return Completion(**{**row, "token_ids": tuple(row["token_ids"]), "adapter": adapter})
