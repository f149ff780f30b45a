"""The base model's own replies to training prompts: mixed in, they keep an adapter from forgetting the base.

They are made in memory for one training and never stored.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from inference.base_model import Device, Quantization, load_base
from inference.prompt import chat_messages
from inference.server.engine import Engine
from inference.server.generation import GenerationRequest
from nocap.domain import BASE, MemberKey, Provenance, SamplingOptions
from retrain.examples import Example

MAX_BATCH = 64
BASE_MEMBER = MemberKey("base-model")
"""Stands where a member's pseudonym stands; no pseudonym looks like it."""


def base_replies(
    base_path: str,
    quantization: Quantization,
    device: Device,
    system_prompt: str,
    examples: Sequence[Example],
    *,
    share: float,
    sampling: SamplingOptions,
    seed: int,
    progress: Callable[[int, int], None],
) -> list[Example]:
    """Examples that answer drawn prompts as the base does, so many that they are `share` of the whole set.

    The same seed gives the same replies on the same machine. `progress` gets how many are done, and of how many.
    """
    wanted = min(len(examples), round(len(examples) * share / (1 - share))) if share < 1 else len(examples)
    if not wanted:
        return []
    asked = random.Random(seed).sample(list(examples), wanted)
    engine = Engine(
        load_base(base_path, quantization=quantization, device=device),
        max_batch=min(MAX_BATCH, wanted),
        max_queue=wanted,
        max_adapters=1,
        max_rank=1,
    )
    room = engine.max_length - sampling.max_tokens
    with engine:
        requests = [_request(system_prompt, example, sampling, seed, index) for index, example in enumerate(asked)]
        fitting = [index for index, request in enumerate(requests) if len(engine.prompt_token_ids(request)) <= room]
        replies = engine.generate_all([requests[index] for index in fitting], lambda done: progress(done, len(fitting)))
    return [
        _as_example(asked[index], reply.text.strip())
        for index, reply in zip(fitting, replies, strict=True)
        if reply.finish_reason == "stop" and reply.text.strip()
    ]


def _request(
    system_prompt: str, example: Example, sampling: SamplingOptions, seed: int, index: int
) -> GenerationRequest:
    return GenerationRequest(
        adapter=BASE,
        messages=tuple(chat_messages(system_prompt, (), example.messages, glossary_tokens=0)),
        sampling=replace(sampling, seed=zlib.crc32(f"{seed}/base reply/{index}".encode())),
    )


def _as_example(asked: Example, reply: str) -> Example:
    return replace(asked, reply=reply, member=BASE_MEMBER, provenance=Provenance.SYNTHETIC)
