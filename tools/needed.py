"""Python packages that a tool needs, asked for before it imports them."""

import importlib.util
import os
import shutil
import sys

USAGE, DEBIAN = 64, "/usr/bin/python3"


def need(*modules, pythons=(os.environ.get("ASTROCLIP_PYTHON", DEBIAN), DEBIAN),
         remedy=f"tools/setup.sh installs it for {DEBIAN}; a Python that has it can be named by ASTROCLIP_PYTHON"):
    """Goes on if this Python has the modules. If not, starts the program anew with the next of `pythons`; the last ends it with one line.
    For programs alone: a module that others import must not end them."""
    missing = next((name for name in modules if importlib.util.find_spec(name) is None), None)
    if missing is None:
        return
    found = [os.path.abspath(path) for path in map(shutil.which, pythons) if path]
    others = found[max((i + 1 for i, path in enumerate(found) if is_this(path)), default=0):]
    if others:
        os.execv(others[0], [others[0], *sys.argv])
    print(f"{os.path.basename(sys.argv[0])}: {sys.executable} (Python {sys.version.split()[0]}) has no module '{missing}'; {remedy}", file=sys.stderr)
    sys.exit(USAGE)


def is_this(python):
    """Whether it is the one that runs. That of a virtual environment is a link to another, with other packages."""
    return python == sys.executable or (sys.prefix == sys.base_prefix and os.path.realpath(python) == os.path.realpath(sys.executable))
