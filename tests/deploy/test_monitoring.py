"""Every figure that a rule or a panel asks for is one that our processes serve."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import yaml
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

import nocap.observability.turns
import nocap.scheduler  # noqa: F401
from inference.server.metrics import EngineMetrics
from nocap.observability.state import StateCollector
from nocap.settings import Settings
from storage.database import Database
from tests.deploy.support import DEPLOY, run, tool
from tests.nocap.observability.test_state import populate

SUFFIXES = re.compile(r"_(total|bucket|count|sum|created)$")
NAMES = re.compile(r"\b(?:nocap_\w+|vllm:\w+)")


def asked() -> set[str]:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/nocap.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    panels += [one["expr"] for one in dashboard["annotations"]["list"]]
    rules = yaml.safe_load((DEPLOY / "prometheus/nocap.rules.yml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return {SUFFIXES.sub("", name) for one in (*panels, *expressions) for name in NAMES.findall(one)}


def served(database: Database, settings: Settings) -> set[str]:
    populate(database)
    settings.data_dir.mkdir()
    registry = CollectorRegistry()
    registry.register(StateCollector(database, settings))
    texts = [generate_latest(registry), generate_latest(REGISTRY), EngineMetrics().exposition()]
    lines = [line for text in texts for line in text.decode().splitlines() if line.startswith("# TYPE ")]
    return {SUFFIXES.sub("", line.split()[2]) for line in lines}


def test_rules_and_panels_ask_for_figures_that_are_served(
    sqlite_database: Database, settings: Callable[..., Settings]
) -> None:
    wanted = asked()
    assert len(wanted) > 15
    assert wanted - served(sqlite_database, settings()) == set()


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus/nocap.rules.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        assert {"summary", "remedy"} <= rule["annotations"].keys(), rule["alert"]
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_prometheus_accepts_configuration_and_rules() -> None:
    said = run(tool("promtool", "prometheus"), "check", "config", str(DEPLOY / "prometheus/prometheus.yml"))
    assert "SUCCESS" in said


def test_panels_do_not_overlap() -> None:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/nocap.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells
