"""The `podidentity` command.

The agent's programs run on each node for good, and the controller in each cluster, so they are
started without the command line: it reads their flags in a process that ends (`cli.programs`).
"""

from __future__ import annotations

import atexit
import gc
import sys

_PROGRAMS = {"nmi", "net", "serve", "mic"}
_COMMANDS_OF_MIC = {"pause", "resume"}
"""They end, as any command does."""
_INTERRUPTED = 130
"""128 + SIGINT, the exit code that shells expect."""


def main() -> None:
    """Run the command line of this process, also for `kubectl podidentity`."""
    # To look for garbage among all modules once more takes a fifth of a command's time.
    atexit.register(gc.freeze)
    try:
        _run()
    except KeyboardInterrupt:  # while modules are loaded; later a command says how things stand
        sys.exit(_INTERRUPTED)


def _run() -> None:
    if _PROGRAMS.intersection(sys.argv[1:2]) and not _COMMANDS_OF_MIC.intersection(sys.argv[2:3]):
        from podidentity.cli import programs

        sys.exit(programs.main(sys.argv[1:]))
    gc.set_threshold(50_000)  # and to look each 700 objects while modules are loaded, a tenth
    from podidentity.cli import main as command_line

    command_line.main()


if __name__ == "__main__":
    main()
