#!/usr/bin/env python3
"""Whether every link of the documentation leads somewhere: in the book that mdBook has built, and in the Markdown that
a forge shows. `check_book.py BOOK [--external]`; exit code 1 and a line for each link that does not.

Checked are files and anchors. Addresses of other sites are counted, or listed with `--external`, and never asked.
"""

import argparse
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
CODE = re.compile(r"^ *```.*?^ *```[^\n]*$", re.MULTILINE | re.DOTALL)
CODE_IN_LINE = re.compile(r"`(?:[^`\n]|\n(?!\n))+`")
LINK = re.compile(r"\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


class Page:
    """Where a page's links lead, and which places of it a link may name."""

    def __init__(self):
        self.links = []
        self.anchors = {""}


class HtmlPage(HTMLParser, Page):
    def __init__(self, text):
        HTMLParser.__init__(self)
        Page.__init__(self)
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            # A <link> to a style or an icon is mdBook's own business, but must be there, too.
            elif name in ("href", "src") and value:
                self.links.append(value)


class MarkdownPage(Page):
    def __init__(self, text):
        super().__init__()
        text = CODE.sub("", text)
        for heading in HEADING.findall(text):
            self.anchors.add(self.anchor(heading))
        self.links = LINK.findall(CODE_IN_LINE.sub("code", text))

    def anchor(self, heading):
        """As GitHub and its like make it: words in lower case, joined by hyphens; the second of a name ends in -1."""
        words = re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", heading).lower()
        first = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        anchor, n = first, 0
        while anchor in self.anchors:
            n += 1
            anchor = f"{first}-{n}"
        return anchor


def dead(pages):
    """A line for each link between files that leads nowhere."""
    for path, page in sorted(pages.items()):
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = Path(os.path.normpath(path.parent / unquote(address.path))) if address.path else path
            if not target.exists():
                yield f"{os.path.relpath(path, ROOT)}: {link}: there is no such file"
            elif address.fragment and target in pages and unquote(address.fragment) not in pages[target].anchors:
                yield f"{os.path.relpath(path, ROOT)}: {link}: the page has no such place"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(".")[0] + ".")
    parser.add_argument("book", type=Path, help="the folder that mdBook wrote")
    parser.add_argument("--external", action="store_true", help="list the addresses of other sites")
    options = parser.parse_args()
    book = options.book.resolve()
    built = {path: HtmlPage(path.read_text()) for path in book.rglob("*.html")}
    sources = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tools/*.md")]
    written = {path: MarkdownPage(path.read_text()) for path in sources}
    if len(built) < 10 or len(written) < 10:
        sys.exit(f"hardly any page was found in {book} and {ROOT}")
    # mdBook's page for what is not there stands wherever the reader was, and its links with it.
    built.pop(book / "404.html", None)
    lines = [*dead(built), *dead(written)]
    links = [link for page in [*built.values(), *written.values()] for link in page.links]
    external = sorted({link for link in links if urlsplit(link).scheme in ("http", "https")})
    if options.external:
        print("\n".join(external))
    if lines:
        sys.exit("\n".join(lines))
    counts = f"{len(links)} links of {len(built)} pages of the book and {len(written)} of Markdown"
    print(f"{counts}: all lead somewhere; {len(external)} addresses of other sites were not asked")


if __name__ == "__main__":
    main()
