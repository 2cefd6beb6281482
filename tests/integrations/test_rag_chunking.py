"""How documents are cut: always alike, into stretches of their own bytes, at headings, blocks and sentences."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprod.errors import UsageError
from reprod.integrations.rag.chunking import Chunker

GUIDE = """---
title: front matter
---
# Guide

Before you begin, read this.

## Install

Run pip.

```sh
# not a heading
pip install reprod
```

Underlined
----------

The last words. ## not a heading either
"""

#: What documents are made of.
LINES = [
    "# Title\n",
    "## Deeper ##\n",
    "#none\n",
    "\n\n",
    "\r\n",
    "```\n",
    "~~~~\n",
    "===\n",
    "---\n",
    "| a | b. c |\n",
]
#: What is hard to cut: marks that combine, joined emoji, no blanks, and nothing but blanks.
WORDS = [
    "A sentence. ",
    "ünïcödé! ",
    "e\u0301" * 30,
    "👩\u200d🔬" * 9,
    "漢字仮名。" * 9,
    "x" * 130,
    "\ufeff",
    "    ",
    "\t",
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([*LINES, *WORDS]), max_size=40).map("".join))
def test_chunks_are_stretches_of_the_documents_bytes_and_lose_no_word(text: str) -> None:
    """Each chunk's text is the bytes that it names; together they have every word; none is longer than it may be."""
    data, chunker = text.encode(), Chunker(size=100, overlap=30)
    chunks = chunker.split(text)
    covered = bytearray(len(data))
    for chunk in chunks:
        assert data[chunk.start : chunk.end].decode() == chunk.text
        assert 0 < len(chunk.text) <= 130
        covered[chunk.start : chunk.end] = b"\1" * (chunk.end - chunk.start)
    left = bytes(byte for byte, taken in zip(data, covered, strict=True) if not taken).decode()
    assert not any(character.isalnum() for character in left)
    assert [chunk.start for chunk in chunks] == sorted(chunk.start for chunk in chunks)
    assert chunks == Chunker(size=100, overlap=30).split(text)


def test_a_heading_begins_a_chunk_and_code_has_none() -> None:
    """Each section is a chunk with its titles; ``#`` in a code block, or within a line, is no heading."""
    found = [(chunk.heading, chunk.text.splitlines()[0]) for chunk in Chunker().split(GUIDE)]
    assert found == [
        ("", "---"),
        ("Guide", "# Guide"),
        ("Guide > Install", "## Install"),
        ("Guide > Underlined", "Underlined"),
    ]
    install = Chunker().split(GUIDE)[2]
    assert install.text.endswith("```")
    assert install.passage.startswith("Guide > Install\n\n## Install")


def test_a_long_section_goes_on_with_the_end_of_the_chunk_before() -> None:
    """What does not fit is cut after a sentence, and the next chunk repeats the last ones, under the same titles."""
    text = "# Long\n\n" + " ".join(f"This is sentence number {i}." for i in range(40))
    chunks = Chunker(size=200, overlap=60).split(text)
    assert len(chunks) > 4
    for before, after in pairwise(chunks):
        assert before.text.endswith(".")
        assert after.text.startswith("This")
        assert after.start < before.end
        assert after.heading == "Long"


def test_a_long_table_is_cut_between_its_lines() -> None:
    """A row with sentences in it stays whole."""
    rows = [f"| key{i} | Says something. Then more. |" for i in range(30)]
    for chunk in Chunker(size=200, overlap=0).split("\n".join(rows)):
        assert set(chunk.text.splitlines()) <= set(rows)


def test_titles_alone_are_no_chunk() -> None:
    """Titles go with what follows them, also where that fills a chunk by itself."""
    (first, *_) = Chunker(size=100, overlap=30).split("# One\n\n## Two\n\n" + "word " * 19)
    assert first.text.startswith("# One")
    assert first.text.endswith("word")
    assert first.heading == "One > Two"


def test_a_character_is_never_cut_from_its_marks() -> None:
    """Neither combining marks nor joined emoji are torn apart, even where there is no other place to cut."""
    for unit in ("e\u0301", "👩\u200d🔬"):
        for chunk in Chunker(size=101, overlap=0).split("x" + unit * 200):
            assert chunk.text.removeprefix("x").replace(unit, "") == ""


def test_a_changed_sentence_leaves_the_other_passages_alone() -> None:
    """The passages of other sections keep their digests, so they are not embedded again."""
    before = {chunk.digest for chunk in Chunker().split(GUIDE)}
    after = {chunk.digest for chunk in Chunker().split(GUIDE.replace("Run pip.", "Run uv."))}
    assert len(before & after) == len(before) - 1


@pytest.mark.parametrize("line", ["# " + " " * 200_000 + "#x", "." + ")" * 200_000, "`" * 200_000, "\n \t" * 60_000])
def test_no_line_takes_for_ever(line: str) -> None:
    """What a careless expression would try in every way is cut in time that grows with its length."""
    Chunker().split(line + "\nend")


def test_sizes_that_cannot_be_are_refused() -> None:
    """An overlap as large as the chunk would never come to an end."""
    for size, overlap in ((100, 100), (100, -1), (10, 0)):
        with pytest.raises(UsageError, match="cannot be"):
            Chunker(size, overlap)
