"""What the machine offers: packages, disk, time, the base model's files, a GPU and its memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from nocap.errors import ConfigurationError
from nocap.findings import Finding, ok, problem, warning
from nocap.settings import EMBEDDED_BASE, Settings

GIB = 2**30
WARN_FREE_BYTES, NEED_FREE_BYTES = 5 * GIB, GIB // 2
NF4_BYTES_PER_PARAMETER, BF16_BYTES_PER_PARAMETER = 0.73, 2.0
"""Qwen2.5-7B (7.6 billion) in NF4 with bf16 embeddings and head weighs 5.17 GiB."""
SERVING_GIB, TRAINING_GIB = 1.5, 2.5
"""On top of the weights: caches of 32 chats; activations and optimiser at rank 8 and 1,024 tokens."""
IMPORT_SECONDS = 60
OUR_PACKAGES = ("bots", "inference", "nocap", "retrain", "storage")


def check_settings(settings: Settings) -> Iterator[Finding]:
    from retrain.job import can_train

    yield from _check_retrains("", settings)
    for voice in settings.voices:
        yield from _check_retrains(f"{voice}: ", settings.for_voice(voice))
    if settings.inference.backend == "vllm" and settings.served_quantization == "nf4":
        yield problem(
            "settings",
            "vLLM holds no base in NF4, so the gates would measure another model than the one that answers.",
            'set `inference.quantization = "none"` (bf16); `model.quantization` still says how it is trained',
        )
    if settings.retrain.runs_in == "process" and not can_train():
        yield warning(
            "settings",
            "There is no torch here, so retrains that are started here are refused.",
            'set `retrain.runs_in = "worker"`, and run `nocap retrain work` or `nocap schedule` where torch is',
        )
    zone = time.strftime("%Z")
    if zone not in ("UTC", "GMT"):
        yield ok("time zone", f"This machine shows {zone}; `retrain.schedule` and everything stored are in UTC.")


def _check_retrains(whose: str, settings: Settings) -> Iterator[Finding]:
    from nocap.domain import utc_now
    from retrain.schedule import next_retrain

    try:
        due = next_retrain(settings, utc_now())
    except ConfigurationError as error:
        yield problem("settings", f"{whose}{error}", "mend that line of nocap.toml")
    else:
        told = f"The next retrain is due {due:%Y-%m-%d %H:%M} UTC." if due else "Retrains start by hand."
        yield ok("settings", f"{whose}{told}")
    if settings.retrain.rank > settings.inference.max_rank:
        yield problem(
            "settings",
            f"{whose}Adapters are trained at rank {settings.retrain.rank}, the server takes"
            f" {settings.inference.max_rank}.",
            "raise `inference.max_rank` (vLLM: `--max-lora-rank`), or lower `retrain.rank`",
        )
    if settings.retrain.gpu == "pause" and settings.inference.backend != "embedded":
        yield problem(
            "settings",
            f"{whose}`retrain.gpu` is `pause`, but the backend {settings.inference.backend} does not pause.",
            "set `retrain.gpu` to `share`, or serve with the embedded server",
        )


def check_packages(settings: Settings) -> Iterator[Finding]:
    owners = packages_distributions()
    for package in OUR_PACKAGES:
        others = set(owners.get(package, ())) - {"nocap"}
        if others:
            yield problem(
                "packages",
                f"{', '.join(sorted(others))} also brings a package `{package}`, which hides ours.",
                "give nocap a virtual environment of its own",
            )
    if settings.inference.backend == "embedded":
        missing = [name for name in ("torch", "transformers", "peft", "trl", "bitsandbytes") if find_spec(name) is None]
        if missing:
            yield problem(
                "packages",
                f"{', '.join(missing)} cannot be found: this environment can neither serve nor train.",
                "install torch for your card, then `pip install 'nocap[model]'`; a bot alone needs neither",
            )
            return
    yield ok("packages", f"Python {sys.version.split()[0]}, and what this process needs is installed.")


def check_disk(settings: Settings) -> Iterator[Finding]:
    for folder in (settings.data_dir, settings.adapters_dir, settings.runs_dir):
        if folder.exists() and (reason := _cannot_write(folder)):
            yield problem("disk", f"{folder} cannot be written: {reason}.", "give it to the user that nocap runs as")
            return
    if not settings.data_dir.exists():
        yield problem("disk", f"There is no data folder {settings.data_dir}.", "make it with `nocap init`")
        return
    free = shutil.disk_usage(settings.data_dir).free
    sentence = f"{free / GIB:.1f} GiB are free where {settings.data_dir} lies."
    if free < NEED_FREE_BYTES:
        yield problem("disk", sentence, "free some: a full disk stops votes, runs and backups")
    elif free < WARN_FREE_BYTES:
        yield warning("disk", sentence, "keep 5 GiB: a run's checkpoints and a backup need room")
    else:
        yield ok("disk", sentence)


def check_base(settings: Settings) -> Iterator[Finding]:
    base = settings.model.base
    if base == "embedded":
        yield ok("base model", f"The tiny one that ships with nocap ({EMBEDDED_BASE.name}): for trials only.")
    elif Path(base).is_dir():
        lacking = [name for name in ("config.json", "tokenizer_config.json") if not (Path(base) / name).is_file()]
        if lacking or not list(Path(base).glob("*.safetensors")):
            what = lacking[0] if lacking else "safetensors weights"
            yield problem("base model", f"{base} lacks {what}.", "download the model again, as safetensors")
        else:
            yield ok("base model", f"{base} has its configuration, tokenizer and weights.")
    elif base.startswith((".", "/", "~")):
        yield problem("base model", f"There is no folder {base}.", "mend `model.base`")
    elif _in_hub_cache(base):
        yield ok("base model", f"{base} is in the hub's cache.")
    else:
        yield warning(
            "base model",
            f"{base} is not on this machine; the first start downloads it.",
            "download it beforehand: `hf download " + base + "`; other machines only need it where they serve or train",
        )


def check_gpu(settings: Settings) -> Iterator[Finding]:
    if settings.inference.backend != "embedded":
        return
    cards = _cards()
    if not cards:
        if settings.model.device == "cuda":
            yield problem(
                "gpu", "`model.device` is cuda, but no NVIDIA card answers.", "mend the driver, or say `auto`"
            )
        elif settings.model.base == "embedded":
            yield ok("gpu", "There is none; the embedded base needs none.")
        else:
            yield warning(
                "gpu", "There is none: a real base answers in minutes, not seconds.", "use a machine with one"
            )
        return
    name, memory = max(cards, key=lambda card: card[1])
    yield from _memory(settings, name, memory / GIB)
    yield from _torch_sees_it(name)


def parameters(base: str) -> float | None:
    """How many parameters a hub name such as `Qwen/Qwen2.5-7B-Instruct` speaks of; None where it names no size."""
    found = re.search(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z0-9])", base.split("/")[-1])
    return float(found[1]) * 1e9 if found else None


def needed_gib(count: float, quantization: str) -> tuple[float, float]:
    """GiB that serving and that training a base of `count` parameters want."""
    nf4 = quantization == "nf4"
    weights = count * 1.09 * (NF4_BYTES_PER_PARAMETER if nf4 else BF16_BYTES_PER_PARAMETER) / GIB
    return weights + SERVING_GIB, weights + TRAINING_GIB


def _memory(settings: Settings, name: str, gib: float) -> Iterator[Finding]:
    count = parameters(settings.model.base)
    if count is None:
        yield ok("gpu", f"{name} with {gib:.0f} GiB.")
        return
    serving, training = needed_gib(count, settings.model.quantization)
    wants = f"{settings.model.base} wants {serving:.1f} GiB to serve and {training:.1f} GiB to train"
    if gib < serving:
        yield problem("gpu", f"{wants}, {name} has {gib:.0f}.", "take a smaller base, `nf4`, or a larger card")
    elif gib < serving + training:
        yield warning(
            "gpu",
            f"{wants}: not both at once on {name} with {gib:.0f} GiB.",
            "train when nobody chats, or on a second card",
        )
    else:
        yield ok("gpu", f"{wants}; {name} has {gib:.0f}.")


def _torch_sees_it(name: str) -> Iterator[Finding]:
    """In a process of its own: neither torch nor a broken driver library gets into this one."""
    code = "import torch, bitsandbytes; print(torch.cuda.is_available(), torch.__version__)"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        yield problem("gpu", f"torch is not imported within {IMPORT_SECONDS} s.", "look at the disk and the driver")
        return
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield problem("gpu", f"torch or bitsandbytes cannot be imported: {last}", "install the build for your driver")
    elif not done.stdout.startswith("True"):
        yield problem("gpu", f"torch {done.stdout.split()[-1]} cannot use {name}.", "install its CUDA build (TORCH=…)")
    else:
        yield ok("gpu", f"torch {done.stdout.split()[-1]} and bitsandbytes {_version('bitsandbytes')} use {name}.")


def _cards() -> list[tuple[str, int]]:
    """Name and memory in bytes of every NVIDIA card, by the driver's own library."""
    if find_spec("pynvml") is None:
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [(str(pynvml.nvmlDeviceGetName(one)), int(pynvml.nvmlDeviceGetMemoryInfo(one).total)) for one in handles]
    except pynvml.NVMLError:
        return []


def _in_hub_cache(base: str) -> bool:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return (cache / f"models--{base.replace('/', '--')}" / "snapshots").is_dir()


def _cannot_write(folder: Path) -> str:
    """Why nothing can be written there; empty where it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
