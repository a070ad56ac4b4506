"""What NMI intercepts, by its settings: for itself, and for commands that judge pods' requests."""

from __future__ import annotations

from podidentity.cli.output import CommandError
from podidentity.core.data_path import Backend
from podidentity.kernel.rules import Redirect
from podidentity.settings import NmiSettings


def redirect_of(settings: NmiSettings) -> Redirect:
    try:
        return Redirect(
            metadata_ip=settings.metadata_address,
            metadata_port=settings.metadata_port,
            listen_address=settings.listen_address,
            listen_port=settings.listen_port,
            node_address=settings.host_ip if settings.backend is Backend.LRP else "",
        )
    except ValueError as error:
        raise CommandError(str(error)) from error
