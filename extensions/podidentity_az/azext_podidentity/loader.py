"""What az asks for commands and their arguments."""

from __future__ import annotations

from typing import Any

from azure.cli.core import AzCommandsLoader
from azure.cli.core.commands import CliCommandType
from azure.cli.core.profiles import ResourceType

import azext_podidentity.help  # noqa: F401  # az finds the texts by this import


class PodIdentityCommandsLoader(AzCommandsLoader):  # type: ignore[misc]  # az ships no types
    """Tells az what this extension adds."""

    # az notes in its index from which module a command is, and looks for the package there.
    __module__ = "azext_podidentity"

    def __init__(self, cli_ctx: Any = None) -> None:
        """Take part in the az of `cli_ctx`."""
        super().__init__(
            cli_ctx=cli_ctx,
            custom_command_type=CliCommandType(operations_tmpl="azext_podidentity.operations#{}"),
            resource_type=ResourceType.MGMT_CONTAINERSERVICE,
        )

    def load_command_table(self, args: Any) -> dict[str, Any]:
        """Return the commands by their words."""
        from azext_podidentity.commands import load_command_table

        load_command_table(self, args)
        table: dict[str, Any] = self.command_table
        return table

    def load_arguments(self, command: str) -> None:
        """Describe the arguments of `command`."""
        from azext_podidentity.arguments import load_arguments

        load_arguments(self, command)
