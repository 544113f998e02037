"""What `doctor` found, as lines and as JSON. Standard library only, so that it works where packages are broken."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..terminal.printable import printable, shortened

Status = Literal["ok", "note", "warn", "fault"]

NAME_WIDTH = 18


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        status: `fault` where editing on the CPU fails or a GPU that is here cannot be used, `warn` where something
            else is broken, `note` where nothing is, but it is good to know.
        remedy: what to do, or None where nothing needs doing.
    """

    check: str
    status: Status
    seen: str
    remedy: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order in which they are told."""

    findings: Sequence[Finding]

    @property
    def healthy(self) -> bool:
        """Whether there is no fault."""
        return not any(finding.status == "fault" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The findings for machines."""
        return {"healthy": self.healthy, "findings": [asdict(finding) for finding in self.findings]}

    def text(self, width: int = 80) -> str:
        """One line per finding, folded at `width`, and one line that sums up."""
        lines = []
        for finding in self.findings:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            body = printable(shortened(" ".join(finding.seen.split()), 400) + remedy)
            head = f"{finding.status:5}  {finding.check:{NAME_WIDTH}} "
            lines.append(textwrap.fill(head + body, width, subsequent_indent=" " * len(head), break_on_hyphens=False))
        faults = [finding.check for finding in self.findings if finding.status == "fault"]
        if faults:
            lines.append(f"\nbroken: {', '.join(faults)}")
        else:
            lines.append("\nediting works on this machine")
        return "\n".join(lines)
