"""The order of rows: complete, reproducible from any step, with replay at its share, and with little padding."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.train.batch import Origin, Row
from whetstone.train.order import RowOrder, RowSampler

WINDOW_STEPS = 50


def made(count: int, loss_tokens: tuple[int, int], seed: int, origin: Origin = "task") -> list[Row]:
    """Rows whose prompt and answer have random lengths."""
    draw = Random(seed)
    rows = []
    for number in range(count):
        prompt, answer = draw.randint(1, 40), draw.randint(*loss_tokens)
        rows.append(Row(f"{origin} {number}", range(prompt + answer), prompt, origin))
    return rows


def shares(order: RowOrder, batches: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Replayed and all loss tokens of each step."""
    rows = [[order.rows[index] for index in batch] for batch in batches]
    replayed = [sum(row.loss_tokens for row in batch if row.origin == "replay") for batch in rows]
    return replayed, [sum(row.loss_tokens for row in batch) for batch in rows]


mixtures = st.builds(
    lambda task, most, replay, longest, fraction, step, seed: RowOrder(
        [*made(task, (1, most), seed), *made(replay, (1, longest), seed + 1, "replay")], step, seed, fraction
    ),
    task=st.integers(1, 700),
    most=st.integers(1, 60),
    replay=st.integers(1, 900),
    longest=st.integers(1, 200),
    fraction=st.floats(0.05, 0.5),
    step=st.integers(1, 40),
    seed=st.integers(0, 2**20),
)


@settings(max_examples=60)
@given(order=mixtures, epochs=st.integers(1, 4))
def test_replay_has_its_share_of_every_epoch_to_within_a_row(order: RowOrder, epochs: int) -> None:
    """Over replay sets too small for one epoch (taken again) and larger than all epochs together."""
    fraction = order.fraction
    longest = max(row.loss_tokens for row in order.rows)
    ends = np.cumsum([len(order.epoch(number)) for number in range(epochs)])
    flat = list(islice(chain.from_iterable(order.batches()), int(ends[-1])))
    for end in ends:
        (replayed,), (total,) = shares(order, [flat[:end]])
        assert abs(replayed - fraction * total) <= longest
        if total >= 100 * longest:
            assert replayed / total == pytest.approx(fraction, abs=0.01)


@settings(max_examples=60)
@given(order=mixtures, epochs=st.integers(1, 4))
def test_task_rows_come_once_an_epoch_and_replayed_rows_in_turn(order: RowOrder, epochs: int) -> None:
    task = {index for index, row in enumerate(order.rows) if row.origin == "task"}
    parts = [order.epoch(number).tolist() for number in range(epochs)]
    for part in parts:
        assert sorted(index for index in part if index in task) == sorted(task)
    replayed = Counter(index for index in chain.from_iterable(parts) if index not in task)
    times = [replayed[index] for index in range(len(order.rows)) if index not in task]
    assert max(times) - min(times) <= 1
    steps = order.steps(epochs)
    assert steps == -(-sum(map(len, parts)) // order.step_rows)
    learned = Counter(chain.from_iterable(islice(order.batches(), steps)))
    assert all(learned[index] >= epochs for index in task)
    assert all(len(batch) == order.step_rows for batch in islice(order.batches(), steps))


@settings(max_examples=60)
@given(order=mixtures, data=st.data())
def test_any_step_is_found_without_the_steps_before_it(order: RowOrder, data: st.DataObject) -> None:
    steps = order.steps(2.5)
    undisturbed = list(islice(order.batches(), steps))
    start = data.draw(st.integers(0, steps - 1))
    again = RowOrder(order.rows, order.step_rows, order.seed, order.fraction)
    assert list(islice(again.batches(start), steps - start)) == undisturbed[start:]


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
@pytest.mark.parametrize(("longest", "replayed_rows"), [(30, 3000), (8, 3000), (90, 3000), (90, 150)])
def test_replay_has_its_share_of_every_fifty_steps(fraction: float, longest: int, replayed_rows: int) -> None:
    rows = [*made(3000, (5, 30), 1), *made(replayed_rows, (2, longest), 2, "replay")]
    order = RowOrder(rows, 16, 3, fraction)
    steps = order.steps(3)
    replayed, total = shares(order, list(islice(order.batches(), steps)))
    for stop in range(WINDOW_STEPS, steps):
        window = slice(stop - WINDOW_STEPS, stop)
        assert sum(replayed[window]) / sum(total[window]) == pytest.approx(fraction, abs=0.015)
        if stop > 2 * WINDOW_STEPS:
            assert sum(replayed[:stop]) / sum(total[:stop]) == pytest.approx(fraction, abs=0.01)


def test_replay_weighs_as_much_as_its_tokens() -> None:
    """The loss is a mean over a step's tokens: long rows that fill steps of their own would hardly count."""
    order = RowOrder([*made(3000, (5, 30), 1), *made(1000, (50, 90), 2, "replay")], 16, 3, 0.2)
    replayed, total = shares(order, list(islice(order.batches(), 500)))
    assert np.mean(np.divide(replayed, total)) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_steps_hold_rows_of_similar_length_in_no_order_of_length(fraction: float) -> None:
    rows = made(2000, (1, 60), 1) + (made(500, (1, 60), 2, "replay") if fraction else [])
    order = RowOrder(rows, 10, 3, fraction)
    lengths = [[len(rows[index].input_ids) for index in batch] for batch in islice(order.batches(), order.steps(2))]
    padded = sum(10 * max(batch) for batch in lengths)
    assert padded < 1.12 * sum(map(sum, lengths))
    means = [sum(batch) for batch in lengths[:WINDOW_STEPS]]
    assert means not in (sorted(means), sorted(means, reverse=True))


def test_epochs_differ_and_so_do_seeds() -> None:
    rows = made(200, (1, 60), 1)
    order = RowOrder(rows, 8, 3)
    assert order.epoch(0).tolist() != order.epoch(1).tolist()
    assert order.epoch(0).tolist() != RowOrder(rows, 8, 4).epoch(0).tolist()
    assert order.epoch(0).tolist() == RowOrder(rows, 8, 3).epoch(0).tolist()


def test_steps_and_epochs_count_passes_over_the_task() -> None:
    order = RowOrder(made(100, (5, 5), 1), 16, 0)
    assert [order.steps(epochs) for epochs in (0.01, 0.5, 1, 3)] == [1, 4, 7, 19]
    assert order.epochs(25) == pytest.approx(4)
    mixed = RowOrder([*order.rows, *made(40, (5, 5), 2, "replay")], 16, 0, 0.5)
    assert mixed.steps(3) == 38
    assert mixed.epochs(38) == pytest.approx(3, abs=0.1)


def test_the_sampler_is_the_order_cut_off() -> None:
    order = RowOrder(made(10, (1, 9), 1), 16, 0)
    sampler = RowSampler(order, 3)
    assert len(sampler) == 48
    assert list(sampler) == list(chain.from_iterable(islice(order.batches(), 3))) == list(sampler)


CHILD = """
import os, sys
from itertools import count
sys.path.insert(0, {folder!r})
from test_order import example_order
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
order, start = example_order(), int(sys.argv[2])
for step, batch in zip(count(start), order.batches(start)):
    os.write(log, (str(step) + ":" + ",".join(order.rows[index].example for index in batch)).encode())
    os.write(log, b"\\n")
    os.write(1, b".")
"""


def example_order() -> RowOrder:
    """Four epochs and a half fit into a thousand steps, and the replay set is taken more than twice."""
    return RowOrder([*made(1700, (5, 30), 1), *made(300, (5, 90), 2, "replay")], 9, 7, 0.25)


def killed(log: Path, start: int, after: int) -> None:
    """Lets a process write steps from ``start`` on, and kills it when it has written at least ``after`` of them."""
    code = CHILD.format(folder=str(Path(__file__).parent))
    with subprocess.Popen([sys.executable, "-c", code, str(log), str(start)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert len(child.stdout.read(after)) == after
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL


def test_a_killed_process_is_resumed_without_losing_or_repeating_a_row(tmp_path: Path) -> None:
    log = tmp_path / "steps.txt"
    draw = Random()
    killed(log, 0, draw.randint(1, 600))
    whole_lines = log.read_bytes().rpartition(b"\n")
    log.write_bytes(whole_lines[0] + whole_lines[1])
    done = whole_lines[0].count(b"\n") + 1
    killed(log, done, draw.randint(400, 600))
    resumed = log.read_text().splitlines()[:-1]
    order = example_order()
    names = [
        f"{step}:" + ",".join(order.rows[index].example for index in batch)
        for step, batch in enumerate(islice(order.batches(), len(resumed)))
    ]
    assert len(resumed) >= done + 399
    assert resumed == names
