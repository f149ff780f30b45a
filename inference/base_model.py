"""Loads a base model, from a folder or the Hugging Face hub, for training, measuring and serving.

torch and transformers are imported inside `load_base` only, so that `base_digest` is cheap to import.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inference.adapter_files import file_digest
from inference.prompt import render_reply
from nocap.domain import ChatMessage
from nocap.errors import ModelError

Quantization = Literal["nf4", "none"]
Device = Literal["auto", "cpu", "cuda"]

DIGESTED_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.*",
    "merges.txt",
)
"""What makes a base: configuration, weights, tokenizer and template. Also what is fetched from the hub."""

SUPPORTED_LAYERS = frozenset({"full_attention", "sliding_attention"})
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class BaseModel:
    """A causal LM in evaluation mode without gradients, with its tokenizer."""

    model: Any
    tokenizer: Any
    name: str
    digest: str
    device: str
    """`cpu` or `cuda`."""
    quantization: Quantization
    stop_token_ids: frozenset[int]
    """A reply ends at any of these: the end tokens of the generation config, the tokenizer and the chat template."""
    max_length: int
    """Tokens of prompt and reply together that the model's positions allow."""


def base_digest(path: str) -> str:
    """SHA-256 over names and contents of the base's configuration, weights and tokenizer files, in hex.

    `path` is a folder or a hub name. Raises ModelError where the model cannot be found.
    """
    folder = resolve_base(path)
    files = sorted({file for pattern in DIGESTED_FILES for file in folder.glob(pattern) if file.is_file()})
    lines = "".join(f"{file_digest(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def resolve_base(path: str) -> Path:
    """The folder of a base given as a folder or a hub name; one of the hub is downloaded where it is not cached."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{path} is not a model folder: it has no config.json; point `model.base` to one that has."
            )
        return folder
    if folder.is_absolute() or path.startswith(".") or path.count("/") != 1:
        raise ModelError(f"There is no model folder {path}; set `model.base` to a folder, a hub name or `embedded`.")
    return _hub_snapshot(path)


def load_base(path: str, *, quantization: Quantization, device: Device) -> BaseModel:
    """The base at `path` with fp32 compute on a CPU and bf16 on a GPU, ready for LoRA; no remote code is run.

    Raises ModelError with one sentence where it is missing, corrupt, incomplete, or not a causal language model.
    """
    folder = resolve_base(path)
    target = _resolve_device(device)
    config, tokenizer = _load_config(folder), _load_tokenizer(folder)
    model = _load_weights(folder, config, quantization, target)
    embedding_rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > embedding_rows:
        raise ModelError(
            f"The tokenizer in {folder} has {len(tokenizer)} tokens but its model only {embedding_rows} embeddings; "
            "they do not belong together, fetch the model again."
        )
    return BaseModel(
        model=model.eval().requires_grad_(False),
        tokenizer=tokenizer,
        name=folder.name if Path(path).expanduser().is_dir() else path,
        digest=base_digest(str(folder)),
        device=target,
        quantization=quantization,
        stop_token_ids=_stop_token_ids(model, tokenizer),
        max_length=int(config.max_position_embeddings),
    )


def _hub_snapshot(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*DIGESTED_FILES, "generation_config.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except HFValidationError as error:
        raise ModelError(f"There is no model {name}: it is neither a folder nor a hub name.") from error
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"The model {name} is neither a folder nor can it be had from the hub ({reason}); "
            "check `model.base`, the network, or a token in HF_TOKEN."
        ) from error


def _resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    import torch

    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ModelError(
            "`model.device` is `cuda` but torch sees no GPU; set it to `auto` or install a CUDA build of torch."
        )
    return "cuda"


def _load_config(folder: Path) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder / 'config.json'} is not a model that transformers knows: {_first_line(error)}"
        ) from error
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, "")
    names = (name,) if isinstance(name, str) else tuple(name)
    architectures = config.architectures or names
    if not any(architecture in names and "ForCausalLM" in architecture for architecture in architectures):
        raise ModelError(
            f"{folder} holds {', '.join(architectures) or config.model_type}, which is not a causal language model; "
            "choose one such as Qwen2.5, Qwen3, Llama, Mistral or Gemma (text)."
        )
    unknown = set(getattr(config, "layer_types", None) or ()) - SUPPORTED_LAYERS
    if unknown:
        raise ModelError(f"{folder} has layers of the kind {', '.join(sorted(unknown))}, which nocap cannot serve.")
    return config


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer ({', '.join(TOKENIZER_FILES)}); put the model's own one there.")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception on a malformed file
        raise ModelError(f"The tokenizer in {folder} cannot be read: {_first_line(error)}") from error


def _load_weights(folder: Path, config: Any, quantization: Quantization, device: str) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    compute = torch.float32 if device == "cpu" else torch.bfloat16
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=compute,
            device_map={"": device},
            quantization_config=_nf4(compute) if quantization == "nf4" else None,
            # sdpa has no logit soft-capping, which Gemma 2 needs.
            attn_implementation="eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"The weights in {folder} cannot be loaded: {_first_line(error)} Fetch the model again."
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    if loading["missing_keys"] or loading["mismatched_keys"]:
        lost = sorted(loading["missing_keys"]) or [str(key) for key in loading["mismatched_keys"]]
        raise ModelError(
            f"The weights in {folder} are incomplete: {lost[0]} and {len(lost) - 1} more do not fit its config."
        )
    if quantization == "nf4" and device == "cpu":
        _keep_fp32_compute(model)
    return model


def _keep_fp32_compute(model: Any) -> None:
    """Turns off bitsandbytes' repacking on CPUs with AVX512-BF16.

    There, the first forward in evaluation mode rewrites each 4-bit weight in place with bf16 scales, for a kernel that
    rounds to bf16, refuses widths that are no multiple of 32, and passes no gradient back: an evaluation in the middle
    of a training run would end its learning without a word (bitsandbytes 0.50, Linear4bit.forward).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _nf4(compute: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _stop_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ids = {configured} if isinstance(configured, int) else set(configured or ())
    ids.add(tokenizer.eos_token_id)
    last = render_reply(tokenizer, [ChatMessage("user", "Hi")], "Hello").reply[-1]
    if last in tokenizer.get_added_vocab().values():
        ids.add(last)
    return frozenset(token for token in ids if token is not None)


def _first_line(error: Exception) -> str:
    line = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    return f"{line[:300]}."
