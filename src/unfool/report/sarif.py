"""An evaluation as a SARIF 2.1.0 file (OASIS, 2020), which code-scanning services show beside the code.

A claim that fails and a reason for doubt are results. What holds is no result, since services open an alert for each:
it stands among the notifications of the invocation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from unfool.core.files import JsonObject, write_json
from unfool.evaluation.results.claims import FAILS, HOLDS, ClaimResult
from unfool.evaluation.results.reliability import NOT_CHECKED
from unfool.evaluation.results.study_result import StudyResult

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
CLAIM, LADDER, DOUBT, BINARIZATION = "robust-accuracy", "defense-helps", "doubt", "binarization-test"
_RULES = {
    CLAIM: "A claim about robust accuracy holds",
    LADDER: "The defense helps under the adaptive ladder",
    DOUBT: "The accuracies can be believed",
    BINARIZATION: "The attack finds adversarial examples that are known to be there",
    NOT_CHECKED: "All checks of the reliability report were run",
}
"""What each rule demands; the checks of the reliability report are rules under their own names."""

Level: TypeAlias = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a finding is about: a ``file``, and the ``line`` of the model in it; or the ``name`` of what is no file."""

    file: Path | None = None
    line: int = 1
    name: str = ""

    def to_json(self) -> JsonObject:
        """The location as SARIF has it; a file below the working directory relative to it, as services want it."""
        region = {"region": {"startLine": self.line}}
        if self.file is None:
            name = {"name": self.name, "kind": "module"}
            return {
                "physicalLocation": {"artifactLocation": {"uri": quote(self.name)}, **region},
                "logicalLocations": [name],
            }
        path, here = self.file.absolute(), Path.cwd()
        if path.is_relative_to(here):
            artifact = {"uri": quote(path.relative_to(here).as_posix()), "uriBaseId": "%SRCROOT%"}
        else:
            artifact = {"uri": path.as_uri()}
        return {"physicalLocation": {"artifactLocation": artifact, **region}}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result: the ``rule`` that was broken, how grave it is, the message, and its figures."""

    rule: str
    level: Level
    text: str
    properties: Mapping[str, Any] = field(default_factory=dict[str, Any])


def sarif(result: StudyResult, place: Place, *, strict: bool = False, exit_code: int = 0) -> JsonObject:
    """Results as a SARIF log.

    Args:
        result: What `Evaluation.result` or a ladder's gives.
        place: The configuration or model file that the findings are shown at.
        strict: Whether a doubt is an error, and not a warning.
        exit_code: What the command ends with.
    """
    findings, location = list(_findings(result, strict)), place.to_json()
    holding = [claim for claim in result.claims if claim.verdict == HOLDS]
    rules = list(dict.fromkeys([*(_rule_of(claim) for claim in result.claims), *(each.rule for each in findings)]))
    name = result.system or result.study
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "unfool",
                        "version": result.versions.get("unfool", ""),
                        "rules": [_rule(rule) for rule in rules],
                    }
                },
                "automationDetails": {"id": f"unfool/{name}/"},
                "invocations": [
                    {
                        # What was to be evaluated was; whether it passed is said by the exit code.
                        "executionSuccessful": True,
                        "exitCode": exit_code,
                        "toolExecutionNotifications": [
                            {
                                "level": "note",
                                "message": {"text": _text(claim)},
                                "associatedRule": {"id": _rule_of(claim), "index": rules.index(_rule_of(claim))},
                            }
                            for claim in holding
                        ],
                    }
                ],
                "results": [
                    {
                        "ruleId": finding.rule,
                        "ruleIndex": rules.index(finding.rule),
                        "level": finding.level,
                        "message": {"text": finding.text},
                        "locations": [location],
                        "partialFingerprints": {"unfool/v1": _fingerprint(finding.rule, name, number)},
                        **({"properties": dict(finding.properties)} if finding.properties else {}),
                    }
                    for number, finding in _numbered(findings)
                ],
                "columnKind": "unicodeCodePoints",
            }
        ],
    }


def write_sarif(
    path: str | Path, result: StudyResult, place: Place, *, strict: bool = False, exit_code: int = 0
) -> None:
    """Write results as a SARIF file, whole or not at all; the arguments are those of `sarif`. Raises OutputError."""
    write_json(path, sarif(result, place, strict=strict, exit_code=exit_code))


def _findings(result: StudyResult, strict: bool) -> Iterator[Finding]:
    """What did not pass, the gravest first."""
    doubtful: Level = "error" if strict else "warning"
    failed = [claim for claim in result.claims if claim.verdict != HOLDS]
    for claim in sorted(failed, key=lambda claim: claim.verdict != FAILS):
        level: Level = "error" if claim.verdict == FAILS else "warning"
        row = next((row for row in reversed(result.rows) if row.settings.get("verdict") == claim.verdict), None)
        figures: dict[str, Any] = {"verdict": claim.verdict}
        if row is not None:
            figures |= {"accuracy": row.accuracy, "low": row.low, "high": row.high, "images": row.n}
            figures |= {"attack": row.attack, "threat": row.threat}
        yield Finding(rule=_rule_of(claim), level=level, text=_text(claim), properties=figures)
    for ladder in result.ladders:
        if ladder.verdict != "helps":
            words = " ".join([f"{ladder.defense} before {ladder.model}: {ladder.verdict}.", *ladder.sentences])
            grave: Level = "error" if ladder.verdict == FAILS else "warning"
            yield Finding(rule=LADDER, level=grave, text=words, properties={"verdict": ladder.verdict})
    covered: set[str] = set()
    for flag in result.reliability.flags if result.reliability is not None else []:
        covered |= {flag.text, f"{flag.name}: {flag.text}"}
        share = {} if flag.share is None else {"share": flag.share}
        yield Finding(
            rule=flag.name,
            level="note" if flag.name == NOT_CHECKED else doubtful,
            text=flag.text,
            properties={**share, "images": len(flag.images)} if flag.images else share,
        )
    for attack, test in result.binarization_tests.items():
        if not test.passed:
            covered.add(test.text)
            figures = {"success": test.success, "low": test.low, "high": test.high, "images": test.images}
            yield Finding(rule=BINARIZATION, level=doubtful, text=test.text, properties={"attack": attack, **figures})
    for doubt in result.doubts or ():
        if doubt not in covered:
            yield Finding(rule=DOUBT, level=doubtful, text=doubt)


def _rule_of(claim: ClaimResult) -> str:
    return claim.id or CLAIM


def _rule(name: str) -> JsonObject:
    demand = _RULES.get(name, f"The reliability report raises no {name}")
    return {
        "id": name,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": demand},
        "fullDescription": {"text": f"{demand}."},
        "help": {
            "text": f"{demand}. `unfool evaluate --help` names the checks; docs/reliability.md says what they mean."
        },
        "defaultConfiguration": {"level": "warning"},
    }


def _text(claim: ClaimResult) -> str:
    return ". ".join(text.strip().rstrip(".") for text in (claim.text, *claim.sentences)) + "."


def _numbered(findings: list[Finding]) -> Iterator[tuple[int, Finding]]:
    """Each finding with its number among those of its rule."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.rule] = counts.get(finding.rule, -1) + 1
        yield counts[finding.rule], finding


def _fingerprint(rule: str, name: str, number: int) -> str:
    """What tells a finding from others in later files, where figures differ."""
    return hashlib.blake2b(f"{rule}\n{name}\n{number}".encode(), digest_size=16).hexdigest()
