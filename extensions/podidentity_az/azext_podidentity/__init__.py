"""An az extension: the commands of pod identity, which az itself never had.

az asks this package for `COMMAND_LOADER_CLS`. It is loaded then and not before, so that the rules
(`profile`) can be read and tested where there is no az; modules that are slow to load, such as
az's own for AKS, are imported where a command needs them, as az does itself.
"""

from __future__ import annotations


def __getattr__(name: str) -> object:
    """Load what az asks for."""
    if name == "COMMAND_LOADER_CLS":
        from azext_podidentity.loader import PodIdentityCommandsLoader

        return PodIdentityCommandsLoader
    raise AttributeError(name)
