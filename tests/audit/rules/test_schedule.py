import pytest

from whetstone.audit.audit import audit


def rules(text: str) -> list[str]:
    return [finding.rule for finding in audit(text).findings]


@pytest.mark.parametrize(
    "text",
    [
        "- Warmup steps: 100\n- Total steps: 63\n",
        "| Setting | Value |\n|--|--|\n| Warm-up steps | 50 |\n| Training steps | 50 |\n",
        "```yaml\nwarmup_steps: 100\nmax_steps: 63\n```\n",
        "We trained for 63 training steps with 100 warmup steps.",
        "- Training examples: 800\n- Epochs: 1\n- Batch size: 16\n- Total steps: 63\n",
    ],
)
def test_schedules_that_cannot_have_run(text: str) -> None:
    assert rules(text) == ["steps-against-schedule"]


@pytest.mark.parametrize(
    "text",
    [
        "- Warmup steps: 60\n- Total steps: 657\n",
        "- Warmup steps: 100\n- Total steps: 63\n- Total steps: 2,000\n",
        "- Warmup: 10 %\n- Total steps: 5\n",
        "- Training examples: 800\n- Epochs: 1\n- Batch size: 16\n- Total steps: 50\n",
        "- Training examples: 800\n- Epochs: 3\n- Batch size: 16\n- Total steps: 40\n",
        "- Training examples: 800, 3,200 training pairs\n- Epochs: 1\n- Batch size: 16\n- Total steps: 63\n",
        "- Epochs: 1\n- Batch size: 16\n- Total steps: 63\n",
        "```python\nfit(warmup_steps=10, max_steps=5)\n```\n",
    ],
)
def test_near_misses(text: str) -> None:
    assert rules(text) == []
