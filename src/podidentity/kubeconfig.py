"""Which API server is meant, and how to sign in there: a kubeconfig, or a pod's service account.

Several files are merged as kubectl merges them, so that both mean the same cluster: what the first
file says of a name counts, and the current context is the first that one names.
https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/

lightkube reads the fields of a cluster and a user, reads service accounts, and makes the usual
credentials. The rest is ours, because a file may be wrong in each of its parts, and the error must
name the part. A kubeconfig holds secrets, so no error quotes a value of one.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User
from lightkube.core.exceptions import ConfigError

from podidentity.credential_plugin import Plugin, PluginAuth
from podidentity.wire.kube import KubeError
from podidentity.wire.proxies import DIRECT, NotAProxy, Proxies, Proxy, parse_proxy

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_KUBECONFIG = Path("~/.kube/config")
# libyaml's is ten times as fast; an installation of PyYAML may be without it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_HOW = "Give --kubeconfig or set KUBECONFIG."

_Entries = dict[str, Mapping[str, Any]]
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_DATA = ("certificate-authority-data", "client-certificate-data", "client-key-data")
_NOT_TAKEN = ("tls-server-name", "as", "as-uid", "as-groups", "as-user-extra")
"""What kubectl obeys and this does not: to go on without would be to act as somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The server of a context, and how to authenticate both ends."""

    server: str
    verify: ssl.SSLContext = field(repr=False)
    auth: httpx2.Auth | None = field(repr=False)
    proxy: Proxy | None


class _Wrong(Exception):
    """What is wrong with a kubeconfig, as a sentence without its end."""


def load_credentials(
    kubeconfig: str | None, context: str | None, *, trust_env: bool, proxies: Proxies = DIRECT
) -> Credentials:
    """Return the credentials of `context` (None: the current one); raise KubeError.

    `kubeconfig` is a path, or several joined by `:` as in KUBECONFIG. None: the pod's service
    account, else `~/.kube/config`. `trust_env`: a proxy-url counts, else `proxies`, and so do the
    variables for certificates.
    """
    if not kubeconfig and (SERVICE_ACCOUNT / "token").is_file():
        return _of_service_account(proxies, trust_env=trust_env)
    try:
        name, cluster, user = _chosen(_merged(_paths(kubeconfig)), context)
    except _Wrong as error:
        raise KubeError(f"No Kubernetes cluster is configured: {error}. {_HOW}") from error
    try:
        verify, auth = _secured(cluster, user, trust_env=trust_env)
    except (_Wrong, ConfigError, OSError, ValueError) as error:
        raise KubeError(f"The credentials of context {name!r} cannot be used: {error}.") from error
    server = str(cluster["server"])
    url = str(cluster.get("proxy-url") or "")
    proxy = _proxy(url, name, server, proxies) if trust_env else None
    return Credentials(server=server, verify=verify, auth=auth, proxy=proxy)


def _paths(kubeconfig: str | None) -> list[Path]:
    return [Path(part) for part in (kubeconfig or "").split(":") if part] or [DEFAULT_KUBECONFIG]


def expired_certificate(kubeconfig: str | None, context: str | None, now: datetime) -> str:
    """Return since when a context's client certificate has expired, as a clause; "" if it has not.

    For a request that failed: the server says no more than 401. It reads the kubeconfig again, and
    what cannot be read is "": the request would not have been sent.
    """
    try:
        _, _, user = _chosen(_merged(_paths(kubeconfig)), context)
        with ExitStack() as files:
            who = msgspec.convert(user, User)
            path = _file(who.client_cert, who.client_cert_data, files)
            ends = _end_of(Path(path).read_bytes()) if path else now
    except (_Wrong, OSError, ValueError, msgspec.ValidationError):
        return ""
    if ends >= now:
        return ""
    return f"The client certificate of the kubeconfig expired on {ends:%Y-%m-%d %H:%M} UTC"


def _end_of(certificate: bytes) -> datetime:
    """Return the end of a certificate, PEM; raise ValueError."""
    from cryptography import x509  # 40 ms, for a request that failed alone

    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def _of_service_account(proxies: Proxies, *, trust_env: bool) -> Credentials:
    try:
        found = KubeConfig.from_service_account(SERVICE_ACCOUNT).get()
    except (ConfigError, LookupError) as error:
        raise KubeError(f"The service account in {SERVICE_ACCOUNT} lacks {error}.") from error
    assert found is not None  # noqa: S101 - it names its context
    user = found.user or User()
    try:
        verify = verify_cluster(found.cluster, user, found.abs_file, trust_env=trust_env)
    except (OSError, ValueError) as error:
        raise KubeError(f"The service account in {SERVICE_ACCOUNT} is broken: {error}.") from error
    server = found.cluster.server
    proxy = _proxy("", "", server, proxies) if trust_env else None
    return Credentials(server=server, verify=verify, auth=user_auth(found.user), proxy=proxy)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merged:
    """What all files say, by name; paths in it are absolute."""

    files: Sequence[str]
    current: str
    contexts: _Entries
    clusters: _Entries
    users: _Entries


def _merged(paths: Iterable[Path]) -> _Merged:
    """Return what the files say together; those that are missing say nothing. Raise _Wrong."""
    given = list(paths)
    read = [(path, _read(path)) for path in given if path.expanduser().is_file()]
    if not read:
        raise _Wrong(f"{' and '.join(map(str, given))} not found")
    current = [str(found.get("current-context") or "") for _, found in read]
    contexts: _Entries = {}
    clusters: _Entries = {}
    users: _Entries = {}
    for path, found in read:
        for kind, one, known in (
            ("contexts", "context", contexts),
            ("clusters", "cluster", clusters),
            ("users", "user", users),
        ):
            for name, entry in _entries(path, found.get(kind), kind, one):
                known.setdefault(name, _absolute(entry, path.expanduser().absolute().parent))
    return _Merged(
        files=[str(path) for path, _ in read],
        current=next(filter(None, current), ""),
        contexts=contexts,
        clusters=clusters,
        users=users,
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.load(path.expanduser().read_text(), Loader=_LOADER)  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _Wrong(f"{path} is not YAML (line {mark.line + 1 if mark else '?'})") from error
    except UnicodeDecodeError as error:
        raise _Wrong(f"{path} is no text") from error
    except OSError as error:
        raise _Wrong(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(found or {}, dict):
        raise _Wrong(f"{path} is no kubeconfig")
    return found or {}


def _entries(
    path: Path, found: object, kind: str, one: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the entries of a list, such as `clusters`, with their names; raise _Wrong."""
    if not isinstance(found or [], list):
        raise _Wrong(f"{path} is no kubeconfig: its {kind} are no list")
    for each in found or []:  # type: ignore[attr-defined] # it is a list
        if not (isinstance(each, dict) and isinstance(each.get("name"), str)):
            raise _Wrong(f"{path} is no kubeconfig: one of its {kind} has no name")
        if not isinstance(each.get(one) or {}, dict):
            raise _Wrong(f"{path} is no kubeconfig: {kind[:-1]} {each['name']!r} says nothing")
        yield each["name"], each.get(one) or {}


def _absolute(entry: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Return an entry whose files are named from the root: they are beside the kubeconfig."""
    found = dict(entry)
    for name in _FILES:
        if isinstance(found.get(name), str) and found[name]:
            found[name] = str(folder / Path(found[name]).expanduser())
    plugin = found.get("exec")
    if isinstance(plugin, dict) and "/" in str(plugin.get("command", "")):
        found["exec"] = {**plugin, "command": str(folder / str(plugin["command"]))}
    return found


def _chosen(
    found: _Merged, context: str | None
) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """Return the name of the context, its cluster and its user; raise _Wrong."""
    where = " and ".join(found.files)
    known = f" (there is {', '.join(sorted(found.contexts))})" if found.contexts else ""
    name = context or found.current
    if not name:
        raise _Wrong(f"{where} has no current context{known}; --context names one")
    if name not in found.contexts:
        raise _Wrong(f"Context {name!r} not found in {where}{known}")
    chosen = found.contexts[name]
    of = {
        "cluster": _named(found.clusters, chosen.get("cluster"), f"{where}: context {name!r}"),
        "user": {},
    }
    if not of["cluster"].get("server"):
        raise _Wrong(f"cluster {chosen['cluster']!r} in {where} has no server")
    if not _is_server(str(of["cluster"]["server"])):
        raise _Wrong(f"the server of cluster {chosen['cluster']!r} in {where} is no https:// URL")
    if chosen.get("user"):
        of["user"] = _named(found.users, chosen["user"], f"{where}: context {name!r}", "user")
    return name, of["cluster"], of["user"]


def _is_server(text: str) -> bool:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        return False
    return url.scheme in {"http", "https"} and bool(url.host) and (url.port or 0) < 1 << 16


def _named(entries: _Entries, name: object, who: str, kind: str = "cluster") -> Mapping[str, Any]:
    if not isinstance(name, str) or not name:
        raise _Wrong(f"{who} names no {kind}")
    if name not in entries:
        raise _Wrong(f"{who} names {kind} {name!r}, which is not there")
    return entries[name]


def _secured(
    cluster: Mapping[str, Any], user: Mapping[str, Any], *, trust_env: bool
) -> tuple[ssl.SSLContext, httpx2.Auth | None]:
    """Return the TLS of a connection and the credentials of its requests; raise _Wrong."""
    for entry in (cluster, user):
        _require_usable(entry)
    try:
        known, who = msgspec.convert(cluster, Cluster), msgspec.convert(user, User)
    except msgspec.ValidationError as error:
        raise _Wrong(str(error)) from error
    verify = _tls(known, who, trust_env=trust_env)
    if who.exec is None or who.token_file is not None or who.token is not None:
        return verify, user_auth(who)
    plugin = Plugin(
        version=who.exec.apiVersion,
        command=who.exec.command,
        arguments=tuple(who.exec.args or ()),
        variables=tuple((each.name, each.value) for each in who.exec.env or ()),
        hint=who.exec.installHint or "",
    )
    return verify, PluginAuth(plugin)


def _tls(cluster: Cluster, user: User, *, trust_env: bool) -> ssl.SSLContext:
    if cluster.certificate_auth:
        made = ssl.create_default_context(cafile=cluster.certificate_auth)
    elif cluster.certificate_auth_data:
        data = base64.b64decode(cluster.certificate_auth_data)
        if not data.strip():
            # Python would trust the system's authorities in its place.
            raise _Wrong("certificate-authority-data is empty")
        # Comments may have any letters, and Python takes ASCII alone.
        text = data.decode("ascii", errors="backslashreplace")
        made = ssl.create_default_context(cadata=text)
    else:
        made = httpx2.create_ssl_context(verify=not cluster.insecure, trust_env=trust_env)
    with ExitStack() as files:
        certificate = _file(user.client_cert, user.client_cert_data, files)
        key = _file(user.client_key, user.client_key_data, files)
        if bool(certificate) != bool(key):
            raise _Wrong("of client-certificate and client-key one is missing")
        if certificate:
            made.load_cert_chain(certificate, key)
    return made


def _file(path: str | None, data: str | None, files: ExitStack) -> str | None:
    """Return a file with the data if there is some, else the path: Python reads keys of files."""
    if not data:
        return path
    written = files.enter_context(NamedTemporaryFile())  # noqa: SIM115 - it is in a `with`
    written.write(base64.b64decode(data))
    written.flush()
    return written.name


def _require_usable(entry: Mapping[str, Any]) -> None:
    """Raise _Wrong for what is not taken, for files that are missing, for data that is none."""
    for name in _NOT_TAKEN:
        if entry.get(name):
            raise _Wrong(f"podidentity does not know {name}, and would act otherwise than kubectl")
    for name in _FILES:
        path = entry.get(name)
        if isinstance(path, str) and path and not Path(path).is_file():
            raise _Wrong(f"{name} {path} not found")
    for name in _DATA:
        text = entry.get(name)
        if isinstance(text, str):
            try:
                base64.b64decode("".join(text.split()), validate=True)
            except (binascii.Error, ValueError) as error:
                raise _Wrong(f"{name} is not base64") from error


def _proxy(url: str, context: str, server: str, proxies: Proxies) -> Proxy | None:
    """Return the proxy for a server: of the context's proxy-url, else of `proxies`.

    Raise KubeError if it cannot be used.
    """
    try:
        if url:
            return parse_proxy(url, f"the proxy-url of context {context!r}")
        asked = httpx2.URL(server)
        return proxies.of(asked.scheme, asked.host, asked.port)
    except NotAProxy as error:
        raise KubeError(f"The API server at {server} cannot be asked: {error}.") from None
