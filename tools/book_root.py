#!/usr/bin/env python3
"""A preprocessor of mdBook (book.toml), for what the pages are besides a book: files of a repository.

SUMMARY.md names pages outside of docs/ as a forge needs them (`../README.md`); here they move into the book, and the
links between them and the others with them. A link to a file that is no page (`../configs/toy.toml`) leads to the
repository where `output.html.git-repository-url` says where that is, and is plain text elsewhere. A page of docs/ that
SUMMARY.md does not name, and a link to a file that is not there, end the build.
"""

import json
import os
import posixpath
import re
import sys
from pathlib import Path

# Fenced code, code in a line, the target of a link or a picture: whatever begins first.
CODE_OR_TARGET = re.compile(r"(^ *```.*?^ *```|`(?:[^`\n]|\n(?!\n))+`)|\]\(([^()\s]+)\)", re.MULTILINE | re.DOTALL)
OUTSIDE = "outside:"
OUTSIDE_LINK = re.compile(r"\[([^\[\]]*)\]\(" + OUTSIDE + r"[^()\s]+\)")


def chapters(items):
    """All chapters, drafts left out."""
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter and chapter["source_path"]:
            yield chapter
            yield from chapters(chapter["sub_items"])


class Pages:
    """The book's pages by their paths in the repository, and what links become in it."""

    def __init__(self, root, source, repository, items):
        self.root = root
        self.source = source
        self.repository = repository
        self.chapters = {self.in_repository(c["source_path"]): c for c in chapters(items)}
        self.wrong = []

    def in_repository(self, source_path):
        return posixpath.normpath(posixpath.join(self.source, source_path))

    def in_book(self, path):
        """Where a page or a file of docs/ is in the book; None where it is not."""
        if path == "README.md":
            return "index.md"
        if path.startswith(self.source + "/"):
            return path[len(self.source) + 1 :]
        # tools/README.md would be the index of a folder.
        return path.replace("/README.md", ".md") if path in self.chapters else None

    def move(self):
        for path, chapter in self.chapters.items():
            chapter["content"] = self.rewritten(path, chapter["content"])
            chapter["path"] = self.in_book(path)
        pages = {path.relative_to(self.root).as_posix() for path in (self.root / self.source).rglob("*.md")}
        for page in sorted(pages - set(self.chapters) - {f"{self.source}/SUMMARY.md"}):
            self.wrong.append(f"{page}: SUMMARY.md does not name it")

    def rewritten(self, page, content):
        def target(match):
            code, link = match.groups()
            return code if code else f"]({self.target(page, link)})"

        moved = CODE_OR_TARGET.sub(target, content)
        plain = OUTSIDE_LINK.sub(r"\1", moved)
        if "](" + OUTSIDE in plain:
            self.wrong.append(f"{page}: a link to a file outside of the book has brackets or a picture in its text")
        return plain

    def target(self, page, link):
        path, anchor = link.partition("#")[::2]
        if not path or re.match(r"[a-z]+:", path):
            return link
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
        if not (self.root / path).exists():
            self.wrong.append(f"{page}: {link} leads to {path}, which is not there")
        anchor = f"#{anchor}" if anchor else ""
        inside = self.in_book(path)
        if inside is not None:
            start = posixpath.dirname(self.in_book(page)) or "."
            return posixpath.relpath(inside, start) + anchor
        if self.repository:
            return f"{self.repository}/blob/HEAD/{path}{anchor}"
        return OUTSIDE + path


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    context, book = json.load(sys.stdin)
    html = context["config"].get("output", {}).get("html", {})
    repository = html.get("git-repository-url", "").removesuffix("/")
    source = context["config"]["book"]["src"]
    pages = Pages(Path(os.path.abspath(context["root"])), source, repository, book["items"])
    pages.move()
    if pages.wrong:
        sys.exit("\n".join(pages.wrong))
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
