"""Out of nocap: an adapter in other tools' formats, and a run's data set in trainers' chat formats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from inference.adapter_files import verify_adapter
from inference.base_model import base_digest, load_base, resolve_base
from inference.prompt import chat_messages
from nocap.domain import AdapterName, AdapterStatus
from nocap.errors import InputError, NotPermitted
from nocap.settings import Settings
from retrain.examples import Example
from retrain.gguf_lora import write_gguf_lora
from retrain.promote import verify_registered
from retrain.train.publish import copy_adapter
from storage.database import Database
from storage.registry import get_adapter, retirements
from storage.tables import Adapter

AdapterFormat = Literal["peft", "merged", "gguf-lora"]
DatasetFormat = Literal["axolotl", "llama-factory"]


def export_adapter(
    database: Database, settings: Settings, name: AdapterName, output: Path, form: AdapterFormat
) -> Path:
    """`output`, which now holds the verified adapter, the base with the adapter merged into its weights, or llama.cpp's
    LoRA file.

    A merged base is written unquantised, since 4-bit weights cannot take an adapter in without loss. Raises InputError
    where `output` is there already, and as `adapter_that_may_leave` does.
    """
    if output.exists():
        raise InputError(f"{output} is there already; name a new one.")
    adapter_that_may_leave(database, settings, name)
    folder = settings.adapters_dir / name
    if form == "peft":
        copy_adapter(folder, output)
        return output
    if form == "gguf-lora":
        verify_adapter(folder, base_digest=base_digest(settings.base_path))
        output.parent.mkdir(parents=True, exist_ok=True)
        write_gguf_lora(folder, resolve_base(settings.base_path), output)
        return output
    from peft import PeftModel

    base = load_base(settings.base_path, quantization="none", device=settings.model.device)
    verify_adapter(folder, base_digest=base.digest)
    merged = PeftModel.from_pretrained(base.model, str(folder)).merge_and_unload(safe_merge=True)
    merged.save_pretrained(output)
    base.tokenizer.save_pretrained(output)
    return output


def adapter_that_may_leave(database: Database, settings: Settings, name: AdapterName) -> Adapter:
    """The registered adapter, verified.

    Raises NotPermitted for one that is or is to be retired, AdapterError for one that is unknown or not intact.
    """
    with database.read() as session:
        row = get_adapter(session, name)
        due = {mark.adapter for mark in retirements(session)}
    if row.status == AdapterStatus.RETIRED or name in due:
        raise NotPermitted(f"{name} learnt from texts that were erased since; it does not leave this machine.")
    verify_registered(settings, row)
    return row


def dataset_lines(examples: Iterable[Example], system_prompt: str, form: DatasetFormat) -> Iterable[str]:
    """One JSON line an example: OpenAI messages for Axolotl (`type: chat_template`), ShareGPT for LLaMA-Factory."""
    for example in examples:
        turns = [
            {"role": turn.role, "content": turn.content}
            for turn in chat_messages(system_prompt, (), example.messages, glossary_tokens=0)
        ]
        turns.append({"role": "assistant", "content": example.reply})
        yield json.dumps(_line(turns, form), ensure_ascii=False)


def _line(turns: list[dict[str, str]], form: DatasetFormat) -> dict[str, Any]:
    if form == "axolotl":
        return {"messages": turns}
    says = {"user": "human", "assistant": "gpt"}
    return {
        "system": "".join(turn["content"] for turn in turns if turn["role"] == "system"),
        "conversations": [
            {"from": says[turn["role"]], "value": turn["content"]} for turn in turns if turn["role"] != "system"
        ],
    }
