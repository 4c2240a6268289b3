"""Find the code blocks in README.md and in the pages of the documentation."""

from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from tests.conftest import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))


@dataclass(frozen=True)
class Block:
    """A fenced code block. `line` is the number of its first line in `page`."""

    page: Path
    line: int
    language: str
    content: str

    def __str__(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page):
    """Return the code blocks of a Markdown file. Blocks must be fenced and name a language."""
    found = []
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type == "code_block":
            raise AssertionError(f"{page}:{token.map[0] + 1} is indented. Use a fenced block.")
        if token.type == "fence":
            found.append(Block(page, token.map[0] + 1, token.info.partition(" ")[0], token.content))
    return found


def blocks_in(*languages):
    """Return the blocks of all pages in these languages."""
    return [block for page in PAGES for block in blocks(page) if block.language in languages]
