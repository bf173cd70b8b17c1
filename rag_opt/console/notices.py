"""Lines that come up again and again while a study runs: each is said once, and what bears on results is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from rag_opt.console.screens import report_line


@dataclass(frozen=True)
class Notices:
    """`said` is what was said already, `kept` what a report repeats, in the order in which it came up.

    Where nothing is measured no report is made (`reporting`), and what would be for it is not even found out.
    """

    said: set[str] = field(default_factory=set)
    # A dict as a set that keeps its order.
    kept: dict[str, None] = field(default_factory=dict)
    reporting: bool = True

    def report_once(self, line: str, about: str = "") -> None:
        """Say a line, unless it was said before, or another one `about` the same."""
        if (about or line) not in self.said:
            self.said.add(about or line)
            report_line(line)

    def record_notice(self, line: str) -> None:
        """Say a line once, and keep it for the report: what it tells bears on the result."""
        if self.reporting:
            self.kept[line] = None
            self.report_once(line)
