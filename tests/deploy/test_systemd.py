from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.deploy.support import DEPLOY, run, tool

UNITS = sorted((DEPLOY / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
MOST_EXPOSED = 2.0


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with a program that is there."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/nocap/bin/nocap", "/bin/true"))
    return tmp_path


def test_systemd_accepts_every_unit(installed: Path) -> None:
    run(tool("systemd-analyze", "systemd"), "verify", *(str(path) for path in sorted(installed.iterdir())))


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_every_service_is_hardened(installed: Path, unit: Path) -> None:
    said = run(tool("systemd-analyze", "systemd"), "security", "--offline=true", str(installed / unit.name))
    level = re.search(r"exposure level .*: ([\d.]+)", said)
    assert level is not None and float(level[1]) <= MOST_EXPOSED, said


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_every_service_runs_a_command_that_nocap_has(unit: Path) -> None:
    from typer.main import get_command

    from nocap.cli.main import app

    words = re.search(r"^ExecStart=/opt/nocap/bin/nocap (.+)$", unit.read_text(), re.MULTILINE)
    assert words is not None
    command = get_command(app)
    for word in words[1].split():
        if not hasattr(command, "commands"):
            break
        if word == "bots" and word not in command.commands:
            pytest.skip("`nocap bots` comes with the platforms' bots")
        command = command.commands[word]
