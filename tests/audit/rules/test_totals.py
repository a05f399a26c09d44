import pytest

from whetstone.audit.audit import audit


def found(text: str) -> list[tuple[str, str]]:
    return [(finding.rule, finding.arithmetic) for finding in audit(text).findings]


def table(*rows: str, heading: str = "Pairs") -> str:
    return "\n".join([f"| Source | {heading} |", "|--|--|", *(f"| {row} |" for row in rows)])


@pytest.mark.parametrize(
    ("text", "rule", "arithmetic"),
    [
        ("3 + 4 = 8", "equation", "3 + 4 = 7, not 8"),
        ("5 prompts x 3 samples = 18 outputs", "equation", "5 × 3 = 15, not 18"),
        ("1.5 + 1.5 = 4.0", "equation", "1.5 + 1.5 = 3, not 4.0"),
        ("64 x 12 = 3k", "equation", "64 × 12 = 768, not 3k"),
        (
            "4,809 pairs (3,500 train, 400 validation, 400 test)",
            "parts-against-total",
            "3,500 + 400 + 400 = 4,300, not 4,809 (-509)",
        ),
        ("1,000 rows: 800 train, 150 test", "parts-against-total", "800 + 150 = 950, not 1,000 (-50)"),
        ("Total: 500; train: 400, test: 150", "parts-against-total", "400 + 150 = 550, not 500 (+50)"),
        ("We used a 70/20/20 split.", "parts-against-total", "70 + 20 + 20 = 110, not 100"),
        (
            "80 % train, 10 % validation and 15 % test",
            "parts-against-total",
            "80 + 10 + 15 = 105 %, not 100 %",
        ),
        (table("A | 5", "B | 6", "**Total** | 12"), "parts-against-total", "5 + 6 = 11, not 12 (+1)"),
    ],
)
def test_parts_that_do_not_add_up(text: str, rule: str, arithmetic: str) -> None:
    assert found(text) == [(rule, arithmetic)]


@pytest.mark.parametrize(
    "text",
    [
        "3 + 4 = 7, 64 x 12 = 768, 1.5 + 1.52 = 3.02, 4 x 4 = 16",
        "2048 x 32 x 4 ≈ 260k",
        "1.2M + 0.9M are 2.1M",
        "0.3 x 7 = 2.1",
        "a = 1 + b = 2; 2^10 = 1024; x + 5 = 9; 1 - 3 + 5 = 3",
        "5 epochs x 1,000 examples / 16 = 312 steps",
        "256 x 4 bytes = 1 KB",
        "`3 + 4 = 7`",
        "```\n3 + 4 = 8\n```",
        "4,300 pairs (3,500 train, 400 validation, 400 test)",
        "4,809 pairs, of which 509 were dropped: 3,500 train, 400 validation, 400 test",
        "5,000 examples, 4,000 for training and 500 for test",
        "Of 5,000 examples we used 4,000 train and 500 test.",
        "Test set: 500 sentences. Training: 4,000 sentences.",
        "3,500 training examples and 400 test examples",
        "An 80/10/10 split, a 33/33/33 split, a 90/10 split, a 50/50 mix",
        table("A | 5", "B | 6", "Total | 11"),
        table("A | 5", "B | 6", "Subtotal | 11", "C | 4", "Total | 15"),
        table("A | 5", "B | 6", "Total | 12", heading="Mean words"),
        table("A | 5", "B | 6", "Total | 10+"),
        table("A | 5", "B | -", "Total | 12"),
        table("A | 5.5", "B | 6.5", "Total | 13"),
        table("Models trained | 10", "Failed | 0", "Total models | 12"),
        table("A | 5", "B | 6", "Total | 8", heading="Unique pairs"),
    ],
)
def test_near_misses(text: str) -> None:
    assert found(text) == []
