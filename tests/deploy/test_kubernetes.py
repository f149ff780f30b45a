from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.support import DEPLOY, run, tool


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    """Everything that `kubectl apply -k deploy/kubernetes/gpu` would send."""
    return list(yaml.safe_load_all(run(tool("kubectl", "kubectl"), "kustomize", str(DEPLOY / "kubernetes" / "gpu"))))


def pods(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {}
    for one in manifests:
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            found[one["metadata"]["name"]] = template["spec"] | {"labels": template["metadata"]["labels"]}
    return found


def test_every_manifest_fits_kubernetes_own_schema(manifests: list[dict[str, Any]], tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    assert {one["kind"] for one in manifests} >= {"Deployment", "StatefulSet", "CronJob", "NetworkPolicy"}
    for one in manifests:
        validate.validate(one, "1.33", strict=True)


def test_every_container_is_closed_and_measured(manifests: list[dict[str, Any]]) -> None:
    for name, pod in pods(manifests).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            closed = container["securityContext"]
            assert closed["readOnlyRootFilesystem"] and closed["capabilities"] == {"drop": ["ALL"]}, name
            assert closed["allowPrivilegeEscalation"] is False
            assert "memory" in container["resources"]["limits"]
            assert container["image"].count(":") == 1, "every image has its tag"


def test_every_volume_that_is_mounted_is_there(manifests: list[dict[str, Any]]) -> None:
    claims = {
        claim["metadata"]["name"] for one in manifests for claim in one.get("spec", {}).get("volumeClaimTemplates", [])
    }
    made = {one["metadata"]["name"] for one in manifests if one["kind"] == "PersistentVolumeClaim"}
    for name, pod in pods(manifests).items():
        named = {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if len(volume) == 2 and
                 "persistentVolumeClaim" in volume}  # fmt: skip
        assert named <= made, name
        volumes = {volume["name"] for volume in pod.get("volumes", [])} | claims
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name


def test_the_lora_endpoints_are_reached_by_bots_and_retrains_alone(manifests: list[dict[str, Any]]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in manifests if one["kind"] == "NetworkPolicy"}
    assert policies["closed"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    allowed = policies["vllm"]["ingress"][0]["from"][0]["podSelector"]["matchExpressions"][0]["values"]
    there = {pod["labels"]["app.kubernetes.io/component"] for pod in pods(manifests).values()}
    assert set(allowed) == {"bots", "retrain"} < there
    assert not {one["kind"] for one in manifests} & {"Ingress", "Gateway", "HTTPRoute"}
    services = [one["spec"] for one in manifests if one["kind"] == "Service"]
    assert {service.get("type", "ClusterIP") for service in services} == {"ClusterIP"}


def test_budgets_cover_what_serves(manifests: list[dict[str, Any]]) -> None:
    budgets = {one["metadata"]["name"] for one in manifests if one["kind"] == "PodDisruptionBudget"}
    assert budgets == {"bots", "scheduler", "vllm"}


def test_the_settings_are_ones_that_nocap_knows(
    manifests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from nocap.settings import Settings, load_settings

    (values,) = [one["data"] for one in manifests if one["kind"] == "ConfigMap"]
    monkeypatch.chdir(tmp_path)
    for name, value in values.items():
        monkeypatch.setenv(name, str(tmp_path) if name == "NOCAP_SECRETS_DIR" else value)
        section, _, field = name.removeprefix("NOCAP_").lower().partition("__")
        known = Settings.model_fields[section] if section != "secrets_dir" else None
        if field and known is not None:
            assert field in known.annotation.model_fields, name  # type: ignore[union-attr]
    settings = load_settings()
    assert settings.inference.backend == "vllm"
    assert settings.served_quantization == "none", "vLLM holds the base in bf16, and so must the gates"
    assert settings.retrain.runs_in == "worker", "these pods have no torch"


def test_retrains_are_taken_up_by_a_command_that_nocap_has(manifests: list[dict[str, Any]]) -> None:
    from typer.main import get_command

    from nocap.cli.main import app

    (container,) = pods(manifests)["retrain"]["containers"]
    group, word = container["args"]
    assert "command" not in container
    assert word in get_command(app).commands[group].commands  # type: ignore[attr-defined]
    overridden = {one["name"] for one in container["env"]}
    assert not {name for name in overridden if name.startswith("NOCAP_")}, "it trains as the ConfigMap says"
