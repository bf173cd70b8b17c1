"""The package and its tests are typed as they say. A test, so that the others run meanwhile: it takes one core a minute."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT


def test_the_types_hold() -> None:
    found = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stdout + found.stderr
