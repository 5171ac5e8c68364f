# SPDX-License-Identifier: GPL-2.0
"""Where things are, and the set-up scripts that make them."""

import os
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("BUILD") or TOP / "build")
HERE = TOP / "qemu-test"
OUT = BUILD / "qemu-test"
PAYLOAD = OUT / "payload"


def script(name, *args, **variables):
    """Runs a set-up script, with variables of its environment, and returns the last line it prints."""
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
    result = subprocess.run([TOP / "scripts" / name, *args], stdout=subprocess.PIPE, text=True, env=environment)
    if result.returncode != 0:
        raise SystemExit(f"scripts/{name} failed with status {result.returncode}")
    lines = result.stdout.split("\n")
    return lines[-2] if len(lines) > 1 else ""


def in_root(root, *command):
    """The argument vector that runs COMMAND inside a root."""
    return [str(TOP / "scripts" / "in-root"), str(root), *map(str, command)]
