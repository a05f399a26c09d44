"""One reading of the machine's own sensors: how busy, how full, how warm.

Notable: a sensor that the machine has not is found out once and then left alone, so a reading costs the same whether
nothing or everything is there, and what cannot be known is None and not zero.
"""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psutil
import torch

__all__ = ["Reading", "Sensors"]

_Value = TypeVar("_Value")

_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal")
"""How Linux names the thermometers inside processors (drivers of Intel, AMD, and Arm's device trees)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the sensors say; None where there is no such sensor.

    Attributes:
        cpu_percent: Of one core, used by this process since the reading before; several busy cores exceed 100.
        system_cpu_percent: Of all cores, used by all processes since the reading before.
        process_memory_bytes: Resident memory of this process.
        gpu_percent: Share of the last moments (the driver's period, up to a second) in which the GPU computed.
        gpu_memory_bytes: Memory in use on the GPU, by all processes on CUDA and ROCm, by this one on MPS.
        cpu_temperature_c: The hottest point of the processor, in degrees Celsius.
        gpu_temperature_c: Of the GPU.
        gpu_power_w: What the GPU draws.
    """

    cpu_percent: float | None = None
    system_cpu_percent: float | None = None
    process_memory_bytes: int | None = None
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None
    cpu_temperature_c: float | None = None
    gpu_temperature_c: float | None = None
    gpu_power_w: float | None = None


class Sensors:
    """The sensors of this machine, for a training on one device."""

    def __init__(self, device: torch.device) -> None:
        """Tries every sensor once; loads count from here.

        Args:
            device: Where training computes; its GPU is read, if it is one.
        """
        self._device = device
        self._process = psutil.Process()
        self._absent: set[str] = set()
        self.read()

    def read(self) -> Reading:
        """Asks every sensor that has always answered so far; never waits, never raises."""
        return Reading(
            cpu_percent=self._ask("cpu_percent", self._process.cpu_percent),
            system_cpu_percent=self._ask("system_cpu_percent", psutil.cpu_percent),
            process_memory_bytes=self._ask("process_memory_bytes", lambda: self._process.memory_info().rss),
            gpu_percent=self._ask("gpu_percent", lambda: float(torch.cuda.utilization(self._cuda()))),
            gpu_memory_bytes=self._ask("gpu_memory_bytes", self._gpu_memory_bytes),
            cpu_temperature_c=self._ask("cpu_temperature_c", _cpu_temperature_c),
            gpu_temperature_c=self._ask("gpu_temperature_c", lambda: float(torch.cuda.temperature(self._cuda()))),
            # Torch gives milliwatts.
            gpu_power_w=self._ask("gpu_power_w", lambda: torch.cuda.power_draw(self._cuda()) / 1000),
        )

    def _ask(self, name: str, sensor: Callable[[], _Value]) -> _Value | None:
        """The answer of a sensor; one that fails is not asked again."""
        if name not in self._absent:
            # Drivers, their bindings and torch fail with exceptions of their own; none of them may stop a training.
            with contextlib.suppress(Exception):
                return sensor()
            self._absent.add(name)
        return None

    def _cuda(self) -> torch.device:
        if self._device.type != "cuda":
            raise LookupError("no GPU that can be asked")
        return self._device

    def _gpu_memory_bytes(self) -> int:
        if self._device.type == "mps":
            return int(torch.mps.driver_allocated_memory())
        free, total = torch.cuda.mem_get_info(self._cuda())
        return total - free


def _cpu_temperature_c() -> float:
    """The hottest of the processor's thermometers.

    Raises:
        LookupError: There is none, as in most virtual machines.
    """
    # psutil reads temperatures on Linux and FreeBSD only; elsewhere the function does not exist.
    if sys.platform == "linux":
        chips = psutil.sensors_temperatures()
        readings = [reading.current for name in _CPU_CHIPS for reading in chips.get(name, ())]
        if readings:
            return float(max(readings))
    raise LookupError("no thermometer in the processor")
