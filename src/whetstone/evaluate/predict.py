"""Texts that are predicted, not answered: how likely each arm finds them.

The rows hold sums (nats, tokens, bytes), so that any mean can be taken of them.
"""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from whetstone.evaluate.collect import Prompt
from whetstone.evaluate.sample import Sample
from whetstone.files import read_jsonl, write_jsonl
from whetstone.train.retention import measure_texts

__all__ = ["predict"]


def predict(
    arm: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    judgement: str,
    folder: Path,
) -> None:
    """Writes how likely an arm finds each text, unless that is on disk already.

    Args:
        arm: Its name.
        model: What predicts.
        tokenizer: Of the model.
        prompts: The texts, as their examples' references.
        judgement: Fingerprint of the frozen judgement, written into every row.
        folder: Where ``<arm>.jsonl`` is written, in one piece.
    """
    path = folder / f"{arm}.jsonl"
    expected = [(prompt.example.id, judgement) for prompt in prompts]
    if path.exists() and [(row.get("example"), row.get("judgement")) for row in read_jsonl(path)] == expected:
        return
    losses = measure_texts(model, tokenizer, [prompt.example.references[0] for prompt in prompts])
    rows = [
        Sample(
            example=prompt.example.id,
            arm=arm,
            judgement=judgement,
            prompt_hash=prompt.hash,
            prompt_tokens=len(prompt.token_ids),
            text="",
            token_ids=(),
            finish_reason="stop",
            measured={"nll_nats": float(nll), "nll_tokens": int(tokens), "text_bytes": int(length)},
        )
        for prompt, nll, tokens, length in zip(prompts, losses.nll, losses.tokens, losses.bytes, strict=True)
    ]
    write_jsonl(path, (row.as_row() for row in rows))
