# SPDX-License-Identifier: GPL-2.0
"""What an operator may be told that something was refused or is wrong, as it stands in the sources.

That is every text of three words or more, and what is given to `pr_err!`, `pr_warn!` and `pr_emerg!` even if it is
shorter; but for what the log says when all is well (`pr_info!`), the help and the tables of the command, names of
devices, and what the compiler is told. A text is given as docs/messages.md has it: `...` for what differs from case to case, without the name of the
VM, or of what else it is about, that stands before it.
"""

import re

LITERAL = re.compile(r'"((?:[^"\\]|\\.|\\\n)*)"')
LOG = re.compile(r"\bpr_(?:err|warn|emerg)!\s*\(\s*" + LITERAL.pattern)
ASIDE = re.compile(r'#\[[^\]]*\]|\bpr_info!\s*\(\s*"(?:[^"\\]|\\.|\\\n)*"|\.expect\("[^"]*"\)|"(?:--|\\r|\\x|\{time)[^"]*"')
PLACE = re.compile(r"\{[^{}]*\}")
NAMES = {"src/nvhv.rs", "src/shadow/class.rs", "src/shadow/memory.rs"}
TABLES = {f"tools/nvhv/src/{name}.rs" for name in ("cli", "check", "devices", "generate", "metrics", "show")}


def read(top):
    """Text to the file that has it."""
    found = {}
    for file in [*sorted((top / "src").rglob("*.rs")), *sorted((top / "tools" / "nvhv" / "src").rglob("*.rs"))]:
        name = str(file.relative_to(top))
        if name in NAMES | TABLES or name.startswith("src/shadow/legacy/"):
            continue
        source = re.sub(r"^\s*//.*$", "", file.read_text().split("#[cfg(test)]")[0], flags=re.M)
        for least, pattern, text in ((1, LOG, source), (3, LITERAL, ASIDE.sub("", source))):
            for literal in pattern.findall(text):
                said = plain(literal)
                if not re.match(r"[/a-z]+/", said) and len(re.findall(r"[A-Za-z][\w-]*", said)) >= least:
                    found.setdefault(said, name)
    return found


def plain(literal):
    """A literal of Rust as it is read: with `...` for what is filled in, and without a name in front."""
    text = re.sub(r"\\\n\s*", "", literal).replace("\\n", "")
    text = re.sub(r"\.{4,}", "...", PLACE.sub("...", text)).strip(" ,;")
    return re.sub(r"^(nvhv: )?(\.\.\.: )+", "", text)
