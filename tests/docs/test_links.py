"""What the pages point at exists, and the README stays short."""

from pathlib import Path

import pytest

from docs.pages import DOCS, README, ROOT, anchors, blocks, links

MARKDOWN = [README, *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    for link in links(page.read_text(encoding="utf-8")):
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        if heading:
            assert heading in anchors(target.read_text(encoding="utf-8")), link


def test_every_page_is_linked_from_somewhere():
    reached, fresh = set[Path](), {README}
    while fresh:
        reached |= fresh
        fresh = {target for page in fresh for target in _linked_pages(page)} - reached
    assert set(MARKDOWN) <= reached


def _linked_pages(page: Path) -> set[Path]:
    links_of = links(page.read_text(encoding="utf-8"))
    targets = [(page.parent / link.partition("#")[0]).resolve() for link in links_of]
    pages = [target / "README.md" if target.is_dir() else target for target in targets]
    return {target for target in pages if target.suffix == ".md" and target.exists()}


def test_the_readme_is_short_and_starts_with_a_program():
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") <= 120
    first = next(block for block in blocks(text) if block.language == "python")
    assert first.line + first.text.count("\n") <= 21, "the program ends by line 20"
