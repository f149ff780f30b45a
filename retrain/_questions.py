"""The prompts that a challenger is measured on, rendered, and the replies that the serving engine draws to them."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inference.adapter_files import AdapterManifest
from inference.base_model import BaseModel
from inference.prompt import ReplyTokens, chat_messages, render_reply
from inference.server.engine import DEFAULT_MAX_LENGTH, Engine
from inference.server.generation import Completion, GenerationRequest
from nocap.domain import BASE, ChatMessage, SamplingOptions
from nocap.settings import GateSettings
from retrain._kept_replies import KeptReplies
from retrain.examples import Example

Speaker = Literal["base", "incumbent", "challenger"]
Purpose = Literal["held_out", "anchors", "serious", "injections", "training"]
SPEAKERS: Mapping[Purpose, tuple[Speaker, ...]] = {
    "held_out": ("base", "incumbent", "challenger"),
    "anchors": ("base", "incumbent", "challenger"),
    "serious": ("base", "incumbent", "challenger"),
    "injections": ("incumbent", "challenger"),
    "training": ("challenger",),
}
OWN: tuple[Purpose, ...] = ("anchors", "serious", "injections")
"""Purposes whose prompts are ours and stay the same from run to run."""
MAX_BATCH = {"cpu": 256, "cuda": 64}
"""Replies drawn together: a step of a small model on a CPU costs about the same for any number."""
HELD_OUT_SURPLUS = 1.2
"""Held-out rows that are scored, times `gates.min_replies`: some more than the gates ask for."""

Replies = Mapping[tuple[Purpose, Speaker], Sequence[Completion]]


class Renderer:
    """Renders as training and serving do; the oldest turns go where a chat would be too long."""

    def __init__(self, base: BaseModel, system_prompt: str, sampling: SamplingOptions) -> None:
        self._tokenizer = base.tokenizer
        self._system_prompt = system_prompt
        self._reply_tokens = sampling.max_tokens
        self._max_tokens = min(base.max_length, DEFAULT_MAX_LENGTH)

    def example(self, messages: Sequence[ChatMessage], reply: str) -> ReplyTokens | None:
        """The rendered chat with room for a sampled reply, or None where even its last turn is too long."""
        for start in range(len(messages)):
            if messages[start].role != "user":
                continue
            turns = chat_messages(self._system_prompt, (), messages[start:], glossary_tokens=0)
            tokens = render_reply(self._tokenizer, turns, reply)
            if len(tokens.prompt) + max(len(tokens.reply), self._reply_tokens) <= self._max_tokens:
                return tokens
        return None

    def exchange(self, prompt: str, reply: str = "") -> ReplyTokens:
        """A rendered single turn of ours, which is short."""
        turns = chat_messages(self._system_prompt, (), [ChatMessage("user", prompt)], glossary_tokens=0)
        return render_reply(self._tokenizer, turns, reply)


@dataclass(frozen=True, slots=True)
class Rendered:
    """An example with its tokens."""

    example: Example
    tokens: ReplyTokens


def rendered(renderer: Renderer, examples: Sequence[Example]) -> list[Rendered]:
    """The examples that fit."""
    pairs = ((example, renderer.example(example.messages, example.reply)) for example in examples)
    return [Rendered(example, tokens) for example, tokens in pairs if tokens is not None]


def held_out_examples(evaluate: Sequence[Example], settings: GateSettings) -> list[Example]:
    """Everyone's newest replies in turns: all members' newest, then their second newest, and so on.

    At most `max_replies_per_member` of each, and in all at most HELD_OUT_SURPLUS times `min_replies`.
    """
    by_member: dict[str, list[Example]] = {}
    for example in sorted(evaluate, key=lambda one: (one.sent_at, one.key), reverse=True):
        by_member.setdefault(example.member, []).append(example)
    rounds = range(settings.max_replies_per_member)
    turns = (rows[index] for index in rounds for _, rows in sorted(by_member.items()) if index < len(rows))
    return [example for example, _ in zip(turns, range(round(HELD_OUT_SURPLUS * settings.min_replies)), strict=False)]


def draw_replies(
    base: BaseModel,
    adapters: Mapping[Speaker, tuple[Path, AdapterManifest]],
    prompts: Mapping[Purpose, Sequence[Sequence[int]]],
    *,
    sampling: SamplingOptions,
    seed: int,
    kept: KeptReplies,
    progress: Callable[[int, int], None],
) -> Replies:
    """Each speaker's replies to the prompts of each purpose, drawn by the serving engine.

    A speaker without an adapter is the base, and is not asked twice. All speakers get the same seed for a prompt. What
    an adapter answered to our own prompts in an earlier run is taken from `kept`.
    """
    stand_in: dict[Speaker, Speaker] = {} if "incumbent" in adapters else {"incumbent": "base"}
    asked = [
        (purpose, speaker)
        for purpose, speakers in SPEAKERS.items()
        for speaker in dict.fromkeys(stand_in.get(speaker, speaker) for speaker in speakers)
    ]
    questions = {
        (purpose, speaker): [
            GenerationRequest(
                adapter=adapters[speaker][1].name if speaker in adapters else BASE,
                prompt_token_ids=tuple(prompt),
                sampling=_seeded(sampling, f"{seed}/{purpose}/{index}"),
            )
            for index, prompt in enumerate(prompts[purpose])
        ]
        for purpose, speaker in asked
    }
    digests = {speaker: manifest.digest for speaker, (_, manifest) in adapters.items()}
    replies: dict[tuple[Purpose, Speaker], Sequence[Completion]] = {}
    for (purpose, speaker), some in questions.items():
        if purpose in OWN and (known := kept.read(digests.get(speaker, BASE), some)) is not None:
            replies[purpose, speaker] = known
    requests = [one for key, some in questions.items() if key not in replies for one in some]
    longest = max(len(prompt) for some in prompts.values() for prompt in some)
    engine = Engine(
        base,
        max_batch=MAX_BATCH[base.device],
        max_queue=len(requests),
        max_adapters=max(1, len(adapters)),
        max_rank=max((manifest.rank for _, manifest in adapters.values()), default=1),
        max_length=longest + sampling.max_tokens,
    )
    with engine:
        for folder, manifest in adapters.values():
            engine.load_adapter(manifest.name, folder)
        drawn = iter(engine.generate_all(requests, lambda done: progress(done, len(requests))))
    for (purpose, speaker), some in questions.items():
        if (purpose, speaker) not in replies:
            replies[purpose, speaker] = [next(drawn) for _ in some]
            if purpose in OWN:
                kept.write(digests.get(speaker, BASE), some, replies[purpose, speaker])
    for speaker, other in stand_in.items():
        replies |= {
            (purpose, speaker): replies[purpose, other] for purpose, some in SPEAKERS.items() if speaker in some
        }
    return replies


def _seeded(sampling: SamplingOptions, name: str) -> SamplingOptions:
    return SamplingOptions(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_tokens,
        seed=zlib.crc32(name.encode()),
        stop=sampling.stop,
    )


def rows_digest(rows: Sequence[ReplyTokens]) -> str:
    """SHA-256 over the rows' tokens."""
    content = "\n".join(f"{row.prompt}{row.reply}" for row in rows)
    return hashlib.sha256(content.encode()).hexdigest()
