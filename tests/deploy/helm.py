"""The chart through the real Helm: rendered, linted, installed.

Helm runs in a process of its own (helm_process.py), one for all tests of a file.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import yaml

from deploy.values import CHART, ROOT

PYTHON = ROOT / ".venvs/helm/bin/python"
PROGRAM = PYTHON.with_name("helm")
RELEASE = "aad-pod-identity"
IMAGE = "registry.example.com/podidentity"
TAKE_OVER = ("--take-ownership", "--force-conflicts")
"""Of Helm's program, which makes objects of others its own by them where it applies on the server.

https://helm.sh/docs/helm/helm_upgrade/
"""

Object = dict[str, Any]


class HelmRefused(Exception):
    """Helm's own words."""


class Helm:
    """Helm 4."""

    def __enter__(self) -> Self:
        if not PYTHON.exists():
            pytest.fail("Helm is missing: run ./scripts/setup-helm")
        self._process = subprocess.Popen(
            [PYTHON, Path(__file__).with_name("helm_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def begin(self, what: str, **options: Any) -> None:
        """Have Helm begin something, for nobody who waits for its answer."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps([what, options]) + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End Helm in the middle of what it does, as a pipeline that is cancelled; and start it."""
        self._process.kill()
        self._process.communicate()
        self.__enter__()

    def ask(self, what: str, **options: Any) -> Any:
        """Return what Helm returns; raise HelmRefused."""
        self.begin(what, **options)
        assert self._process.stdout
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise HelmRefused(answer["error"])
        return answer["result"]

    def render(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        namespace: str = "kube-system",
        name: str = RELEASE,
        image: str = IMAGE,
    ) -> Rendered:
        """Render the chart with these values and an image."""
        given = dict(values or {})
        if image:
            given["image"] = {**given.get("image", {}), "repository": image}
        made = self.ask("render", chart=str(CHART), values=given, name=name, namespace=namespace)
        return Rendered(made)

    def invalid(self, manifests: list[Object], version: str = "1.37") -> list[str]:
        """Return what the schemas of Kubernetes' kinds say against these objects."""
        found: list[str] = self.ask("invalid", manifests=manifests, version=version)
        return found


def begun(*words: str, values: Mapping[str, Any] | None = None) -> subprocess.Popen[str]:
    """Start Helm's own program, which has flags that the library lacks; give it these values."""
    given = [] if values is None else ["--values=-"]
    with tempfile.TemporaryFile("w+") as written:
        json.dump(values, written)
        written.seek(0)
        return subprocess.Popen(
            [PROGRAM, *words, *given],
            stdin=written,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def finish(helm: subprocess.Popen[str]) -> str:
    """Wait for the end of Helm's program; return what it printed, or raise HelmRefused."""
    with helm:
        printed, said = helm.communicate()
    if helm.returncode:
        raise HelmRefused(said)
    return printed


class Rendered:
    """What the templates made."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.notes = "".join(text for name, text in files.items() if name.endswith("NOTES.txt"))
        self.objects: list[Object] = [
            each
            for name, text in files.items()
            if name.endswith(".yaml")
            for each in yaml.safe_load_all(text)
            if each
        ]

    def named(self, kind: str, name: str) -> Object:
        """Return the only object of that kind and name."""
        (found,) = (
            each
            for each in self.objects
            if (each["kind"], each["metadata"]["name"]) == (kind, name)
        )
        return found

    def names(self, kind: str) -> set[str]:
        return {each["metadata"]["name"] for each in self.objects if each["kind"] == kind}

    @property
    def nmi(self) -> Object:
        """NMI's DaemonSet."""
        return self.named("DaemonSet", "aad-pod-identity-nmi")

    @property
    def pod(self) -> Object:
        """What NMI's pods are made from."""
        found: Object = self.nmi["spec"]["template"]["spec"]
        return found

    def flags(self, container: str = "serve") -> list[str]:
        """Return the arguments of a container of NMI."""
        (found,) = (each for each in self.pod["containers"] if each["name"] == container)
        arguments: list[str] = found["args"]
        return arguments
