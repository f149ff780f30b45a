"""Losses and divergences of known replies under the base and its adapters, by forward passes in batches.

Tensor suffixes: B rows, T positions of the replies (right-aligned), V vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from inference.base_model import BaseModel
from inference.prompt import ReplyTokens
from nocap.domain import BASE
from retrain._questions import Speaker, rows_digest
from retrain.run_folder import write_file

BATCH_TOKENS = {"cpu": 4096, "cuda": 16_384}
"""Tokens of one forward, padding included."""
LOGIT_VALUES = {"cpu": 2**25, "cuda": 2**29}
"""Logits held at once, per model: 128 MiB on a CPU."""

PerToken = NDArray[np.float64]
Count = Callable[[int], None]
"""Called with the number of rows that are done."""


@dataclass(frozen=True, slots=True)
class _Batch:
    rows: list[int]
    input_ids: Any
    attention_mask: Any
    positions: Any
    labels_BT: Any
    """-1 where a row has no reply token."""


class Scorer:
    """Scores replies with `base` (asked for as BASE) or one of `adapters`; changes `base.model` for good."""

    def __init__(self, base: BaseModel, adapters: Mapping[str, Path]) -> None:
        self._base = base
        self._model: Any = base.model
        for name, folder in adapters.items():
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(str(folder), adapter_name=name)
            else:
                self._model = PeftModel.from_pretrained(base.model, str(folder), adapter_name=name)
        self._model.eval()

    @torch.inference_mode()
    def losses(self, model: str, rows: Sequence[ReplyTokens], done: Count | None = None) -> list[PerToken]:
        """For each row its reply tokens' losses in nats, given the prompt and the reply so far."""
        return self._collect(rows, lambda batch: _losses(self._logits(model, batch), batch.labels_BT), done)

    @torch.inference_mode()
    def divergences(self, model: str, rows: Sequence[ReplyTokens], done: Count | None = None) -> list[PerToken]:
        """For each row KL(model ‖ base) in nats at each of its reply tokens."""
        return self._collect(
            rows, lambda batch: _divergence(self._logits(model, batch), self._logits(BASE, batch)), done
        )

    @torch.inference_mode()
    def first_token_logprobs(self, model: str, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Log-probabilities of the first reply token after each prompt: (prompts, vocabulary)."""
        rows = [ReplyTokens(list(prompt), [0]) for prompt in prompts]
        found: dict[int, NDArray[np.float32]] = {}
        for batch in self._batches(rows):
            logprobs_BTV = self._logits(model, batch).log_softmax(-1)
            found.update(zip(batch.rows, logprobs_BTV[:, -1].cpu().numpy(), strict=True))
        return np.stack([found[row] for row in range(len(rows))])

    def _collect(
        self, rows: Sequence[ReplyTokens], score: Callable[[_Batch], Any], done: Count | None
    ) -> list[PerToken]:
        found: list[PerToken] = [np.zeros(0)] * len(rows)
        finished = 0
        for batch in self._batches(rows):
            values_BT = score(batch).double().cpu().numpy()
            is_reply_BT = (batch.labels_BT >= 0).cpu().numpy()
            for row, values_T, is_reply_T in zip(batch.rows, values_BT, is_reply_BT, strict=True):
                found[row] = values_T[is_reply_T]
            finished += len(batch.rows)
            if done is not None:
                done(finished)
        return found

    def _logits(self, model: str, batch: _Batch) -> torch.Tensor:
        """float32 logits that predict the last T tokens of each row: (rows, T, vocabulary)."""
        with self._as(model):
            output = self._model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.positions,
                logits_to_keep=batch.labels_BT.shape[1] + 1,
                use_cache=False,
            )
        logits_BTV: torch.Tensor = output.logits[:, :-1].float()
        return logits_BTV

    def _as(self, model: str) -> AbstractContextManager[Any]:
        if not isinstance(self._model, PeftModel):
            assert model == BASE, f"no adapter {model} was loaded"
            return nullcontext()
        if model == BASE:
            return self._model.disable_adapter()  # type: ignore[no-any-return]
        self._model.set_adapter(model, inference_mode=True)
        return nullcontext()

    def _batches(self, rows: Sequence[ReplyTokens]) -> Iterator[_Batch]:
        """Rows of like length together, the longest first, so that what does not fit fails at once."""
        device = self._base.device
        vocabulary = self._base.model.get_input_embeddings().weight.shape[0]
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row].prompt) - len(rows[row].reply))
        chosen: list[int] = []
        for row in order:
            width = len(rows[(chosen or [row])[0]].prompt) + len(rows[(chosen or [row])[0]].reply)
            kept = max(len(rows[one].reply) for one in [*chosen, row])
            size = len(chosen) + 1
            if chosen and (size * width > BATCH_TOKENS[device] or size * kept * vocabulary > LOGIT_VALUES[device]):
                yield self._batch(rows, chosen)
                chosen = []
            chosen.append(row)
        if chosen:
            yield self._batch(rows, chosen)

    def _batch(self, rows: Sequence[ReplyTokens], chosen: list[int]) -> _Batch:
        """Left-padded, so that all replies end in the last column."""
        device = self._base.model.device
        width = max(len(rows[row].prompt) + len(rows[row].reply) for row in chosen)
        kept = max(len(rows[row].reply) for row in chosen)
        ids = torch.zeros((len(chosen), width), dtype=torch.long)
        mask = torch.zeros((len(chosen), width), dtype=torch.long)
        labels_BT = torch.full((len(chosen), kept), -1, dtype=torch.long)
        for index, row in enumerate(chosen):
            tokens = [*rows[row].prompt, *rows[row].reply]
            ids[index, width - len(tokens) :] = torch.tensor(tokens)
            mask[index, width - len(tokens) :] = 1
            labels_BT[index, kept - len(rows[row].reply) :] = torch.tensor(rows[row].reply)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return _Batch(list(chosen), ids.to(device), mask.to(device), positions.to(device), labels_BT.to(device))


def _losses(logits_BTV: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    picked_BT = logits_BTV.gather(2, labels_BT.clamp(min=0)[:, :, None])[:, :, 0]
    return logits_BTV.logsumexp(2) - picked_BT


def _divergence(logits_BTV: torch.Tensor, base_BTV: torch.Tensor) -> torch.Tensor:
    logprobs_BTV, base_logprobs_BTV = logits_BTV.log_softmax(2), base_BTV.log_softmax(2)
    return (logprobs_BTV.exp() * (logprobs_BTV - base_logprobs_BTV)).sum(2)


class CachedLosses:
    """A scorer for the three speakers that remembers the base's and the incumbent's losses between runs.

    A speaker without an adapter is the base. `progress` gets what is scored, how many rows are done, and of how many.
    """

    def __init__(
        self,
        scorer: Scorer,
        cache_dir: Path,
        identity: str,
        digests: Mapping[Speaker, str],
        progress: Callable[[str, int, int], None],
    ) -> None:
        self._scorer = scorer
        self._cache_dir = cache_dir
        self._identity = identity
        self._progress = progress
        self.digests = digests

    def of(self, speaker: Speaker, what: str, rows: Sequence[ReplyTokens], *, cache: bool = True) -> list[PerToken]:
        """The rows' losses per token under `speaker`; the challenger's are never cached."""
        if not cache or speaker == "challenger":
            return self._scorer.losses(self._name(speaker), rows, self._count(what, rows))
        path = self._path(speaker, rows)
        if (kept := _read_losses(path, len(rows))) is not None:
            return kept
        found = self._scorer.losses(self._name(speaker), rows, self._count(what, rows))
        write_file(path, json.dumps([one.tolist() for one in found]))
        return found

    def divergences(self, speaker: Speaker, what: str, rows: Sequence[ReplyTokens]) -> list[PerToken]:
        """KL(speaker ‖ base) at each reply token."""
        return self._scorer.divergences(self._name(speaker), rows, self._count(what, rows))

    def first_token_logprobs(self, speaker: Speaker, prompts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Log-probabilities of the first reply token after each prompt: (prompts, vocabulary)."""
        return self._scorer.first_token_logprobs(self._name(speaker), prompts)

    def _name(self, speaker: Speaker) -> str:
        return speaker if speaker in self.digests else BASE

    def _count(self, what: str, rows: Sequence[ReplyTokens]) -> Count:
        return lambda done: self._progress(what, done, len(rows))

    def _path(self, speaker: Speaker, rows: Sequence[ReplyTokens]) -> Path:
        key = f"{self._identity}/{self.digests.get(speaker, BASE)}/{rows_digest(rows)}"
        return self._cache_dir / f"losses-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read_losses(path: Path, rows: int) -> list[PerToken] | None:
    """What was kept, or None where there is nothing or something else, which is then measured again."""
    try:
        found = [np.array(one, dtype=np.float64) for one in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == rows else None
