"""What a stranger may rely on in the tree; the layers themselves are checked by import-linter."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tracked() -> tuple[Path, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return tuple(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_a_module_says_first_why_it_exists(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc
    assert "laceholder" not in doc


def test_no_file_has_a_name_that_says_nothing() -> None:
    vague = re.compile(r"(^|/)(utils?|helpers?|common|misc|manager)(\.py|/|$)")
    assert [shown(path) for path in tracked() if vague.search(shown(path))] == []


# The composition roots: what a program is told from outside enters through these alone.
MAY_READ_ENVIRONMENT = {
    "src/podidentity/cli/main.py",
    "src/podidentity/cli/azure_access.py",
    "src/podidentity/cli/connection.py",
    "src/podidentity/cli/nmi.py",
    "src/podidentity/mic/main.py",
    "src/podidentity/nmi/main.py",
    "src/podidentity/credential_plugin.py",  # hands all of it on to the program that it runs
}


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_only_a_composition_root_of_the_product_reads_the_environment(path: Path) -> None:
    if path.is_relative_to(ROOT / "src/podidentity") and shown(path) not in MAY_READ_ENVIRONMENT:
        assert not re.search(r"\bos\.(environ|getenv)\b|\benviron\b", path.read_text())


def _calls(path: Path, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names:
            yield node


PRODUCT = [path for path in SOURCES if path.is_relative_to(ROOT / "src/podidentity")]


def test_each_http_client_of_the_product_says_whether_the_environments_proxy_counts() -> None:
    """httpx2 goes by it unasked; the metadata service and the agents must not be asked so."""
    clients = [
        (shown(path), {each.arg for each in call.keywords})
        for path in PRODUCT
        for call in _calls(path, "AsyncClient", "AsyncHTTPTransport")
    ]
    assert len(clients) >= 6
    assert [path for path, given in clients if "trust_env" not in given] == []


def test_each_program_asks_azure_by_the_proxy_of_its_environment() -> None:
    made = {
        shown(path): ast.unparse(call.args[0])
        for path in PRODUCT
        for call in _calls(path, "AzureTransport")
    }
    programs = ("cli/azure_access", "mic/main", "nmi/main")
    wanted = dict.fromkeys(
        (f"src/podidentity/{name}.py" for name in programs), "parse_proxies(os.environ)"
    )
    assert made == wanted


def test_every_dependency_has_its_line_of_reason() -> None:
    listed = (ROOT / "ARCHITECTURE.md").read_text()
    product, sandbox = (
        tomllib.loads((ROOT / each).read_text())
        for each in ("pyproject.toml", "sandbox/pyproject.toml")
    )
    project = product["project"]
    groups = [*project["optional-dependencies"].values(), *product["dependency-groups"].values()]
    own = [*project["dependencies"], *sandbox["project"]["dependencies"]]
    declared = [*own, *chain.from_iterable(groups)]
    names = [re.split("[><=]", each)[0] for each in declared]
    assert len(names) > 15
    assert [name for name in names if f"`{name}`" not in listed] == []


def test_every_pin_has_hashes() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        pins = re.findall(r"^[a-z0-9].*?(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert pins, path
        assert [pin.splitlines()[0] for pin in pins if "--hash=sha256:" not in pin] == []


def test_no_tracked_file_names_a_package_index_or_a_home_folder() -> None:
    # Spelled in parts, so that this file does not find itself.
    forbidden = re.compile(
        "|".join(["pypi" + r"\.org", "python" + "hosted", "/ro" + "ot/", "npm" + "js"])
    )
    texts = (p for p in tracked() if p.suffix not in {".png", ".svg", ".gz"})
    assert [shown(path) for path in texts if forbidden.search(path.read_text())] == []


def unbounded_powers(path: Path) -> Iterator[str]:
    """Yield the powers of two whose exponent may be any number."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.BinOp(left=ast.Constant(value=2), op=ast.Pow(), right=exponent):
                match exponent:
                    case ast.Constant() | ast.Call(func=ast.Name(id="min")):
                        pass
                    case _:
                        yield f"{shown(path)}:{node.lineno}"


def test_a_pause_that_doubles_ends_nobody_after_a_thousand_failures() -> None:
    """2.0 ** 1024 is an error, and no number: the exponent needs a bound of its own."""
    assert list(chain.from_iterable(map(unbounded_powers, SOURCES))) == []


def test_every_command_reads_tenants_objects_within_the_budgets_of_their_namespaces() -> None:
    """By `cli.objects.Kind`, which leaves out what NMI and MIC leave out."""
    own = re.compile(
        r"list_all\(\s*(AZURE_(IDENTITIES|IDENTITY_BINDINGS|POD_IDENTITY_EXCEPTIONS)|SERVICE_ACCOUNTS)"
        r"|\bparse_(identity|binding|exception|service_account)\((?!json\.dumps)|map\(parse_(?!object\b)"
    )
    pages = (ROOT / "src/podidentity/cli").rglob("*.py")
    assert [shown(page) for page in pages if own.search(page.read_text())] == []
