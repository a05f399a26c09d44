import pytest

from whetstone.audit.audit import audit


def rules(text: str) -> list[str]:
    return [finding.rule for finding in audit(text).findings]


@pytest.mark.parametrize(
    "text",
    [
        "Quality improved by 42 %.",
        "- **+65 % response quality** over the base model",
        "Code review comments are 42 % better.",
        "The new kernels give a 7x speed-up.",
        "| Metric | Base | Tuned | Improvement |\n|--|--|--|--|\n| Quality | Basic | Detailed | ⬆️ **+65%** |",
        "Throughput was 100 tokens/s.\n\n# Other\n\nIt is 42 % faster.",
    ],
)
def test_of_nothing(text: str) -> None:
    assert rules(text) == ["change-of-nothing"]


@pytest.mark.parametrize(
    "text",
    [
        "| Model | Latency |\n|--|--|\n| base | 2.22 s |\n| tuned | 0.58 s |\n\nThe tuned model is 3.8x faster.",
        "- Original: 2.2 s\n- Tuned: 0.58 s\n\nSavings: ~75 % per request, about 75 % less time.",
        "# Results\n\n| Metric | Full | LoRA |\n|--|--|--|\n| Weights | 66,955,010 | 739,586 |\n\n"
        "# Summary\n\nIt has 98.9 % fewer weights.",
        "Smith et al. report a 40 % improvement.",
        "[QLoRA](https://x.org) saves 75 % more memory, 75 % less.",
        "We expect a 2x speed-up.",
        "Target: 38 % speed-up.",
        "## Next steps\n\nQuantisation is 2x faster.",
        "Latency is 38 % lower (95 % interval 20-51 %).",
        "Use a 10 % higher learning rate.",
        "It was trained on 3x more data.",
        "The base is at 1.0x speed-up.",
        'It answered: "Our method is 42 % better."',
        "It is 100-1000x faster.",
        "In 70 % of cases the model answers.",
    ],
)
def test_near_misses(text: str) -> None:
    assert rules(text) == []
