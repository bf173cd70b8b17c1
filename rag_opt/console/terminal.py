"""Text as a terminal may have it: nothing in it moves the cursor, changes the window, turns letters round or hides.

Ids, titles, file names, keys, answers and reasons come from others; every line that may show one goes through here.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, cast

from rag_opt.console.exit_status import HungUp, ReaderGone, handle_broken_pipe, is_hung_up, silence_streams
from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import RagOptError

if TYPE_CHECKING:
    from rich.console import Console

UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls (C0 but tab and newline, C1), line separators, overrides of the writing direction, lone surrogates."""

ABOUT = {"--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version", "--shell-completion", "-sc"}
"""Options of a command that only tells about itself."""

REFUSED = 2
"""The exit status of a command that refuses what it was given."""

BREAK = re.compile(r"[\t\n]")


def escape_controls(text: str) -> str:
    """The text with each control character as Python writes it, such as backslash x1b; tabs and newlines stay."""
    # A Windows line end is no attempt to write over the line.
    return UNSEEN.sub(_escape_match, text.replace("\r\n", "\n"))


def sanitize_text(text: str) -> str:
    """The text for a terminal: `escape_controls`, passwords and keys hidden."""
    return escape_controls(hide_secrets(text))


def sanitize_line(text: str) -> str:
    """The text as a part of a line: `sanitize_text`, tabs and newlines written out, too."""
    return BREAK.sub(_escape_match, sanitize_text(text))


def _escape_match(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


def print_error(error: BaseException | str, before: str = "error: ") -> None:
    """Say on standard error what is wrong; further lines are indented, so that no text can pass for a line of ours."""
    lines = sanitize_text(f"{before}{error}").splitlines()
    print("\n".join([*lines[:1], *(f"  {line.strip()}" for line in lines[1:])]), file=sys.stderr)


@contextmanager
def command() -> Iterator[None]:
    """Within it what is wrong is said in one message and ends the command with status 2; see `handle_broken_pipe`."""
    with handle_broken_pipe():
        try:
            yield
        except RagOptError as error:
            print_error(error)
            sys.exit(REFUSED)


def print_first_line(line: str) -> None:
    """Say a first line on standard error, before anything heavy is imported; not where only help is asked for."""
    if not ABOUT & {word.partition("=")[0] for word in sys.argv[1:]}:
        print(line, file=sys.stderr, flush=True)


def format_names(names: Iterable[str], count: int = 5) -> str:
    """The first of these names in quotes and, where there are more, an ellipsis."""
    first = [f"'{sanitize_line(name)}'" for _, name in zip(range(count + 1), names, strict=False)]
    return ", ".join(first[:count]) + (", …" if len(first) > count else "")


def build_console(file: TextIO | None = None) -> Console:
    """A console on this stream (default: standard output) that shows control characters instead of obeying them."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Careful(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            # Cells and titles of tables and the texts of bars come through here, too. Control segments are Rich's own:
            # they move the live line.
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(escape_controls(text), style)

        def on_broken_pipe(self) -> None:
            # Rich would raise SystemExit(1), which gives no trial back and is not the status of SIGPIPE.
            self._end(ReaderGone())

        def _check_buffer(self) -> None:
            try:
                super()._check_buffer()
            except OSError as error:
                if not is_hung_up(error, cast(TextIO, self.file)):
                    raise
                # What draws the live line ends nothing: the next line of the main thread does.
                if threading.current_thread() is threading.main_thread():
                    self._end(HungUp())

        def _end(self, stop: KeyboardInterrupt) -> None:
            self.quiet = True
            silence_streams()
            raise stop

    return Careful(file=file or sys.stdout, highlight=False, soft_wrap=True)
