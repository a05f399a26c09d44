import pytest

from whetstone.report import format as written


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (written.share, 0.63449, "63.4%"),
        (written.points, 0.2221, "+22.2 points"),
        (written.points, -0.031, "−3.1 points"),
        (written.points, -0.0001, "0.0 points"),
        (written.bare_difference("share"), 0.1, "+10.0"),
        (written.difference("words"), -1.25, "−1.2 words"),
        (written.score("words"), 9.44, "9.4 words"),
        (written.bare_score("words"), 9.44, "9.4"),
        (written.level, 0.95, "95%"),
        (written.level, 0.999, "99.9%"),
        (written.p_value, 0.00009, "< 0.0001"),
        (written.p_value, 0.0123, "= 0.0123"),
        (written.count, 1234567, "1,234,567"),
        (written.rate, 12.34, "12.3"),
        (written.rate, 1234.5, "1,234"),
        (written.decimal, 0.5, "0.5000"),
        (written.decimal_difference, 0.03124, "+0.0312"),
        (written.decimal_difference, -0.5, "−0.5000"),
        (written.decimal_difference, -0.00001, "0.0000"),
        (written.tick, 0.2, "+20"),
        (written.tick, -0.025, "−2.5"),
        (written.tick, 0.0, "0"),
        (written.duration, 0.0844, "84 ms"),
        (written.duration, 0.9999, "1.0 s"),
        (written.duration, 59.97, "1 min 00 s"),
        (written.duration, 245.2, "4 min 05 s"),
        (written.duration, 7799, "2 h 10 min"),
        (written.byte_size, 2048, "2 KiB"),
        (written.byte_size, 512 * 1024**2, "512 MiB"),
        (written.byte_size, 1.5 * 1024**3, "1.5 GiB"),
    ],
)
def test_numbers(write: written.Write, value: float, text: str) -> None:
    assert write(value) == text


def test_a_sentence_keeps_its_numbers_together() -> None:
    text = written.sentence("copy-input: difference -1.3 points [-16.8 points, 2.0 points], adjusted p = 0.42, p < 0.1")
    assert text == (
        "copy-input: difference −1.3\u00a0points [−16.8\u00a0points, 2.0\u00a0points], "
        "adjusted p\u00a0=\u00a00.42, p\u00a0<\u00a00.1"
    )


def test_what_steers_a_terminal_is_replaced() -> None:
    assert written.printable("a\x1b[2Jb\u202ec\td") == "a\ufffd[2Jb\ufffdc\td"
    assert written.one_line("a\n\n b\x07") == "a b\ufffd"
    assert written.printable("naïve 日本語 🙂 العربية") == "naïve 日本語 🙂 العربية"
