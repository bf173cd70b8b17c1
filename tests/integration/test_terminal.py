"""The command as a person at a terminal meets it: a first line at once, a line a trial, results that can be kept."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.commands import command, finished

pytestmark = pytest.mark.integration
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def at_a_terminal(cwd: Path, words: list[str], output: Path, **environment: str) -> tuple[str, float]:
    """What a study says on a terminal, its results kept in a file; and after how many seconds it began to speak."""
    ours, theirs = pty.openpty()
    variables = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR")}
    start = time.monotonic()
    with output.open("w") as file:
        process = subprocess.Popen(
            command(*words), cwd=cwd, env=variables | environment, stdin=theirs, stdout=file, stderr=theirs
        )
    os.close(theirs)
    said, first = b"", 0.0
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:
            break
        first = first or time.monotonic() - start
        said += part
    assert process.wait(60) == 0, said
    return said.decode(), first


def test_a_study_at_a_terminal(tmp_path: Path, animals: list[str]) -> None:
    result = tmp_path / "result.txt"
    words = [*animals, "n_trials=5", "tracking=none"]
    said, first = at_a_terminal(tmp_path, words, result, TERM="xterm-256color", COLUMNS="80")
    assert said.startswith("rag_opt.study: reading the configuration and loading PyTorch")
    assert first < 5, "0.2 s on a quiet machine"
    shown = CODES.sub("", said)
    for number in range(5):
        assert len(re.findall(rf"^.*trial {number}: nDCG@10 [\d.]+ · best", shown, re.MULTILINE)) == 1
    assert "\x1b[?25l" in said, "there is a bar"
    assert re.search(r"confirming \d configurations? on 3 questions never searched", shown)
    kept = result.read_text()
    assert "top trials" in kept
    assert "Recommended:" in kept
    assert kept.splitlines()[-1] == "open:      studies/animals/report.html"
    assert "trial 0: nDCG" not in kept
    assert "Recommended:" not in said


def test_without_progress_there_is_nothing_but_the_result(tmp_path: Path, animals: list[str]) -> None:
    done = finished(tmp_path, *animals, "n_trials=2", "tracking=none")
    assert done.stdout.startswith("\nanimals: top trials")
    assert "\x1b" not in done.stdout + done.stderr
    assert "open:" not in done.stderr
    again = finished(tmp_path, *animals, "retriever=bm25", module="rag_opt.trial")
    assert "nDCG@10" in again.stdout
    assert "nDCG@10" not in again.stderr
    assert again.stderr.startswith("rag_opt.trial: reading the configuration")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_command_that_tells_about_itself_says_nothing_else(tmp_path: Path, option: str) -> None:
    assert "reading the configuration" not in finished(tmp_path, option).stderr
