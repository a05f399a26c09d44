"""How a server is started: from the command line over a file of settings over what the first run's experiment says.

Importing it takes little, so that a server listens before it imports what answers.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from whetstone.errors import UserError
from whetstone.files import read_json
from whetstone.serve_section import Serve
from whetstone.yaml_source import YamlSource

__all__ = ["DelegateKind", "ServeOptions", "effective_settings"]

_RUN = re.compile(r"(?:[^=:]*=)?(?:mlx:)?run:([^#@/\\]+)(?:[#@].*)?")
_OF_EACH_MODEL = ("system_prompt", "validate_")


DelegateKind = Literal["vllm", "llamacpp", "mlx"]
"""Programs of others that compute instead of ours."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What a server is told.

    Attributes:
        refs: Names of the models, ``[NAME=]REF`` each; the first backend serves those of this machine.
        settings: The section ``serve``.
        runs: The folder that holds the runs.
        force: Serve what was not judged, or was judged otherwise than SHIP.
        test_mode: Allow random weights.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        dtype: Of the weights, where their names say none.
        adapter_roots: Adapters that are loaded later lie in or below one of these folders.
        hosts: Names that a server without keys answers to, besides those of the machine itself.
        origins: Web pages of other sites that may ask.
        log: How lines of the log are written.
        backend: What computes the models of this machine.
        program: Where that is, where it is not our own.
    """

    refs: tuple[str, ...]
    settings: Serve
    runs: Path = Path("runs")
    force: bool = False
    test_mode: bool = False
    device: str = "auto"
    dtype: str | None = None
    adapter_roots: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    log: Literal["text", "json"] = "text"
    backend: Literal["torch"] | DelegateKind = "torch"
    program: str | None = None


def effective_settings(said: Serve, config: Path | None, refs: Sequence[str], runs: Path) -> Serve:
    """What was said on the command line, over the file, over the first run's experiment, over the defaults.

    The run's own system prompt and validation are left out: they are of its model, and not of others that are served
    beside it.

    Args:
        said: Of the command line; fields that were not said are not set.
        config: A file with the keys of the section ``serve``.
        refs: Names of the models.
        runs: The folder that holds the runs.

    Raises:
        UserError: The file, or the run's, is wrong.
    """
    settings = _of_first_run(refs, runs)
    if config is not None:
        settings = _over(settings, _read(config))
    return _over(settings, said)


def _over(lower: Serve, upper: Serve) -> Serve:
    """What ``upper`` says, and the rest of ``lower``; of limits, each for itself."""
    said = {name: getattr(upper, name) for name in upper.model_fields_set}
    if "limits" in said:
        limits = {name: getattr(upper.limits, name) for name in upper.limits.model_fields_set}
        said["limits"] = lower.limits.model_copy(update=limits)
    return lower.model_copy(update=said)


def _read(config: Path) -> Serve:
    source = YamlSource.read(config)
    try:
        return Serve.model_validate_json(json.dumps(source.mapping()))
    except ValidationError as error:
        raise source.explain(error, Serve) from None


def _of_first_run(refs: Sequence[str], runs: Path) -> Serve:
    """Where the run is not there, whoever opens the model says so."""
    named = next(filter(None, map(_RUN.fullmatch, refs)), None)
    file = runs / named[1] / "run.json" if named else None
    if file is None or not file.is_file():
        return Serve()
    try:
        settings = Serve.model_validate(read_json(file)["experiment"]["serve"], strict=False)
    except (KeyError, TypeError, ValidationError):
        raise UserError(f"{file}: holds no section 'serve' of this version; make the run again") from None
    return settings.model_copy(update=dict.fromkeys(_OF_EACH_MODEL))
