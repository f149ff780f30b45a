"""The inference backend: does it answer, as whom, and can adapters be loaded while it runs?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from inference.credentials import backend_tokens
from inference.dialects import dialect_of
from nocap.domain import BASE
from nocap.errors import NocapError
from nocap.findings import Finding, ok, problem, warning
from nocap.settings import Settings
from storage import registry
from storage.crypto import Keyring
from storage.database import Database

PROBE = "nocap-doctor-probe"
"""An adapter that nobody has; asking to load it changes nothing."""


def check_backend(settings: Settings, http: httpx.Client) -> Iterator[Finding]:
    tokens = backend_tokens(settings, Keyring.load(settings.key_file))
    deployed = _deployed(settings)
    yield from _slots(settings, len(deployed))
    for url in settings.inference.urls:
        yield from _check_replica(settings, http, url, tokens.user, tokens.admin, deployed)


def _check_replica(
    settings: Settings, http: httpx.Client, url: str, user: str, admin: str, deployed: list[str]
) -> Iterator[Finding]:
    try:
        models = http.get(f"{url}/v1/models", headers=_bearer(user))
    except httpx.HTTPError as error:
        if settings.inference.backend == "embedded":
            yield warning("inference", f"Nothing answers at {url}.", "start it: `nocap serve`, or `nocap up` for all")
        else:
            yield problem("inference", f"Nothing answers at {url} ({type(error).__name__}).", "start the backend")
        return
    if models.status_code in (401, 403):
        yield problem("inference", f"{url} refuses our token.", "set `inference.user_token` to the backend's API key")
        return
    cards = _cards(models)
    if cards is None:
        yield problem("inference", f"{url} does not speak OpenAI's protocol.", "mend `inference.urls` (without /v1)")
        return
    yield from _models(settings, url, cards, deployed)
    if dialect_of(settings.inference).loads_adapters:
        yield from _runtime_loading(http, url, admin)
    yield from _room(http, url, len(deployed))


def _models(settings: Settings, url: str, cards: Mapping[str, Any], deployed: list[str]) -> Iterator[Finding]:
    base = cards.get(BASE)
    if base is None:
        yield problem(
            "inference",
            f"{url} serves no model named `{BASE}`.",
            f"start vLLM with `--served-model-name {BASE}`; TGI: see `inference` in docs/operations.md",
        )
    else:
        root, wanted = str(base.get("root") or ""), settings.model.base
        if root and root.rstrip("/").split("/")[-1].lower() not in (BASE, wanted.rstrip("/").split("/")[-1].lower()):
            yield problem(
                "inference",
                f"{url} serves the base {root}, the settings say {wanted}.",
                "serve the base that the adapters are trained on",
            )
        else:
            yield ok("inference", f"{url} answers and serves the base.")
    missing = [name for name in deployed if name not in cards]
    if missing:
        yield warning(
            "inference",
            f"{url} does not hold {', '.join(missing)} yet.",
            "the first request loads it; where that fails, its log says why",
        )


def _runtime_loading(http: httpx.Client, url: str, admin: str) -> Iterator[Finding]:
    body = {"lora_name": PROBE, "lora_path": PROBE}
    answer = http.post(f"{url}/v1/load_lora_adapter", headers=_bearer(admin), json=body)
    if answer.status_code in (401, 403):
        yield problem("inference", f"{url} refuses our admin token.", "set `inference.admin_token`")
    elif answer.status_code in (404, 405) and PROBE not in answer.text:
        yield problem(
            "inference",
            f"{url} does not let adapters be loaded while it runs.",
            "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora, behind a private address",
        )
    elif answer.is_success:
        yield problem("inference", f"{url} claims to have loaded an adapter that nobody has.", "update the backend")
    else:
        yield ok("inference", f"{url} lets adapters be loaded while it runs.")


def _room(http: httpx.Client, url: str, deployed: int) -> Iterator[Finding]:
    """vLLM tells `--max-loras` in its metrics alone."""
    try:
        found = re.search(r'vllm:lora_requests_info\{[^}]*max_lora="(\d+)"', http.get(f"{url}/metrics").text)
    except httpx.HTTPError:
        return
    if found and int(found[1]) < deployed:
        yield problem(
            "inference",
            f"{url} holds {found[1]} adapters at once, {deployed} are deployed.",
            "raise `--max-loras` (its default is 1)",
        )


def _slots(settings: Settings, deployed: int) -> Iterator[Finding]:
    slots = settings.inference.max_adapters
    if settings.inference.backend == "embedded" and deployed >= slots:
        yield problem(
            "inference",
            f"{deployed} adapters are deployed, the server has {slots} slots: none is left for the next one.",
            "raise `inference.max_adapters`",
        )


def _cards(answer: httpx.Response) -> Mapping[str, Any] | None:
    try:
        return {str(card["id"]): card for card in answer.json()["data"]}
    except (ValueError, KeyError, TypeError):
        return None


def _deployed(settings: Settings) -> list[str]:
    try:
        database = Database.open(settings.database_url, Keyring.load(settings.key_file))
    except NocapError:
        return []  # the database's own check says so
    try:
        with database.read() as session:
            return list(registry.deployed_adapters(session))
    finally:
        database.close()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
