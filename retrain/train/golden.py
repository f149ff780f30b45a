"""What a new adapter answers to our own prompts, recorded by its trainer for the smoke test before promotion."""

from __future__ import annotations

from pathlib import Path

from inference.adapter_files import read_manifest
from inference.base_model import Device, Quantization, load_base
from inference.server.engine import Engine
from inference.server.generation import GenerationRequest
from nocap.domain import BASE, AdapterName
from retrain.probes import load_probes
from retrain.promote import GREEDY, Golden, golden_messages

TRIED = 32
KEPT = 5


def golden_answers(
    base_path: str, quantization: Quantization, device: Device, system_prompt: str, name: AdapterName, folder: Path
) -> list[Golden]:
    """Up to five prompts to which the adapter answers otherwise than the base, greedily; none where it never does."""
    prompts = load_probes().anchors[:TRIED]
    engine = Engine(
        load_base(base_path, quantization=quantization, device=device),
        max_batch=2 * len(prompts),
        max_queue=2 * len(prompts),
        max_adapters=1,
        max_rank=read_manifest(folder).rank,
    )
    with engine:
        engine.load_adapter(name, folder)
        speakers = [name, BASE]
        requests = [
            GenerationRequest(speaker, tuple(golden_messages(system_prompt, prompt)), GREEDY)
            for speaker in speakers
            for prompt in prompts
        ]
        texts = [reply.text for reply in engine.generate_all(requests)]
    pairs = zip(prompts, texts[: len(prompts)], texts[len(prompts) :], strict=True)
    return [Golden(*one) for one in pairs if one[1].strip() != one[2].strip()][:KEPT]
