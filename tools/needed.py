"""Python packages that a tool needs, asked for before it imports them."""

import importlib.util
import os
import shutil
import sys

USAGE, DEBIAN, TRIED = 64, "/usr/bin/python3", "ASTROCLIP_PYTHONS_TRIED"


def need(*modules, pythons=(os.environ.get("ASTROCLIP_PYTHON", DEBIAN), DEBIAN),
         remedy=f"tools/setup.sh installs it for {DEBIAN}; a Python that has it can be named by ASTROCLIP_PYTHON"):
    """Goes on if this Python has the modules. If not, starts the program anew with the next of `pythons`; the last ends it with one line.
    For programs alone: a module that others import must not end them."""
    tried = [*os.environ.pop(TRIED, "").split(os.pathsep), sys.executable]
    missing = next((name for name in modules if importlib.util.find_spec(name) is None), None)
    if missing is None:
        return
    python = next((path for path in map(shutil.which, pythons) if path and path not in tried), None)
    if python is not None:
        os.execve(python, [python, *sys.argv], {**os.environ, TRIED: os.pathsep.join([*tried, python])})
    print(f"{os.path.basename(sys.argv[0])}: {sys.executable} (Python {sys.version.split()[0]}) has no module '{missing}'; {remedy}", file=sys.stderr)
    sys.exit(USAGE)
