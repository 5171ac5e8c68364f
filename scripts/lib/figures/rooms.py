# SPDX-License-Identifier: GPL-2.0
"""The rooms of src/ as the sources tell of them: what each is for, and which others it uses."""

import re

COMMENT = re.compile(r"//.*")
PATH = re.compile(r"\bcrate::(\{|[a-z_]+)")


def read(src):
    """Room to (purpose, names of the rooms that it uses), for all that `nvhv.rs` declares."""
    names = re.findall(r"^(?:pub )?mod ([a-z_]+);", (src / "nvhv.rs").read_text(), re.M)
    rooms = {}
    for name in names:
        head = src / name / "mod.rs"
        files = sorted((src / name).rglob("*.rs")) if head.exists() else [head := src / f"{name}.rs"]
        uses = {used for file in files for used in crate_paths(file.read_text())}
        rooms[name] = purpose(head.read_text()), sorted(uses & set(names) - {name})
    return rooms


def purpose(source):
    """The first sentence of a file's comment; what stands in parentheses, and marks, are left out."""
    paragraph = re.search(r"^//!(.*(?:\n//! .*)*)", source, re.M)[1].replace("\n//!", "")
    text = re.sub(r" \([^)]*\)", "", paragraph).replace("`", "").strip()
    return re.match(r".*?[.](?= [A-Z]|$)", text)[0].removesuffix(".")


def crate_paths(source):
    """The first part of each `crate::` path, also of those in braces."""
    source = COMMENT.sub("", source)
    for match in PATH.finditer(source):
        if match[1] != "{":
            yield match[1]
            continue
        depth, item = 1, ""
        for letter in source[match.end():]:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if depth == 0 or (depth == 1 and letter == ","):
                yield re.match(r"\s*([a-z_]*)", item)[1]
                item = ""
            else:
                item += letter
            if depth == 0:
                break
