"""What engine_vs_peers.py measured, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness import Round, median_ratio, medians, table

__all__ = ["agreement", "bound_line", "load_table", "memory_lines", "soak_line", "stream_table"]


def load_table(rounds: Sequence[Round], over: str, reference: str) -> str:
    """The contestants of a load, the fastest first.

    Args:
        rounds: What was measured.
        over: The contestant that the others are compared with.
        reference: The one whose answers should be everybody's.
    """
    seconds, processor = medians(rounds, "seconds"), medians(rounds, "processor_seconds")
    speed, memory = medians(rounds, "tokens_per_s"), medians(rounds, "peak_bytes")
    rows = []
    for name in sorted(seconds, key=lambda name: seconds[name]):
        same, compared, gap = agreement(rounds, name, reference)
        rows.append(
            (
                name,
                f"{speed[name]:,.0f}",
                f"{seconds[name]:.1f}" + (" (scaled)" if _is_scaled(rounds, name) else ""),
                f"{median_ratio(rounds, 'seconds', name, over):.2f}",
                f"{processor[name]:.1f}",
                f"{same} of {compared}",
                f"{gap:.1e}" if same < compared else "",
                f"{memory[name] / 1e6:,.0f}",
            )
        )
    columns = (
        "contestant",
        "tokens/s",
        "s",
        f"times {over}'s",
        "processor s",
        "answers as one by one",
        "largest gap where not",
        "peak MB",
    )
    return table(columns, rows)


def agreement(rounds: Sequence[Round], name: str, reference: str) -> tuple[int, int, float]:
    """How many answers are those of the reference, of how many; and where others first differ, the largest gap.

    The gap is the difference of the two largest logits in the reference: about 1e-5 or less, and rounding decides
    which token is said; much more, and somebody computes something else.
    """
    same, compared, largest = 0, 0, 0.0
    for one in rounds:
        for row, token_ids in one[name]["answers"].items():
            compared += 1
            expected = one[reference]["answers"][row]
            if token_ids == expected:
                same += 1
                continue
            first = next(place for place, (a, b) in enumerate(zip(token_ids, expected, strict=True)) if a != b)
            largest = max(largest, one[reference]["gaps"][row][first])
    return same, compared, largest


def memory_lines(rounds: Sequence[Round], base: str, adapted: str) -> str:
    """What two adapters cost in the engine of the base, whose every other request is for one of them."""
    alone, together = (rounds[0][name]["weights_bytes"] for name in (base, adapted))
    before, after = (medians(rounds, "peak_bytes")[name] for name in (base, adapted))
    speed = medians(rounds, "tokens_per_s")
    return (
        f"\nWeights: {alone / 1e6:,.1f} MB of the base, {together / 1e6:,.1f} MB with two adapters, "
        f"{together / alone:.2f} times as much; peak {before / 1e6:,.0f} and {after / 1e6:,.0f} MB; "
        f"{speed[base]:,.0f} and {speed[adapted]:,.0f} tokens/s, seconds "
        f"{median_ratio(rounds, 'seconds', adapted, base):.2f} times as many\n"
    )


def stream_table(rounds: Sequence[Round], over: str) -> str:
    """The contestants of a stream, the fastest first; seconds are those from the first token to the last."""
    speed, first = medians(rounds, "tokens_per_s"), medians(rounds, "first_token_s")
    rows = [
        (
            name,
            f"{speed[name]:,.1f}",
            f"{median_ratio(rounds, 'seconds', name, over):.2f}",
            f"{1000 * first[name]:,.1f}",
            f"{median_ratio(rounds, 'first_token_s', name, over):.2f}",
        )
        for name in sorted(speed, key=lambda name: -speed[name])
    ]
    columns = ("contestant", "tokens/s", f"times {over}'s s", "first token, ms", f"times {over}'s ms")
    return table(columns, rows)


def bound_line(bytes_per_s: float, weights_bytes: float, batch: int = 1) -> str:
    """The most tokens a second if every weight is read once for each token of the batch."""
    most = batch * bytes_per_s / weights_bytes
    return (
        f"\nBound: {bytes_per_s / 1e9:,.1f} GB/s, {weights_bytes / 1e6:,.0f} MB of weights: {most:,.0f} tokens/s; more "
        "only where weights stay in a cache of the processor\n"
    )


def soak_line(result: Mapping[str, Any]) -> str:
    """What became of memory."""
    return (
        f"\nSoak: {result['requests']:,} asyncio streams, {result['most_streams_at_once']} at once at most, "
        f"{result['left']:,} left early, {result['tokens']:,} tokens in {result['seconds']:.0f} s; "
        f"{result['settled_bytes'] / 1e6:,.1f} MB at first, {result['end_bytes'] / 1e6:,.1f} MB at the end: "
        f"{result['growth_percent']:+.1f} %\n"
    )


def _is_scaled(rounds: Sequence[Round], name: str) -> bool:
    return bool(rounds[0][name]["answered"] < max(run["answered"] for run in rounds[0].values()))
