"""Checkpoints are whole or absent, proven before use, and no more than are asked for."""

import errno
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whetstone.errors import UserError
from whetstone.train.checkpoint import CheckpointStore, read_checkpoint
from whetstone.tune_section import Checkpoints

FILES = ("checkpoint.json", "counters.json", "weights.json", "weights.safetensors")


def make_store(folder: Path, said: list[str] | None = None, **limits: Any) -> CheckpointStore:
    return CheckpointStore(folder, Checkpoints(**limits), ([] if said is None else said).append)


def parts(step: int, size_bytes: int = 64) -> dict[str, Any]:
    return {"weights": {"w": torch.full((size_bytes,), step % 256, dtype=torch.uint8)}, "counters": {"rows": step}}


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.iterdir())


def steps_named(folder: Path) -> list[int]:
    """Leaves out a folder that is being written."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def leaves() -> st.SearchStrategy[Any]:
    tensors = st.sampled_from(
        [
            torch.arange(6.0).reshape(2, 3).T,
            torch.arange(5, dtype=torch.uint8)[1:4],
            torch.tensor(2.5),
            torch.empty(0, 3),
            torch.tensor([1.5, math.nan], dtype=torch.bfloat16),
        ]
    )
    return st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | tensors


def same(left: Any, right: Any) -> bool:
    match left:
        case torch.Tensor():
            return left.dtype == right.dtype and left.shape == right.shape and left.allclose(right, 0, 0, True)
        case dict():
            return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
        case list() | tuple():
            return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
        case float():
            return isinstance(right, float) and (left == right or (left != left and right != right))
    return type(left) is type(right) and bool(left == right)


@settings(max_examples=40)
@given(
    value=st.recursive(
        leaves(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text("$ab/", max_size=3), inner, max_size=3)
            | st.dictionaries(st.integers(0, 9), inner, max_size=3)
        ),
    )
)
def test_a_part_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    saved = make_store(tmp_path_factory.mktemp("store")).save(1, {"part": {"value": value}})
    assert same({"value": value}, saved.part("part"))


def test_a_tensor_that_is_named_twice_is_stored_once(tmp_path: Path) -> None:
    tensor = torch.ones(10_000)
    saved = make_store(tmp_path).save(1, {"part": {"a": tensor, "b": (tensor, tensor)}})
    assert saved.size_bytes < 50_000
    assert torch.equal(saved.part("part")["b"][1], tensor)


def test_what_no_file_can_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a/0: a checkpoint cannot hold a set"):
        make_store(tmp_path).save(1, {"part": {"a": [set()]}})


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    # Of a manifest, a digit of the step or of a hash.
    content[content.find(b'"step": 2') + 8 if file.name == "checkpoint.json" else -1] ^= 1
    file.write_bytes(content)


def garbage(file: Path) -> None:
    file.write_text('{"step": [', encoding="utf-8")


def replaced_by_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [truncate, empty, flip, garbage, Path.unlink, replaced_by_a_folder])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    damage: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    said = list[str]()
    store = make_store(tmp_path, said)
    store.save(1, parts(1))
    store.save(2, parts(2))
    assert {path.name for path in (tmp_path / "step-000002").iterdir()} == set(FILES)
    damage(tmp_path / "step-000002" / name)
    newest = store.newest()
    assert newest is not None
    assert (newest.step, newest.part("counters")) == (1, {"rows": 1})
    (warning,) = said
    assert "\n" not in warning
    assert f"step-000002: {name} " in warning
    with pytest.raises(UserError, match=f"step-000002: {name} "):
        read_checkpoint(tmp_path / "step-000002")


def test_a_manifest_proves_itself(tmp_path: Path) -> None:
    said = list[str]()
    store = make_store(tmp_path, said)
    folder = store.save(1, parts(1), validation_loss=2.0).folder
    manifest = folder / "checkpoint.json"
    manifest.write_text(manifest.read_text().replace("2.0", "1.0"))
    assert store.newest() is None
    assert "checkpoint.json does not match its own SHA-256" in said[0]
    assert said[1] == f"{tmp_path}: no checkpoint here is whole"


def test_a_renamed_checkpoint_is_not_of_another_step(tmp_path: Path) -> None:
    make_store(tmp_path).save(1, parts(1)).folder.rename(tmp_path / "step-000007")
    with pytest.raises(UserError, match=r"checkpoint\.json is of step 1;"):
        read_checkpoint(tmp_path / "step-000007")


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    said = list[str]()
    assert make_store(tmp_path / "none", said).newest() is None
    assert said == [f"{tmp_path / 'none'}: there is no checkpoint"]


LOSSES = st.none() | st.sampled_from([1.0, 2.0, 3.0, math.nan, math.inf])


@settings(max_examples=20)
@given(losses=st.lists(LOSSES, min_size=1, max_size=9), keep=st.integers(1, 3))
def test_the_newest_and_the_best_stay(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float | None], keep: int
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = make_store(folder, keep=keep)
    for step, loss in enumerate(losses, 1):
        store.save(step, parts(step), loss)
        measured = {at: loss for at, loss in enumerate(losses[:step], 1) if loss is not None and math.isfinite(loss)}
        best = min(measured, key=lambda at: measured[at], default=None)
        expected = set(range(max(1, step - keep + 1), step + 1)) | ({best} - {None})
        assert set(steps(folder)) == expected
        found = store.best()
        assert (None if found is None else found.step) == best


@settings(max_examples=20)
@given(
    saves=st.lists(st.tuples(st.integers(0, 3000), LOSSES), min_size=1, max_size=8),
    keep=st.integers(1, 4),
    budget_bytes=st.integers(1, 12_000),
)
def test_the_budget_is_kept_where_it_can_be(
    tmp_path_factory: pytest.TempPathFactory, saves: list[tuple[int, float | None]], keep: int, budget_bytes: int
) -> None:
    folder, said = tmp_path_factory.mktemp("store"), list[str]()
    store = make_store(folder, said, keep=keep, disk_gigabytes=budget_bytes / 1e9)
    unlimited = make_store(tmp_path_factory.mktemp("unlimited"), keep=keep)
    over = False
    for step, (size_bytes, loss) in enumerate(saves, 1):
        store.save(step, parts(step, size_bytes), loss)
        unlimited.save(step, parts(step, size_bytes), loss)
        left, best = steps(folder), unlimited.best()
        needed = {step} if best is None else {step, best.step}
        assert needed <= set(left) <= set(steps(unlimited.folder))
        # Older ones go first.
        others = [at for at in left if at not in needed]
        assert others == [at for at in steps(unlimited.folder) if at not in needed][-len(others) or 99 :]
        total_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        assert total_bytes <= budget_bytes or set(left) == needed
        over = over or total_bytes > budget_bytes
    assert len(said) == over
    assert all("exceed tune.checkpoints.disk_gigabytes" in line for line in said)


def test_room_is_made_before_writing_but_the_last_good_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, keep=3, disk_gigabytes=25e-6)
    for step in (1, 2):
        store.save(step, parts(step, 10_000))
    # Of its full length, so that only its hash tells.
    (tmp_path / "step-000002" / "weights.safetensors").open("rb+").write(b"!")
    present = list[list[int]]()

    def interrupted(tensors: Any, path: Path) -> None:
        present.append(steps_named(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr("whetstone.train.checkpoint.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.save(3, parts(3, 10_000))
    assert present == [[1]]
    assert steps(tmp_path) == [1]


def test_later_checkpoints_of_an_abandoned_attempt_go(tmp_path: Path) -> None:
    store = make_store(tmp_path, keep=5)
    for step in (2, 4, 6, 8):
        store.save(step, parts(step), validation_loss=10 - step)
    (tmp_path / "step-000002" / "weights.json").unlink()
    store.save(6, parts(60), validation_loss=20)
    assert steps(tmp_path) == [4, 6]
    newest, best = store.newest(), store.best()
    assert newest is not None
    assert best is not None
    assert newest.part("counters") == {"rows": 60}
    assert best.step == 4


def test_everything_is_forced_to_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc to tell what a descriptor is of")
    forced = list[tuple[str, bool]]()
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        forced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, (tmp_path / "step-000001").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    make_store(tmp_path).save(1, parts(1))
    assert {name for name, named in forced if not named} == {*FILES, ".step-000001.partial"}
    assert [name for name, named in forced if named] == [tmp_path.name]


def in_child(work: Callable[[], None]) -> int:
    """Runs in a forked process and returns how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{error}\n")
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(store: CheckpointStore, moment: int) -> int:
    """Saves in another process, which is killed when it opens, renames or deletes a file for the nth time."""
    seen = 0

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    def save() -> None:
        sys.addaudithook(kill)
        store.save(3, parts(3))

    return in_child(save)


def test_a_save_that_is_killed_leaves_whole_checkpoints(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ready", keep=2)
    store.save(1, parts(1))
    store.save(2, parts(2))
    newest = list[int]()
    for moment in range(1, 1000):
        folder = tmp_path / f"at-{moment}"
        shutil.copytree(store.folder, folder)
        said = list[str]()
        again = make_store(folder, said, keep=2)
        ended = killed_at(again, moment)
        for path in folder.glob("step-*"):
            read_checkpoint(path)
        found = again.newest()
        assert found is not None
        newest.append(found.step)
        assert said == []
        again.save(4, parts(4))
        assert steps(folder) == [found.step, 4]
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    assert newest == sorted(newest)
    assert set(newest) == {2, 3}
    # Killed while writing and while deleting, many times each.
    assert min(newest.count(2), newest.count(3)) > 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("file systems may not be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def check_not_saved(error: BaseException, folder: Path, reason: str) -> None:
    assert str(error) == (
        f"{folder}: the checkpoint of step 3 cannot be saved ({reason}); it needs 0.9 MB; the last good checkpoint is "
        "step 2: free some space, then 'whet tune --resume' goes on from there"
    )
    assert steps(folder) == [1, 2]
    assert [read_checkpoint(folder / f"step-{step:06d}").part("counters")["rows"] for step in (1, 2)] == [1, 2]


def test_a_full_disk_leaves_what_was_there(small_disk: Path) -> None:
    store = make_store(small_disk / "checkpoints", keep=2)
    for step in (1, 2):
        store.save(step, parts(step, 800_000))
    with pytest.raises(UserError) as raised:
        store.save(3, parts(3, 900_000))
    check_not_saved(
        raised.value, store.folder, "Error while serializing: I/O error: No space left on device (os error 28)"
    )
    shutil.rmtree(small_disk / "checkpoints" / "step-000001")
    assert store.save(3, parts(3, 900_000)).step == 3


def test_a_disk_that_is_full_from_the_start(small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(1_900_000))
    with pytest.raises(UserError, match="there is no good checkpoint yet: free some space, then 'whet tune' starts"):
        make_store(small_disk / "checkpoints").save(1, parts(1, 400_000))
    assert list((small_disk / "checkpoints").iterdir()) == []


def test_a_file_that_may_not_be_so_long(tmp_path: Path) -> None:
    store = make_store(tmp_path, keep=2)
    for step in (1, 2):
        store.save(step, parts(step))

    def save() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(UserError) as raised:
            store.save(3, parts(3, 900_000))
        check_not_saved(raised.value, tmp_path, "Error while serializing: I/O error: File too large (os error 27)")

    assert in_child(save) == 0


@pytest.mark.parametrize("call", ["mkdir", "write_text", "rename"])
def test_a_disk_that_fills_at_any_call(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, keep=2)
    for step in (1, 2):
        store.save(step, parts(step))

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, call, full)
        with pytest.raises(UserError) as raised:
            store.save(3, parts(3, 900_000))
    check_not_saved(raised.value, tmp_path, "No space left on device")
