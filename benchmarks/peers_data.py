"""What the training peers learn: a Llama of 15 million random weights, and three data sets as token ids.

Every contestant gets the same ids, so none can win by rendering or cutting text differently. A data set is a JSON file
of pairs, each ``[source, prompt ids, answer ids]``; the prompt is a line, the answer ends with the end token.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from whetstone.data.grammar.corpus import corrections, split_cells
from whetstone.models.scratch import train_tokenizer

__all__ = ["DATA_SETS", "FOUR_REFERENCES", "Pair", "read_pairs", "write_model_and_data"]

FOUR_REFERENCES = "four references"
SHARED_INSTRUCTION = "shared instruction"
NOTHING_SHARED = "nothing shared"
DATA_SETS = (FOUR_REFERENCES, SHARED_INSTRUCTION, NOTHING_SHARED)

HELD_OUT_SOURCES = 32
VOCABULARY = 32_000
INSTRUCTION_TOKENS = 60
INSTRUCTION = (
    "You help people who learn English. Read the sentence at the end of this text with care. It may hold errors of "
    "grammar, of spelling, of word order or of punctuation. Write the sentence again without them, change nothing "
    "that is right, keep what the writer wanted to say, and answer with the corrected sentence alone, on a line of "
    "its own, without any words before it or after it. The sentence that you have to correct is the following one:"
)

Corrections = Sequence[tuple[str, Sequence[str]]]
"""Sentences, each with its right forms."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and one answer; pairs of one source have the same prompt."""

    source: str
    prompt: list[int]
    answer: list[int]


def read_pairs(folder: Path, data_set: str) -> tuple[list[Pair], list[Pair]]:
    """The pairs to learn, and the pairs held out."""
    parts = json.loads((folder / f"{data_set}.json").read_text(encoding="utf-8"))
    learned, held_out = ([Pair(*pair) for pair in part] for part in parts)
    return learned, held_out


def write_model_and_data(folder: Path, data: Path | None, pairs: int) -> dict[str, dict[str, float]]:
    """Writes the model (``model/``) and one file for each data set.

    Args:
        folder: Where to.
        data: A folder with ``*.src`` and ``*.ref0`` to ``*.ref3``, a sentence a line; the embedded generator without.
        pairs: At most so many in each data set.

    Returns:
        Of each data set its pairs and the mean tokens of a prompt and of an answer.
    """
    found = _corrections(data, pairs)
    texts = [INSTRUCTION, *(text for source, references in found for text in (source, *references))]
    tokenizer = train_tokenizer(texts, VOCABULARY)
    _write_model(folder / "model", tokenizer)
    made = {
        FOUR_REFERENCES: _with_every_reference(found, tokenizer),
        SHARED_INSTRUCTION: _with_instruction(found, tokenizer),
        NOTHING_SHARED: _unrelated(found, tokenizer),
    }
    return {name: _write_data_set(folder / f"{name}.json", list(every), pairs) for name, every in made.items()}


def _corrections(data: Path | None, pairs: int) -> Corrections:
    if data is None:
        # About one embedded learner sentence in 130 has four corrections, and they differ in few words.
        drawn = corrections(split_cells(0).train, min(130 * (max(8, 3 * pairs // 8)), 40_000), seed=0)
        return [(item.source, item.references) for item in drawn]
    source = next(data.glob("*.src"))
    files = [source, *(source.with_suffix(f".ref{number}") for number in range(4))]
    lines = zip(*(file.read_text(encoding="utf-8").splitlines() for file in files), strict=True)
    return [(first.strip(), [other.strip() for other in others]) for first, *others in lines]


def _with_every_reference(found: Corrections, tokenizer: PreTrainedTokenizerFast) -> Iterator[Pair]:
    for source, references in found:
        for reference in references if len(references) == 4 else ():
            yield _pair(source, tokenizer.encode(f"Correct: {source}\n"), reference, tokenizer)


def _with_instruction(found: Corrections, tokenizer: PreTrainedTokenizerFast) -> Iterator[Pair]:
    instruction = tokenizer.encode(INSTRUCTION)[:INSTRUCTION_TOKENS]
    for source, references in found:
        yield _pair(source, instruction + tokenizer.encode(f" {source}\n"), references[0], tokenizer)


def _unrelated(found: Corrections, tokenizer: PreTrainedTokenizerFast) -> Iterator[Pair]:
    """Words drawn at random, as many as the sentences have."""
    draw = random.Random(0)
    words = sorted({word for source, _ in found for word in source.split()})
    for source, references in found:
        for reference in references:
            prompt, answer = (" ".join(draw.choices(words, k=len(text.split()))) for text in (source, reference))
            yield _pair(prompt, tokenizer.encode(f"{prompt}\n"), answer, tokenizer)


def _pair(source: str, prompt: list[int], answer: str, tokenizer: PreTrainedTokenizerFast) -> Pair:
    return Pair(source, prompt, [*tokenizer.encode(answer), int(tokenizer.eos_token_id)])


def _write_data_set(path: Path, made: Sequence[Pair], pairs: int) -> dict[str, float]:
    """Holds out the last sources; what is learned keeps its order."""
    sources = list(dict.fromkeys(pair.source for pair in made))
    held_out = set(sources[-min(HELD_OUT_SOURCES, len(sources) // 4) :])
    learned = [pair for pair in made if pair.source not in held_out][:pairs]
    rows = [
        [(pair.source, pair.prompt, pair.answer) for pair in part]
        for part in (learned, [pair for pair in made if pair.source in held_out])
    ]
    path.write_text(json.dumps(rows), encoding="utf-8")
    count = len(learned)
    return {
        "pairs": count,
        "prompt_tokens": sum(len(pair.prompt) for pair in learned) / count,
        "answer_tokens": sum(len(pair.answer) for pair in learned) / count,
    }


def _write_model(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Random weights; the embedding has more rows than the tokenizer has tokens, as large as real ones are."""
    config = AutoConfig.for_model(
        "llama",
        hidden_size=288,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        intermediate_size=768,
        vocab_size=VOCABULARY,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
