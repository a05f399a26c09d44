"""LoRA tuning of a 15 M Llama on a CPU: Whetstone against TRL's SFTTrainer and the Trainer of transformers.

Run as: .venv/bin/python benchmarks/train_vs_trl.py --data FOLDER
        .venv/bin/python benchmarks/train_vs_trl.py --search   (every setting of the peers, to find the fastest)

Three data sets: four corrections of each sentence, one correction after an instruction of 60 tokens that all prompts
share, and pairs of random words that share nothing. Everybody learns the same token ids from the same weights, 64 pairs
in an optimiser step, rank 16 on all linear layers, the same constant learning rate, an epoch. Seconds are for 1,000
pairs, steps alone. Rounds have seeds of their own, so the losses are of as many seeds.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from harness import Round, benchmark_parser, finish, median_ratio, medians, table, take_turns
from peers_data import DATA_SETS, FOUR_REFERENCES, write_model_and_data
from peers_train import STEP_PAIRS, Setting

WORKER = Path(__file__).with_name("peers_train.py")
WHET, AGAIN, TRL_DEFAULT = "whet", "whet again", "TRL default"
SEARCH_PAIRS = 4 * STEP_PAIRS
QUICK_PAIRS, QUICK_STEP_PAIRS = 48, 8

OURS = {WHET: Setting("whet"), AGAIN: Setting("whet")}

# TRL computes in bfloat16 on a CPU unless it is told otherwise.
PEERS = {
    TRL_DEFAULT: Setting("trl"),
    "TRL float32": Setting("trl", bfloat16=False),
    "TRL, no checkpointing": Setting("trl", checkpointing=False),
    "TRL float32, no checkpointing": Setting("trl", bfloat16=False, checkpointing=False),
    "TRL by length, batch 32, no checkpointing": Setting("trl", 32, checkpointing=False, order="group_by_length"),
    "TRL packing": Setting("trl", checkpointing=False, layout="packed"),
    "TRL packing float32": Setting("trl", bfloat16=False, checkpointing=False, layout="packed"),
    "TRL padding-free": Setting("trl", checkpointing=False, layout="padding-free"),
    "TRL padding-free, batch 32": Setting("trl", 32, checkpointing=False, layout="padding-free"),
    **{
        f"Trainer by length, batch {batch}{precision}{attention}": Setting(
            "transformers",
            batch,
            bfloat16=bool(precision),
            order="group_by_length",
            attention="eager" if attention else "sdpa",
        )
        for attention in ("", ", eager attention")
        for precision in ("", ", bfloat16")
        for batch in (16, 32, 64)
    },
    "Trainer in whet's order, batch 16, bfloat16": Setting("transformers", 16, bfloat16=True, order="sequential"),
}
FASTEST = (
    "TRL packing",
    "Trainer by length, batch 16",
    "Trainer by length, batch 32, bfloat16",
    "Trainer by length, batch 16, bfloat16, eager attention",
    "Trainer in whet's order, batch 16, bfloat16",
)
"""The fastest that ``--search`` found, and one that learns exactly the pairs of whet's steps."""


def main() -> None:
    """Compares on every data set, and prints a table for each."""
    arguments = _arguments()
    chosen = {name: PEERS[name] for name in (TRL_DEFAULT, *FASTEST)}
    contestants = {WHET: OURS[WHET], **PEERS} if arguments.search else {**OURS, **chosen}
    if arguments.quick:
        contestants = {name: contestants[name] for name in (WHET, TRL_DEFAULT, FASTEST[-2])}
    ratios: dict[str, Mapping[str, float]] = {}
    details: dict[str, list[Round]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        sizes = write_model_and_data(Path(temporary), arguments.data, arguments.pairs)
        for data_set in arguments.data_sets:
            size = sizes[data_set]
            rounds = _rounds(arguments, contestants, Path(temporary), data_set)
            sys.stdout.write(
                f"\n{data_set}: {size['pairs']:.0f} pairs, prompts of {size['prompt_tokens']:.0f} and answers of "
                f"{size['answer_tokens']:.0f} tokens in the mean, {arguments.threads} threads\n\n{_table(rounds)}"
            )
            sys.stdout.flush()
            ratios[data_set] = {name: median_ratio(rounds, "seconds", name, WHET) for name in contestants}
            details[data_set] = rounds
    finish(arguments, {"ratios": ratios, "rounds": details}, ("trl",))


def _arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--data", type=Path, help="folder with *.src and *.ref0 to *.ref3; the embedded ones without")
    parser.add_argument("--data-set", dest="data_sets", action="append", choices=DATA_SETS, help="all without")
    parser.add_argument("--pairs", type=int, default=20 * STEP_PAIRS, help="of an epoch, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of every contestant")
    parser.add_argument("--search", action="store_true", help="one short round of every setting of the peers")
    arguments = parser.parse_args()
    if arguments.search:
        arguments.pairs, arguments.rounds = SEARCH_PAIRS, 1
    if arguments.quick:
        arguments.pairs, arguments.rounds, arguments.data_sets = QUICK_PAIRS, 1, [FOUR_REFERENCES]
    arguments.data_sets = arguments.data_sets or list(DATA_SETS)
    return arguments


def _rounds(
    arguments: argparse.Namespace, contestants: Mapping[str, Setting], folder: Path, data_set: str
) -> list[Round]:
    job = {
        "folder": str(folder),
        "data_set": data_set,
        "threads": arguments.threads,
        "step_pairs": QUICK_STEP_PAIRS if arguments.quick else STEP_PAIRS,
    }
    jobs = {name: {**job, "setting": asdict(setting)} for name, setting in contestants.items()}
    return take_turns(WORKER, jobs, arguments.rounds, arguments.threads)


def _table(rounds: Sequence[Round]) -> str:
    """The contestants, the fastest first."""
    seconds, processor = medians(rounds, "seconds"), medians(rounds, "processor_seconds")
    rows = [
        (
            name,
            f"{seconds[name]:.1f}",
            f"{median_ratio(rounds, 'seconds', name, WHET):.2f}",
            f"{processor[name]:.1f}",
            _spread([one[name]["final_loss"] for one in rounds]),
            _spread([one[name]["held_out_loss"] for one in rounds]),
        )
        for name in sorted(seconds, key=lambda name: seconds[name])
    ]
    columns = ("contestant", "s", "times whet's", "processor s", "loss of the last steps", "held-out loss")
    return table(columns, rows)


def _spread(values: Sequence[float]) -> str:
    """The mean, and the least and greatest where there are several."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    main()
