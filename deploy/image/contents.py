"""What is in the image, and what is left out of it: each with its reason.

A pattern is a path below the image's root, where `*` stands for anything, slashes included. What
nothing here removes is there. Tests start the product in the image and load each of its modules, so
whatever goes too far is seen.
"""

from __future__ import annotations

PYTHON = "3.13"
"""Debian's Python in the image; wheels are chosen for it."""

LIBRARIES = f"usr/local/lib/python{PYTHON}/dist-packages"
STANDARD_LIBRARY = f"usr/lib/python{PYTHON}"
EXTENSIONS = f"{STANDARD_LIBRARY}/lib-dynload"

PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
"""Names of an architecture: Debian's and OCI's, and the kernel's and Python's."""

ROOTS = {
    f"python{PYTHON}": "runs the product",
    "libnftables1": "the rules of the node, set in process",
    "ca-certificates": "Entra and ARM are asked over TLS",
    "base-files": "names the system, for scanners; the licences; /bin and /lib",
}
"""Debian packages that the image is for. What they depend on comes with them, less the below."""

NOT_INSTALLED = {
    "debconf": "asks questions when packages are configured; none is",
    "libbz2-1.0": "of the module bz2, removed",
    "libdb5.3t64": "of the module dbm, removed",
    "liblzma5": "of the module lzma, removed",
    "libncursesw6": "of the module curses, removed",
    "libreadline8t64": "of the module readline, removed: nobody types here",
    "libsqlite3-0": "of the module sqlite3, removed",
    "libtinfo6": "of readline and curses",
    "libuuid1": "of a fast path of the module uuid, which does without",
    "mawk": "a programming language, of base-files' scripts",
    "media-types": "file types of mail and browsers",
    "netbase": "names of ports and protocols; the product uses numbers",
    "openssl-provider-legacy": "broken ciphers",
    "readline-common": "of readline",
    "tzdata": "all times here are UTC",
}
"""Dependencies that are of no use in the image."""

NOT_A_LIBRARY = {
    "pycparser": "parses C for cffi, when a library is built",
}
"""Pinned wheels that the image does without."""

REMOVED = {
    # Debian's packages
    "usr/bin/openssl": "a tool to make and read any key; the library is what serves TLS",
    "usr/lib/ssl/misc/*": "scripts in Perl",
    "usr/bin/c_rehash": "a script in Perl",
    "usr/sbin/update-ca-certificates": "needs a shell; the recipe does its work",
    "usr/share/ca-certificates/*": "each is in /etc/ssl/certs/ca-certificates.crt",
    "usr/lib/*/gconv/*": "character sets of iconv, which Python does not use",
    "usr/lib/*/engines-3/*": "hardware that no node has",
    "usr/lib/*/libmemusage.so": "debugs memory",
    "usr/lib/*/libpcprofile.so": "a profiler",
    "usr/lib/*/libnss_hesiod*": "a name service of the nineties",
    "usr/lib/*/libnss_compat*": "of NIS",
    "usr/lib/*/libthread_db*": "of debuggers",
    "usr/bin/pdb*": "a debugger",
    "usr/bin/pydoc*": "a reader of documents",
    "usr/bin/pygettext*": "a tool for translators",
    "usr/share/doc/*/*": "documents, but licences",
    "usr/share/man/*": "manuals",
    "usr/share/lintian/*": "of Debian's developers",
    "usr/share/applications/*": "of desktops",
    "usr/share/pixmaps/*": "of desktops",
    "usr/share/binfmts/*": "of the kernel's set-up",
    "usr/lib/binfmt.d/*": "of the kernel's set-up",
    "usr/share/base-files/*": "templates of a first installation",
    "etc/update-motd.d/*": "of users who log in",
    "etc/issue*": "of users who log in",
    "etc/dpkg/*": "of dpkg",
    "etc/ld.so.conf.d/*": "the folders that the loader knows are enough",
    # Python's library
    f"etc/python{PYTHON}/*": "a hook that reports crashes to a desktop",
    f"{STANDARD_LIBRARY}/sitecustomize.py": "leads to that hook",
    f"{STANDARD_LIBRARY}/test/*": "tests",
    f"{STANDARD_LIBRARY}/venv/*": "makes environments, with pip",
    f"{STANDARD_LIBRARY}/pydoc_data/*": "documents",
    f"{STANDARD_LIBRARY}/pydoc.py": "a reader of documents",
    f"{STANDARD_LIBRARY}/turtle*": "drawing",
    f"{STANDARD_LIBRARY}/_pyrepl/*": "an interactive shell",
    f"{STANDARD_LIBRARY}/curses/*": "needs ncurses",
    f"{STANDARD_LIBRARY}/dbm/*": "data bases in files",
    f"{STANDARD_LIBRARY}/sqlite3/*": "data bases in files",
    f"{STANDARD_LIBRARY}/wsgiref/*": "a web server for examples",
    f"{STANDARD_LIBRARY}/xmlrpc/*": "calls over XML",
    f"{STANDARD_LIBRARY}/unittest/*": "tests",
    f"{STANDARD_LIBRARY}/doctest.py": "tests",
    f"{STANDARD_LIBRARY}/_pydecimal.py": "slow; the C form is there",
    f"{EXTENSIONS}/_bz2*": "needs libbz2",
    f"{EXTENSIONS}/_lzma*": "needs liblzma",
    f"{EXTENSIONS}/_curses*": "needs ncurses",
    f"{EXTENSIONS}/_dbm*": "needs libdb",
    f"{EXTENSIONS}/_sqlite3*": "needs libsqlite",
    f"{EXTENSIONS}/_uuid*": "needs libuuid",
    f"{EXTENSIONS}/readline*": "needs readline",
    f"{EXTENSIONS}/_codecs_*": "character sets of East Asia; all text here is UTF-8",
    f"{EXTENSIONS}/_multibytecodec*": "of these",
    f"{EXTENSIONS}/_ctypes_test*": "tests",
    f"{EXTENSIONS}/_test*": "tests",
    f"{EXTENSIONS}/_xxtestfuzz*": "tests",
    f"{EXTENSIONS}/xx*": "examples",
    # Wheels
    f"{LIBRARIES}/cffi/*": "builds libraries; _cffi_backend is what runs",
    f"{LIBRARIES}/cffi-*/*.txt": "of its commands",
    f"{LIBRARIES}/*.dist-info/RECORD": "untrue where files are left out; the bill has the hashes",
    f"{LIBRARIES}/*.dist-info/entry_points.txt": "of the installer; the recipe writes the command",
    f"{LIBRARIES}/*.pyi": "types",
    f"{LIBRARIES}/*.pyx": "sources of compiled modules",
    f"{LIBRARIES}/*.pxd": "sources of compiled modules",
    f"{LIBRARIES}/*/py.typed": "of type checkers",
}
"""Paths that are left out, and why."""

KEPT = ("usr/share/doc/*/copyright", "var/lib/dpkg/status.d/*")
"""Paths that stay all the same: licences demand it, and scanners look for the packages there."""

SOURCES_KEPT = f"{LIBRARIES}/podidentity/*"
"""Of other modules the bytecode alone is in the image: half the size. A traceback through them has
names and line numbers; one through the product has its lines, too."""
