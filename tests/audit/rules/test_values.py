import pytest

from whetstone.audit.audit import audit


def rules(text: str) -> list[str]:
    return [finding.rule for finding in audit(text, widest_points=100).findings]


@pytest.mark.parametrize(
    "text",
    [
        "# Summary\nExact match reached 74 %.\n# Results\n- Exact match: 61 %\n",
        "# Results\n| Model | Accuracy |\n|--|--|\n| base | 45 % |\n| tuned | 61 % |\n# Conclusion\nAccuracy: 64 %.\n",
        "## Abstract\n- Learning rate: 2e-4\n## Training\n- Learning rate: 5e-5\n",
        "## Overview\n4,810 training examples\n## Data\n- Training examples: 4,809\n",
    ],
)
def test_summaries_that_say_something_else(text: str) -> None:
    assert rules(text) == ["two-values"]


@pytest.mark.parametrize(
    "text",
    [
        "# Summary\nExact match reached 61 %.\n# Results\n- Exact match: 60.8 %\n",
        "# Summary\nAccuracy: 61 %.\n# Results\n| Model | Accuracy |\n|--|--|\n| base | 45 % |\n| tuned | 61 % |\n",
        "# Summary\nAccuracy rose by 16 %.\n# Results\nAccuracy moved from 45 % to 61 %.\n",
        "# Summary\nTraining time: about 35 min.\n# Training\nTraining time: 34 min 40 s\n",
        "# Run A\nAccuracy: 61 %\n# Run B\nAccuracy: 45 %\n",
        "# Summary\nWe expect an accuracy of 80 %.\n# Results\nAccuracy: 61 %\n",
        "# Summary\nThe authors report an accuracy of 80 %.\n# Results\nAccuracy: 61 %\n",
        "# Summary\nAccuracy: 0.61\n# Results\nAccuracy: 61 %\n",
    ],
)
def test_near_misses(text: str) -> None:
    assert rules(text) == []
