"""What a check says: one problem with its cure, and the report that collects them."""

import html
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.kinds import GeneKind


@dataclass(frozen=True)
class Finding:
    """One problem and its cure.

    `check` is the short name of the check, such as ``"nan"``. `severity` is ``"error"``: nothing should be done before
    it is cured; ``"warning"``: look at it first; or ``"note"``: good to know. `problem` is what the data do or hold,
    continuing a sentence that begins with their name.
    """

    check: str
    severity: str
    problem: str
    cure: str

    def about(self, what: str) -> str:
        """The finding as a sentence about `what`."""
        return f"{what} {self.problem}: {self.cure}"


def findings(*rows: tuple[object, str, str, str, str]) -> list[Finding]:
    """The findings of those rows (test, check, severity, problem, cure) whose test is true."""
    return [Finding(*row) for test, *row in rows if test]


def refuse(found: Iterable[Finding], what: str, but: str | None = None) -> None:
    """Raise :class:`DataError` with the first finding, said of `what`; those of the check `but` may stand."""
    for f in found:
        if f.check != but:
            raise DataError(f.about(what))


@dataclass(frozen=True)
class CheckReport:
    """What :func:`check` found; print it, or ask ``report.ok``.

    `findings` are a tuple of Finding, errors first; `shape` is (cells, genes); `genes` the GeneKind of the names, or
    None; `facts` one line that describes the matrix. `looks` says what the values look like: ``"counts"``,
    ``"binary"``, ``"expected counts"``, ``"logged"``, ``"logged twice"``, ``"per million"``, ``"scaled to one total"``,
    ``"linear"``, ``"shares"``, ``"signed"``, ``"equal"``, or ``"unreadable"``.
    """

    findings: tuple[Finding, ...]
    shape: tuple[int, int]
    looks: str
    genes: GeneKind | None
    facts: str = field(default="", compare=False)

    @property
    def serious(self) -> tuple[Finding, ...]:
        """The findings that are worse than a note."""
        return tuple(f for f in self.findings if f.severity != "note")

    @property
    def ok(self) -> bool:
        """True when nothing worse than a note was found."""
        return not self.serious

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings of severity ``"error"``."""
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def checks(self) -> tuple[str, ...]:
        """Short names of what was found."""
        return tuple(f.check for f in self.findings)

    def to_frame(self) -> pd.DataFrame:
        """One row a finding: severity, check, problem, cure."""
        rows = [(f.severity, f.check, f.problem, f.cure) for f in self.findings]
        return pd.DataFrame(rows, columns=["severity", "check", "problem", "cure"])

    def __str__(self):
        said = [f"{f.severity:<8} {f.problem}: {f.cure}" for f in self.findings]
        return "\n".join([self.facts, *(said or ["nothing to complain of"])])

    __repr__ = __str__

    def _repr_html_(self):
        if not self.findings:
            return f"<p>{html.escape(self.facts)}: nothing to complain of</p>"
        return f"<p>{html.escape(self.facts)}</p>" + self.to_frame().to_html(index=False, border=0)
