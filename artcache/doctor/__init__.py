"""What is wrong here, and what to type next: machine and stores are looked at, then judged.

`look` and `probe` see and judge nothing; `machine` and `stores` judge what was
seen, by rules that touch nothing. For the faces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

Severity = Literal["ok", "note", "warning", "problem"]
"""`note`: worth knowing. `warning`: something is slower or weaker than it could be, or will
fail one day. `problem`: something that was asked for cannot work."""
SEVERITIES: tuple[Severity, ...] = ("ok", "note", "warning", "problem")


class Finding(NamedTuple):
    """One thing that was looked at, and what to type if it is not as it should be."""

    area: str
    """`machine`, `home`, `settings`, or a store's URL."""
    check: str
    """A stable word: `gpu`, `disk`, `reach`, ..."""
    severity: Severity
    text: str
    fix: str = ""

    @property
    def bad(self) -> bool:
        return self.severity in ("warning", "problem")


def clean(findings: Iterable[Finding]) -> list[Finding]:
    """The same without passwords and signatures, and each text on one line."""
    return [
        one._replace(area=scrubbed(one.area), text=scrubbed(one.text), fix=scrubbed(one.fix))
        for one in findings
    ]


def scrubbed(text: str) -> str:
    """Without what a URL should not hold (a password, a signed query), or a token by itself."""
    text = re.sub(r"(?<=://)[^/@\s'\"]+@", "***@", text)
    text = re.sub(r"[^\s/@:'\"]+:[^\s/@'\"]+@", "***@", text)
    text = re.sub(r"(?<=[\w/])\?[^\s'\"]*=[^\s'\")]*", "?***", text)
    text = re.sub(r"\b(?:ya29\.|gh[pousr]_|hf_|AKIA|ASIA|Bearer )[\w.-]{8,}", "***", text)
    return " ".join(text.split())


def exit_code(findings: Iterable[Finding]) -> int:
    """0: no problem. 7: one on this machine; 6: only ones of stores."""
    areas = {finding.area for finding in findings if finding.severity == "problem"}
    if areas & LOCAL:
        return 7
    return 6 if areas else 0


LOCAL = frozenset({"machine", "home", "settings"})
