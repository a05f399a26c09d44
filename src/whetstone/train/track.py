"""Experiment trackers: each gets every row of ``metrics.jsonl``, on this machine unless its own settings say otherwise.

Notable: transformers has callbacks for the four, but they see the Trainer's few logs and not our rows, record every
training argument, and let an exception of the tracker end the training. One writer for each, of a dozen lines, with two
methods, does what is needed: all fields, one tracker's run however often training is interrupted, and a training that
outlives its trackers. What they may send besides (console output, program arguments, usage statistics) is turned off.
"""

import contextlib
import importlib.util
import io
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from whetstone.errors import UserError
from whetstone.files import read_json, write_json
from whetstone.train.random_streams import unmoved_random_streams
from whetstone.train.recorder import StepMetrics
from whetstone.tune_section import Tracker, Tune

__all__ = ["Tracking", "tracking"]

_PROJECT = "whetstone"


class _Writer(Protocol):
    """A run of one tracker, open for writing."""

    def log(self, values: dict[str, float], step: int) -> None: ...

    def finish(self, succeeded: bool) -> None: ...


class _Wandb:
    """Weights & Biases; offline unless ``WANDB_API_KEY`` or ``WANDB_MODE`` is set."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        import wandb

        # Said outright, because wandb looks at its variables once a process.
        mode: Any = os.environ.get("WANDB_MODE", "online" if "WANDB_API_KEY" in os.environ else "offline")
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_meta=True, x_disable_stats=True
        )
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=name,
            name=name,
            dir=folder,
            config=settings,
            mode=mode,
            # Offline, every process writes a part of its own; 'wandb sync --append' joins parts that have one id.
            resume="allow",
            settings=quiet,
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def finish(self, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)


class _TensorBoard:
    """TensorBoard's event files; a resumed run adds a file to the folder, and TensorBoard joins them."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._writer.add_text("settings", f"`{json.dumps(settings)}`")

    def log(self, values: dict[str, float], step: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def finish(self, succeeded: bool) -> None:
        self._writer.close()


class _Mlflow:
    """MLflow; plain files in the folder unless ``MLFLOW_TRACKING_URI`` names a server."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        # MLflow asks for consent to its store of plain files, which gets no new features; metrics need none.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", folder.resolve().as_uri()))
        experiment = self._client.get_experiment_by_name(_PROJECT)
        where = experiment.experiment_id if experiment else self._client.create_experiment(_PROJECT)
        found = self._client.search_runs([where], f"attributes.run_name = '{name}'", max_results=1)
        self._id = (found[0] if found else self._client.create_run(where, run_name=name)).info.run_id
        self._client.update_run(self._id, status="RUNNING")
        if not found:
            self._client.log_batch(self._id, params=[Param(key, json.dumps(value)) for key, value in settings.items()])

    def log(self, values: dict[str, float], step: int) -> None:
        now_ms = time.time_ns() // 1_000_000
        self._client.log_batch(self._id, [self._metric(key, value, now_ms, step) for key, value in values.items()])

    def finish(self, succeeded: bool) -> None:
        self._client.set_terminated(self._id, "FINISHED" if succeeded else "FAILED")


class _Trackio:
    """Trackio; a database in the folder unless ``TRACKIO_DIR``, ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` is set.

    Trackio looks up its directory when it is imported: a process that trains twice writes both runs into the first.
    """

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve()))
        # It prints advice on standard output, which belongs to results.
        with contextlib.redirect_stdout(io.StringIO()):
            import trackio

            self._finish: Callable[[], None] = trackio.finish
            self._run = trackio.init(
                project=_PROJECT,
                name=name,
                config=settings,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def finish(self, succeeded: bool) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._finish()


_WRITERS: dict[Tracker, Callable[[Path, str, dict[str, Any]], _Writer]] = {
    "wandb": _Wandb,
    "tensorboard": _TensorBoard,
    "mlflow": _Mlflow,
    "trackio": _Trackio,
}


class Tracking:
    """The trackers of a run; one that fails is left alone from then on, and training goes on without it."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        """Reads which steps the trackers know already.

        Args:
            folder: The run's folder for trackers.
            warn: Told once of each tracker that fails.
        """
        self._folder = folder
        self._state_path = folder / "state.json"
        self._warn = warn
        self._writers: dict[Tracker, _Writer] = {}
        known = read_json(self._state_path) if self._state_path.exists() else {}
        self._suffix: str = known.get("suffix", secrets.token_hex(4))
        self._steps: dict[str, int] = known.get("steps", {})
        self.notes: list[str] = []

    def open(self, tracker: Tracker, run_name: str, settings: dict[str, Any]) -> None:
        """Adds a tracker, if it starts."""
        with self._outliving(tracker):
            own = self._folder / tracker
            own.mkdir(parents=True, exist_ok=True)
            self._writers[tracker] = _WRITERS[tracker](own, f"{run_name}-{self._suffix}", settings)
            self._remember()

    def log(self, metrics: StepMetrics) -> None:
        """Tells every tracker of a row, but for steps that it was told before the run was interrupted."""
        values = _numbers(metrics)
        for tracker, writer in list(self._writers.items()):
            if metrics.step > self._steps.get(tracker, 0):
                with self._outliving(tracker):
                    writer.log(values, metrics.step)
                    self._steps[tracker] = metrics.step
                    self._remember()

    def finish(self, *, succeeded: bool) -> None:
        """Closes every tracker's run."""
        for tracker, writer in list(self._writers.items()):
            with self._outliving(tracker):
                writer.finish(succeeded)
        self._writers.clear()

    def _remember(self) -> None:
        write_json(self._state_path, {"suffix": self._suffix, "steps": self._steps})

    @contextlib.contextmanager
    def _outliving(self, tracker: Tracker) -> Iterator[None]:
        try:
            # A tracker may draw from the global streams: MLflow completes the number of a new experiment from Python's.
            with unmoved_random_streams():
                yield
        # Servers, disks and drivers fail with exceptions of their own; none of them is worth a training.
        except Exception as error:
            self._writers.pop(tracker, None)
            # The kind alone: messages of failed requests may quote the address with its password.
            note = (
                f"{tracker} failed ({type(error).__name__}) and was left out from then on; metrics.jsonl has all rows."
            )
            self.notes.append(note)
            self._warn(note)


@contextlib.contextmanager
def tracking(tune: Tune, run_name: str, folder: Path, warn: Callable[[str], None]) -> Iterator[Tracking]:
    """Opens the trackers of ``tune.watch.track`` for the time of a training.

    Args:
        tune: Says which trackers; what bears on the weights is recorded with them as settings.
        run_name: What the trackers call the run, with a suffix that is the same after an interruption and another when
            the run is made anew.
        folder: Each tracker's files go into a folder of its name in here.
        warn: Told once of each tracker that fails.

    Yields:
        The trackers; their ``log`` is an observer, their ``notes`` say what failed.

    Raises:
        UserError: A tracker is not installed.
    """
    missing = [tracker for tracker in tune.watch.track if importlib.util.find_spec(tracker) is None]
    if missing:
        raise UserError(
            f"tune.watch.track: {' and '.join(missing)} not installed; pip install 'whetstone[track]', or leave it out"
        )
    trackers = Tracking(folder, warn)
    for tracker in tune.watch.track:
        trackers.open(tracker, run_name, tune.what_learns())
    try:
        yield trackers
    except BaseException:
        trackers.finish(succeeded=False)
        raise
    trackers.finish(succeeded=True)


def _numbers(metrics: StepMetrics) -> dict[str, float]:
    """The row as plain numbers by name; what is missing or not finite is left out, which all trackers take as a gap."""
    row = metrics.as_row()
    by_origin = row.pop("loss_tokens_by_origin")
    row |= {f"loss_tokens_{origin}": tokens for origin, tokens in by_origin.items()}
    # The step is told beside the values; trackio reserves its name.
    return {name: value for name, value in row.items() if name != "step" and value is not None and math.isfinite(value)}
