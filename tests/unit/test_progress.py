"""What a person sees while a study runs: on a terminal, on a dumb one, in a file."""

from __future__ import annotations

import io
import re
import time

import pytest

from rag_opt.console.progress import Line, Screen, track
from rag_opt.console.screens import mute_screen, report_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; what is put there is what it is."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[-1])
    return now


def worked(file: io.StringIO) -> str:
    with Screen(file) as screen, screen.show_trials(3, 0) as line:
        line.describe("trial 0")
        line.advance("trial 0: nDCG@10 0.5000", 2, 1)
        line.advance("trial 1: failed: ValueError: no", 1, 2, failed=True)
        report_line("a remark")
        with track("embedding", 10) as advance:
            advance(10)
    return file.getvalue()


def test_each_trial_leaves_its_line_above_the_bar_and_failures_are_red(terminal: Terminal) -> None:
    told = worked(terminal)
    red, rest = "\x1b[31mtrial 1: failed: ValueError: no\x1b[0m", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told)
    assert red in told
    for line in ("trial 0: nDCG@10 0.5000", "trial 1: failed: ValueError: no", "a remark"):
        assert rest.count(f"{line}\n") == 1, line
    assert "\x1b[?25l" in told
    assert told.rstrip().endswith("\x1b[2K") or "\x1b[?25h" in told, "the bar is taken away"


@pytest.mark.parametrize("kind", ["pipe", "dumb"])
def test_a_dumb_terminal_is_spoken_to_as_a_pipe_is(terminal: Terminal, monkeypatch, kind: str) -> None:
    monkeypatch.setenv("TERM", "dumb")
    told = worked(terminal if kind == "dumb" else io.StringIO())
    assert "\x1b" not in told
    assert "\r" not in told
    lines = ["trial 0: nDCG@10 0.5000", r"trial 1: failed: ValueError: no · 0:00 left", "a remark"]
    assert told.splitlines() == lines


def test_what_follows_a_rest_is_not_in_the_bars_way(terminal: Terminal, capsys) -> None:
    with Screen(terminal) as screen, screen.show_trials(3, 0):
        screen.stop_live()
        before = terminal.getvalue()
        print("a result")
        report_line("a remark")
    assert capsys.readouterr().out == "a result\n"
    assert terminal.getvalue().removeprefix(before) == "a remark\n"


def test_results_are_not_taken_for_progress_while_a_bar_is_there(terminal: Terminal, capsys) -> None:
    with Screen(terminal) as screen, screen.show_trials(3, 0):
        print("a result")
    assert capsys.readouterr().out == "a result\n"


def left(line: Line, remaining: int, done: int, after: float = 0.0) -> str:
    line.advance("trial", remaining, done, after=after)
    return str(line.screen.progress.tasks[0].fields["left"])


def test_the_time_left_is_the_last_ten_trials_pace_and_what_comes_after(clock: list[float]) -> None:
    with Screen(io.StringIO()) as screen, screen.show_trials(40, 0) as line:
        clock.append(100.0)
        assert left(line, 39, 1, 30) == "", "the first trial says nothing about the others"
        for _ in range(5):
            clock.append(clock[-1] + 20)
        line.advance("trial", 34, 6)
        for done in range(7, 17):
            clock.append(clock[-1] + 2)
            told = left(line, 40 - done, done, 38.0)
        assert told == "1:26 left"  # 24 trials of 2 s, and 38 s
        assert left(line, 0, 40, 38.0) == "0:38 left"


def test_a_repeated_trial_takes_no_place_and_its_time_is_the_next_ones(clock: list[float]) -> None:
    with Screen(io.StringIO()) as screen, screen.show_trials(4, 0) as line:
        assert left(line, 3, 1) == ""
        clock.append(1.0)
        assert left(line, 3, 1) == ""
        clock.append(10.0)
        assert left(line, 2, 2) == "0:20 left"


def test_nothing_is_said_while_hushed() -> None:
    output = io.StringIO()
    with Screen(output):
        with mute_screen():
            report_line("of one question")
            with track("work", 3) as advance:
                advance(1)
        report_line("of all questions")
    assert output.getvalue() == "of all questions\n"
