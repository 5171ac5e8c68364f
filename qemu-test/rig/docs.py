# SPDX-License-Identifier: GPL-2.0
"""What the documents show, for scenarios that do it."""

import re

from .paths import TOP

COMMENT = re.compile(r"\s+# .*")


def commands(document, heading):
    """The commands of the first block behind a heading, a line each, without comments."""
    text = (TOP / document).read_text()
    behind = text[text.index(f"\n## {heading}\n"):]
    block = re.search(r"^```\w*\n(.*?)^```", behind, re.MULTILINE | re.DOTALL)[1]
    return [line for line in (COMMENT.sub("", line).strip() for line in block.splitlines()) if line]
