"""How many cores a process may keep busy, whatever it sees."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from whetstone import cores as cores_of_here
from whetstone.cores import usable_cores
from whetstone.models import device
from whetstone.models.device import limit_threads

Cgroups = Callable[[str, dict[str, str]], None]


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cgroups:
    """Has this process be in control groups, on a machine of 16 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)

    def make(membership: str, files: dict[str, str]) -> None:
        (tmp_path / "membership").write_text(membership)
        for name, content in files.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setattr(cores_of_here, "_MEMBERSHIP", tmp_path / "membership")
        monkeypatch.setattr(cores_of_here, "_CGROUPS", tmp_path / "fs")

    return make


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "350000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9000000 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "what is this\n"}, 16),
        ("0::/\n", {}, 16),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
        ("0::/host/only\n", {"cpu.max": "300000 100000"}, 3),
        ("0::/../up\n", {"cpu.max": "300000 100000"}, 3),
        (
            "5:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "150000", "cpu,cpuacct/x/cpu.cfs_period_us": "50000"},
            3,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
        ("2:cpuset:/\n1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "500000", "cpu/cpu.cfs_period_us": "100000"}, 5),
        ("", {"cpu.max": "200000 100000"}, 16),
    ],
)
def test_cores_are_limited_by_the_share_of_time(
    cgroups: Cgroups, membership: str, files: dict[str, str], cores: int
) -> None:
    cgroups(membership, files)
    assert usable_cores() == cores


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says where a process may be scheduled")
def test_cores_are_limited_by_where_the_process_may_run(cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroups("0::/\n", {"cpu.max": "800000 100000"})
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert usable_cores() == 1


def test_without_control_groups_all_cores_are_usable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cores_of_here, "_MEMBERSHIP", tmp_path / "none")
    assert usable_cores() >= 1


@pytest.mark.parametrize(
    ("threads", "cores", "said", "expected"),
    [(8, 2, None, 2), (2, 8, None, None), (8, 2, "8", None), (2, 2, None, None)],
)
def test_threads_are_only_lowered_and_never_against_the_users_word(
    monkeypatch: pytest.MonkeyPatch, threads: int, cores: int, said: str | None, expected: int | None
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(device, "usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    limit_threads()
    assert taken == ([] if expected is None else [expected])
