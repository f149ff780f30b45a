"""Where the deployment files lie, and the tools that check them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def tool(name: str, package: str) -> str:
    """The path of a checking tool. Without it the test skips; in CI it fails, unless CI could not get the tool."""
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        why = f"{name} is not installed ({package} has it)"
        if os.environ.get("CI") == "true" and name not in os.environ.get("NOCAP_TEST_WITHOUT", "").split():
            pytest.fail(why)
        pytest.skip(why)
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
