"""Which API server, and as whom: kubeconfig files and service accounts, read by lightkube.

A kubeconfig holds secrets. What is said about one that cannot be used quotes none of its text.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from podidentity.wire.kube import KubeError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_KUBECONFIG = Path("~/.kube/config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a connection needs."""

    server: str
    verify: ssl.SSLContext = field(repr=False)
    auth: httpx2.Auth | None = field(repr=False)


def credentials(kubeconfig: str | None, context: str | None, *, trust_env: bool) -> Credentials:
    """Return the credentials of `context` (None: the current one); raise KubeError.

    `kubeconfig` as for `Kube.connect`.
    """
    config = _load(kubeconfig, context)
    try:
        verify = verify_cluster(
            config.cluster, config.user or User(), config.abs_file, trust_env=trust_env
        )
        auth = user_auth(config.user)
    except (ConfigError, OSError, ValueError) as error:
        raise KubeError(
            f"The credentials of context {config.context_name!r} cannot be used: {error}."
        ) from error
    return Credentials(server=config.cluster.server, verify=verify, auth=auth)


def _load(kubeconfig: str | None, context: str | None) -> SingleConfig:
    if kubeconfig:
        return _first([Path(part) for part in kubeconfig.split(":") if part], context)
    if (SERVICE_ACCOUNT / "token").is_file():
        try:
            config = KubeConfig.from_service_account(SERVICE_ACCOUNT).get()
        except (ConfigError, LookupError) as error:
            raise KubeError(f"The service account in {SERVICE_ACCOUNT} lacks {error}.") from error
        return _present(config)
    return _first([DEFAULT_KUBECONFIG], context)


def _first(paths: list[Path], context: str | None) -> SingleConfig:
    """Return the context from the first file that has it."""
    tried = []
    for path in paths:
        try:
            return _present(KubeConfig.from_file(path).get(context))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            tried.append(f"{path} is not YAML (line {mark.line + 1 if mark else '?'})")
        except (ConfigError, OSError, UnicodeDecodeError) as error:
            tried.append(f"{path}: {error}")
        except (LookupError, TypeError, AttributeError, msgspec.ValidationError) as error:
            tried.append(f"{path} is no kubeconfig ({type(error).__name__}: {error})")
    raise KubeError(
        f"No Kubernetes cluster is configured: {'; '.join(tried)}. "
        "Give --kubeconfig or set KUBECONFIG."
    )


def _present(config: SingleConfig | None) -> SingleConfig:
    if config is None:
        raise ConfigError("it has no context")
    return config
