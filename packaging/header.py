"""Reads include/mux.h, as cbindgen writes it, for what is generated or checked from it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
HEADER = CHECKOUT / "include" / "mux.h"
DOC = r"/\*\*((?:(?!\*/).)*)\*/\n"


@dataclass
class Item:
    """One declaration: its name, its text without comments, and the comment before it."""

    name: str
    text: str
    doc: str


@dataclass
class Header:
    conventions: str = ""
    macros: list[Item] = field(default_factory=list)
    # Each with the comments of its members in the text.
    types: list[Item] = field(default_factory=list)
    functions: list[Item] = field(default_factory=list)

    def names(self):
        """What a library must export."""
        return sorted(item.name for item in self.functions)


def read(path=HEADER):
    text = path.read_text()
    opening, types, functions = re.fullmatch(
        r'(.*?)#include <stdint\.h>\n(.*)extern "C" \{\n#endif.*?\n(.*)#ifdef __cplusplus\n.*', text, re.S
    ).groups()
    header = Header(conventions=comment(re.match(r"/\*.*?\*/", opening, re.S).group()))
    for doc, line in re.findall(r"/\*\*(.*?)\*/\n#define ([^\n]*)", types, re.S):
        header.macros.append(Item(line.split()[0], f"#define {line}", comment(doc)))
    for doc, body in re.findall(rf"{DOC}(typedef \w+ \w+ \{{\n.*?\n\}} \w+;|typedef [^{{;]*;)$", types, re.S | re.M):
        name = re.search(r"\(\*(mux_\w+)\)|(mux_\w+);$", body)
        header.types.append(Item(name.group(1) or name.group(2), body, comment(doc)))
    for doc, prototype in re.findall(rf"{DOC}([^/#]*?;)$", functions, re.S | re.M):
        flat = " ".join(prototype.split())
        header.functions.append(Item(re.search(r"\b(mux_\w+)\(", flat).group(1), flat, comment(doc)))
    declared = set(re.findall(r"\b(mux_[a-z0-9_]+)\(", re.sub(r"/\*.*?\*/", "", functions, flags=re.S)))
    if unread := declared ^ set(header.names()):
        raise SystemExit(f"{path}: cannot read the declarations of {sorted(unread)}; each needs a comment before it")
    return header


def comment(text):
    """A comment's text: its lines without the stars."""
    lines = [re.sub(r"^\s*(/\*+|\*+/?)? ?", "", line).rstrip() for line in text.replace("*/", "").splitlines()]
    return "\n".join(lines).strip()
