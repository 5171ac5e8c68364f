# SPDX-License-Identifier: GPL-2.0
"""JSON of `nvhv` is what docs/schemas says, to the last field."""

import json
import subprocess

from .check import check
from .paths import BUILD


def read(verb, text):
    """What a verb has printed, parsed. What its schema does not allow fails the scenario."""
    done = subprocess.run([BUILD / "check-json", verb], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    check(done.returncode == 0, f"`nvhv {verb} --json` is not what its schema says: {done.stdout}{text}")
    return json.loads(text)
