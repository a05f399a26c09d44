import pytest

from whetstone.audit.audit import audit
from whetstone.audit.rules.parameters import Shape, parameter_counts

TABLE = """
| Setting | Value |
|--|--|
| Hidden size | 256 |
| Layers | 2 |
| Heads | 4 |
| Feed-forward size | 1,024 |
| Vocabulary size | 2,048 |
| Context length | 128 |
"""

_POSITIONS = "plain feed-forward of 3,072, tied head, 1,024 learned positions"


def rules(text: str) -> list[str]:
    return [finding.rule for finding in audit(text).findings]


@pytest.mark.parametrize(
    ("shape", "reading", "count"),
    [
        (Shape(4096, 32, 32000, 32, 32, 11008), "gated feed-forward of 11,008, untied head", 6_738_415_616),
        (Shape(2048, 22, 32000, 32, 4, 5632), "gated feed-forward of 5,632, untied head", 1_100_048_384),
        (Shape(768, 12, 50257, 12, 12, 3072, 1024), _POSITIONS, 124_439_808),
    ],
    ids=["Llama 2 7B", "TinyLlama", "GPT-2"],
)  # fmt: skip
def test_known_models_to_the_last_parameter(shape: Shape, reading: str, count: int) -> None:
    assert parameter_counts(shape)[reading] == count


@pytest.mark.parametrize(
    "text",
    [
        TABLE + "| Total parameters | 2.8M |\n",
        TABLE + "\nThe model has 2.8 million parameters.",
        "Hidden size 256, 2 layers, a vocabulary of 2,048 and ffn size 1024: 2.8M parameters.",
        '```json\n{"hidden_size": 768, "num_hidden_layers": 12, "vocab_size": 50257,\n"intermediate_size": 3072}\n```\n'
        "It has 350M parameters.",
        "| Model | Dim | Layers | Vocabulary | FFN | Params |\n|--|--|--|--|--|--|\n"
        "| Small | 256 | 2 | 2048 | 1024 | 2.8M |",
    ],
)
def test_counts_outside_all_readings(text: str) -> None:
    assert rules(text) == ["parameters-against-shape"]


@pytest.mark.parametrize(
    "text",
    [
        TABLE + "| Total parameters | 2,137,600 |\n",
        TABLE + "| Total parameters | 2.1M |\n",
        TABLE + "| Parameters | ~2.6M |\n",
        TABLE + "| Trainable parameters (LoRA) | 24,576 |\n",
        TABLE + "\n~2.1M parameters against 7B parameters of the teacher.",
        TABLE + "\n## Others\n\nPhi-2 has 2.7B parameters.",
        "# Mixture of experts\n" + TABLE + "| Total parameters | 9M |\n",
        TABLE.replace("| Layers | 2 |", "| Layers | 2 |\n| Layers | 4 |") + "| Total parameters | 9M |\n",
        TABLE.replace("| Feed-forward size | 1,024 |\n", "") + "| Total parameters | 2.8M |\n",
        "12 layers, hidden size 768, 110M parameters.",
        "GPT-2 XL has 1.5B parameters, 48 layers, hidden size 1600, a vocabulary of 50,257.",
        '```json\n{"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,\n'
        '"intermediate_size": 14336, "vocab_size": 128256}\n```\nAn 8B model: 8.03B parameters.',
        "```python\nmodel = Model(hidden_size=256, layers=2, vocab_size=2048, d_ff=1024)\n```\nIt has 9M parameters.",
    ],
)
def test_near_misses(text: str) -> None:
    assert rules(text) == []
