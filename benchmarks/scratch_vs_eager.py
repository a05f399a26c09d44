"""Pre-training the recipe scratch-cpu's decoder on a CPU: Whetstone, a plain loop, and what makes the loop faster.

Run as: .venv/bin/python benchmarks/scratch_vs_eager.py --text FILE

The decoder: vocabulary 2,048, dim 256, 4 heads, 2 layers, feed-forward 512, context 128; batches of 32 x 128 tokens,
all of them learned. The plain loop is a float32 model of transformers, ``model(input_ids, labels=...).loss``, AdamW as
it comes, clipping. Each other contestant switches on one thing, or several; all begin with the same weights and learn
the same rows in the same order (the padded ones excepted). Rounds have seeds of their own.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

from harness import Round, benchmark_parser, finish, median_ratio, medians, table, take_turns
from peers_scratch import BATCH, Setting
from transformers import AutoConfig

from whetstone.data.grammar.corpus import clean_sentences, split_cells
from whetstone.models.scratch import train_tokenizer

WORKER = Path(__file__).with_name("peers_scratch.py")
VOCABULARY, CONTEXT = 2048, 128
VALIDATION_ROWS = 2 * BATCH
QUICK_STEPS = 8
EAGER, WHET = "eager", "whet"

FAST = Setting(fused=True, bfloat16=True, attention="eager")
CONTESTANTS = {
    EAGER: Setting(),
    "eager again": Setting(),
    WHET: Setting(whet=True),
    "whet, compiled": Setting(whet=True, compile="layers"),
    "whet, compiled, again": Setting(whet=True, compile="layers"),
    "fused AdamW": Setting(fused=True),
    "PyTorch's rms_norm": Setting(rms_norm=True),
    "loss in chunks": Setting(chunked_loss=True),
    "matmul precision medium": Setting(medium=True),
    "bfloat16": Setting(bfloat16=True),
    "compile": Setting(compile="model"),
    "bfloat16, compile": Setting(bfloat16=True, compile="model"),
    "matmul-softmax attention": Setting(attention="eager"),
    "bfloat16, matmul-softmax attention, fused": FAST,
    "the same, compile": replace(FAST, compile="model"),
    "the same, compile layers and loss": replace(FAST, compile="layers"),
    "the same, compile layers and loss, rms_norm": replace(FAST, compile="layers", rms_norm=True),
    "two processes": Setting(processes=2),
    "two processes, bfloat16, compile layers and loss, ...": replace(FAST, compile="layers", processes=2),
    "texts padded instead of packed": Setting(padded=True),
}


def main() -> None:
    """Compares, and prints a table."""
    arguments = _arguments()
    contestants = {name: CONTESTANTS[name] for name in arguments.only}
    with tempfile.TemporaryDirectory() as temporary:
        _write_data(Path(temporary), arguments.text, arguments.steps)
        job = {"folder": temporary, "threads": arguments.threads}
        jobs = {name: {**job, "setting": asdict(setting)} for name, setting in contestants.items()}
        rounds = take_turns(WORKER, jobs, arguments.rounds, arguments.threads)
    sys.stdout.write(f"\n{arguments.steps} steps of {BATCH} x {CONTEXT} tokens, {arguments.threads} threads\n\n")
    sys.stdout.write(_table(rounds))
    ratios = {name: median_ratio(rounds, "seconds", EAGER, name) for name in contestants}
    finish(arguments, {"ratios": ratios, "rounds": rounds})


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--text", type=Path, help="a text file, a paragraph a line; the embedded sentences without")
    parser.add_argument("--steps", type=int, default=60, help="of each contestant, at most 199")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of every contestant; two processes have half each")
    parser.add_argument("--only", action="append", choices=CONTESTANTS, help="besides eager; all without")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.rounds = QUICK_STEPS, 1
    default = (EAGER, WHET, "bfloat16") if arguments.quick else CONTESTANTS
    arguments.only = list(dict.fromkeys((EAGER, *(arguments.only or default))))
    return arguments


def _write_data(folder: Path, text: Path | None, steps: int) -> None:
    """Writes config.json and data.json: rows to learn, full and one a text, and full rows for validation."""
    wanted = (steps * BATCH + VALIDATION_ROWS) * CONTEXT
    texts = _texts(text, wanted)
    tokenizer = train_tokenizer(texts, VOCABULARY)
    encoded = [[*ids, tokenizer.eos_token_id] for ids in tokenizer(texts)["input_ids"]]
    stream = list(chain.from_iterable(encoded))
    stream = (stream * (wanted // len(stream) + 1))[:wanted]
    rows = [stream[start : start + CONTEXT] for start in range(0, wanted, CONTEXT)]
    texts_again = (encoded * (steps * BATCH // len(encoded) + 1))[: steps * BATCH]
    data = {
        "validation": rows[:VALIDATION_ROWS],
        "packed": rows[VALIDATION_ROWS:],
        "padded": [ids[:CONTEXT] for ids in texts_again],
    }
    (folder / "data.json").write_text(json.dumps(data), encoding="utf-8")
    config = AutoConfig.for_model(
        "llama",
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    config.save_pretrained(folder)


def _texts(text: Path | None, tokens: int) -> list[str]:
    """Paragraphs; the embedded sentences come one to eight at a time."""
    if text is not None:
        return [line for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    sentences = iter(clean_sentences(split_cells(0).train, tokens // 10, seed=0))

    def paragraphs() -> Iterator[str]:
        draw = random.Random(0)
        while paragraph := [sentence.text for _, sentence in zip(range(draw.randint(1, 8)), sentences, strict=False)]:
            yield " ".join(paragraph)

    return list(paragraphs())


def _table(rounds: Sequence[Round]) -> str:
    """The contestants, the slowest first."""
    values: Mapping[str, Mapping[str, float]] = {
        value: medians(rounds, value) for value in ("tokens_per_s", "processor_seconds", "warm_up_s")
    }
    losses = {name: [one[name]["validation_loss"] for one in rounds] for name in rounds[0]}
    rows = [
        (
            name,
            f"{values['tokens_per_s'][name]:,.0f}",
            f"{median_ratio(rounds, 'seconds', EAGER, name):.2f}",
            f"{median_ratio(rounds, 'processor_seconds', EAGER, name):.2f}",
            f"{values['warm_up_s'][name]:.1f}",
            f"{statistics.mean(losses[name]):.4f} ({min(losses[name]):.4f} to {max(losses[name]):.4f})",
        )
        for name in sorted(losses, key=lambda name: values["tokens_per_s"][name])
    ]
    columns = ("contestant", "tokens/s", "times eager's", "by processor time", "first steps, s", "validation loss")
    return table(columns, rows)


if __name__ == "__main__":
    main()
