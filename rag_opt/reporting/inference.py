"""How sure a result is, in words: intervals, p values, looks at the same questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_opt.analysis.paired import compute_level, compute_share, is_spent

if TYPE_CHECKING:
    from rag_opt.analysis.findings import Findings


def format_level(findings: Findings) -> str:
    """The level of the intervals on the unseen questions, in percent."""
    found = findings.confirmation
    return f"{100 * compute_level(found.look if found else 1):.6g} %"


def format_method(findings: Findings) -> str:
    """How intervals and p values were made."""
    level = format_level(findings)
    if findings.confirmation is not None and findings.confirmation.crossfitted:
        return (
            f"Intervals are {level} intervals; that of the difference, and p, are by Student's t, with the error of "
            "making the whole selection again on resampled questions; p allows for further looks at these questions."
        )
    return (
        f"Intervals are {level} bootstrap intervals; p (paired randomisation) is corrected for several comparisons and "
        "for further looks at these questions."
    )


def format_looks(findings: Findings) -> str:
    """A caution where the unseen questions are not unseen any more; "" at the first look."""
    found = findings.confirmation
    told = (
        f"the unseen questions were looked at {findings.looks} times as this study grew" if findings.looks > 1 else ""
    )
    if found is None or found.look < 2:
        return told
    judged = (
        f"what is selected now is choice {found.look} that these questions judge: it is tested at "
        f"{5 * compute_share(found.look):.2g} %, its part of the 5 % that all choices share, with intervals of "
        f"{format_level(findings)}"
    )
    if is_spent(found.look):
        judged += "; they can show nothing any more: bring fresh ones, in a study of their own"
    return f"{told}; {judged}" if told else judged
