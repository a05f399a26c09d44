import pytest

from whetstone.audit.markdown import LINK, clean, read_markdown


def test_sections_know_the_headings_above() -> None:
    report = read_markdown("before\n# A\none\n## B\ntwo\n### C\n## D\nthree\n# E\n")
    assert [section.titles for section in report.sections] == [
        (), ("A",), ("A", "B"), ("A", "B", "C"), ("A", "D"), ("E",),
    ]  # fmt: skip
    assert report.sections[4].title == "A / D"


def test_sentences_keep_the_line_of_every_character() -> None:
    text = "First sentence goes on\nover two lines with 5 %. Second, e.g. Paris, is\nshort! Third\n"
    (section,) = read_markdown(text).sections
    first, second, third = section.sentences
    assert first.text == "First sentence goes on over two lines with 5 %."
    assert [first.line_at(first.text.index(word)) for word in ("First", "over", "5 %")] == [1, 2, 2]
    assert (second.text, second.line_at(0)) == ("Second, e.g. Paris, is short!", 2)
    assert [second.line_at(second.text.index(word)) for word in ("Paris", "short")] == [2, 3]
    assert (third.text, third.line_at(0)) == ("Third", 3)


def test_items_and_lines_that_begin_with_a_sign_are_sentences_of_their_own() -> None:
    text = "- one\n  goes on\n* two\n1. three\n- [x] four\n> - five\n✅ six\n✅ seven\n"
    (section,) = read_markdown(text).sections
    assert [one.text for one in section.sentences] == [
        "one goes on", "two", "three", "four", "five", "✅ six", "✅ seven",
    ]  # fmt: skip
    assert [one.line_at(0) for one in section.sentences] == [1, 3, 4, 5, 6, 7, 8]


def test_cells_know_their_heading_and_label() -> None:
    text = "text\n\n| Metric | Base | **Tuned** |\n| :-- | --: | :-: |\n| EM | 4 | 5 |\n| a \\| b | 6 |\nend"
    (section,) = read_markdown(text).sections
    (table,) = section.tables
    assert table.headings == ("Metric", "Base", "Tuned")
    assert [(row.line, row.text) for row in table.rows] == [(5, "EM | 4 | 5"), (6, "a | b | 6")]
    assert (table.rows[0].cells[2].heading, table.rows[0].cells[2].label) == ("Tuned", "EM")
    assert [one.text for one in section.sentences] == ["text", "end"]


def test_code_ends_at_its_own_fence() -> None:
    text = "````json\n```\n70 % of 15 prompts\n````\nafter\n~~~\nnever closed 70 %\n"
    (section,) = read_markdown(text).sections
    assert [(code.language, code.line) for code in section.codes] == [("json", 2), ("", 7)]
    assert [one.text for one in section.sentences] == ["after"]


def test_headers_and_comments_are_not_read() -> None:
    text = "---\nmetric: 71 % of 15 prompts\n---\n<!-- 3 + 4 = 8\n5 + 5 = 9 -->\nseen <!-- not seen --> too\n"
    (section,) = read_markdown(text).sections
    assert [one.text.split() for one in section.sentences] == [["seen", "too"]]


@pytest.mark.parametrize(
    ("marked", "seen"),
    [
        ("**70**% and `7/10`", "70% and 7/10"),
        ("[a paper](https://x.org/y?n=3)", f"a paper{LINK}"),
        ("![chart 5 %](a.png) text", "text"),
        ("a<br/>b &lt; c", "a ; b < c"),
        ("5 * 3 and 5 -> 3 and $5 \\times 3$", "5 × 3 and 5 → 3 and $5 × 3$"),
        ("snake_case_name _soft_ ~~old~~", "snake_case_name soft old"),
        ("−5 to 10\u202f%", "-5 to 10 %"),
    ],
)
def test_markup_is_stripped(marked: str, seen: str) -> None:
    assert clean(marked) == seen
