"""Real kubectl commands with the outcome that a real cluster gives them, written by hand.

A chapter is a file: commands that are run one after the other, by each kubectl of `kubectls`,
against a cluster of their own, the sandbox's and a real one. No program writes these files.

    about: a sentence
    stage: cluster            # or `world`: a sandbox with a node on which pods run
    files:                    # what lies beside our crds.yaml where the commands run
      pod.yaml: |
        …
    cases:
      - id: get-pods          # once in all chapters
        run: kubectl get pods # as typed: a line for bash
        exit: 0               # 0 where it is not said
        out: |                # stdout and stderr, empty where they are not said
          NAME   READY   STATUS    RESTARTS   AGE
          a      0/1     Pending   0          [[age]]
        err: |
          …
        source: recorded      # where the expectation is from: `recorded`, or a URL, or both
        but:                  # where one version says something else, and why
          "1.32": {out: …, why: …}

`recorded` is an answer taken down from a real kube-apiserver of v1.37 (with etcd, no kubelet),
asked by kubectl v1.37.1. What varies from run to run is written `[[name]]`, see VARYING. Two spaces
or more inside a line stand for any such gap: columns move with the age of an object.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import yaml

VARYING = {
    "age": r"(?:\d+[smhdy])+",
    "any": r"[^\n]*",
    "date": r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}",
    "hash": r"[a-z0-9]{5,10}",
    "ip": r"\d+\.\d+\.\d+\.\d+",
    "lines": r"(?s:.*)",
    "number": r"\d+",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
    "token": r"[\w-]+\.[\w-]+\.[\w-]+",
    "uid": r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "word": r"\S+",
}
_PLACE = re.compile(r"\[\[(\w+)\]\]|(?<=\S)( {2,})(?=\S)")


def matches(expected: str, found: str) -> bool:
    """Whether an output is as expected; see the page's head."""
    pattern, end = [], 0
    for place in _PLACE.finditer(expected):
        pattern.append(re.escape(expected[end : place.start()]))
        pattern.append(VARYING[place[1]] if place[1] else " {2,}")
        end = place.end()
    return re.fullmatch("".join([*pattern, re.escape(expected[end:])]), found) is not None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a command did, or is to do."""

    exit: int = 0
    out: str = ""
    err: str = ""

    def agrees(self, found: Outcome) -> bool:
        """Whether `found` is what is expected here."""
        same = self.exit == found.exit
        return same and matches(self.out, found.out) and matches(self.err, found.err)

    def __str__(self) -> str:
        return f"exit {self.exit}\n--- out\n{self.out}--- err\n{self.err}"


class Other(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of an outcome is another with one version, and why."""

    why: str
    exit: int | msgspec.UnsetType = msgspec.UNSET
    out: str | msgspec.UnsetType = msgspec.UNSET
    err: str | msgspec.UnsetType = msgspec.UNSET


class Case(Outcome, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One command, its outcome, and where that is from."""

    id: str
    run: str
    source: str
    but: dict[str, Other] = {}

    def outcome(self, version: str) -> Outcome:
        """Return what this version of kubectl is to do."""
        other = self.but.get(version, Other(why=""))
        found = {name: getattr(other, name) for name in ("exit", "out", "err")}
        said = {name: value for name, value in found.items() if value is not msgspec.UNSET}
        return Outcome(**{"exit": self.exit, "out": self.out, "err": self.err, **said})


class CaseRunner:
    """Runs cases in their order, each once, in one environment."""

    def __init__(
        self,
        cases: Sequence[Case],
        environment: Mapping[str, str],
        *,
        seconds: float,
        folder: Path | None = None,
    ) -> None:
        """`seconds`: the most that one command may take."""
        self._cases = cases
        self._environment = environment
        self._seconds = seconds
        self._folder = folder
        self._done: dict[str, Outcome] = {}

    def outcome(self, wanted: Case) -> Outcome:
        """Run the cases up to this one, those that were not run yet; return its outcome."""
        for case in self._cases:
            if case.id not in self._done:
                self._done[case.id] = self._run(case.run)
            if case.id == wanted.id:
                break
        return self._done[wanted.id]

    def _run(self, line: str) -> Outcome:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self._folder,
            env=self._environment,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self._seconds,
        )
        return Outcome(exit=done.returncode, out=done.stdout, err=done.stderr)


class Chapter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Commands that follow each other on one stage."""

    name: str
    about: str
    cases: list[Case]
    stage: str = "cluster"
    files: dict[str, str] = {}


def chapters(folder: Path) -> list[Chapter]:
    """Return all chapters, in the order of their names; raise msgspec.ValidationError."""
    return [
        msgspec.convert({"name": path.stem, **yaml.safe_load(path.read_text())}, Chapter)
        for path in sorted(folder.glob("*.yaml"))
    ]
