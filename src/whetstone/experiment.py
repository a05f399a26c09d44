"""The experiment: one YAML file that says what to tune, on what, and by which rule it will be judged.

Notable: every key is typed and documented here and nowhere else; unknown keys, wrong types and impossible values are
one line that names file, line, key and mend.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from whetstone.data_section import CatalogueSource, Data, FilesSource, ParallelSource, Source
from whetstone.judge_section import Judge
from whetstone.model_section import Model
from whetstone.section import KeyedError, Section, stable_hash
from whetstone.serve_section import Serve
from whetstone.source_name import is_hub_name
from whetstone.suites import suite_names
from whetstone.tune_section import Tune
from whetstone.yaml_source import YamlSource

__all__ = ["NAME_PATTERN", "Experiment", "load_experiment"]

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a run may be called: a plain folder name on every system."""


class Experiment(Section):
    """The whole file."""

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """The run's folder name; the file's own name when left out."""
    model: Model
    data: Data
    tune: Tune = Tune()
    judge: Judge = Judge()
    serve: Serve = Serve()

    @model_validator(mode="after")
    def _method_fits_model(self) -> "Experiment":
        if (self.tune.method == "scratch") != (self.model.scratch is not None):
            raise KeyedError("tune.method", "'scratch' and 'model.scratch' go together: give both or neither")
        scratch = self.model.scratch
        if scratch is not None and self.data.max_tokens > scratch.context_tokens:
            raise KeyedError(
                "data.max_tokens",
                f"{self.data.max_tokens} exceeds model.scratch.context_tokens ({scratch.context_tokens}); lower it",
            )
        return self

    def fingerprint(self) -> str:
        """Hash of the effective configuration: two runs with the same hash were asked to do the same thing."""
        return stable_hash(self.model_dump(mode="json"))

    def training_fingerprint(self) -> str:
        """Hash of what determines the tuned weights: the model, data and tune sections, but not how data is checked."""
        values = self.model_dump(mode="json", include={"model", "data"})
        del values["data"]["lint"]
        values["tune"] = self.tune.what_learns()
        return stable_hash(values)


def load_experiment(path: Path) -> Experiment:
    """Reads and validates one experiment file; relative paths in it are taken from the file's own folder.

    Raises:
        whetstone.errors.UserError: The file is missing, is not YAML, or says something that cannot be meant.
    """
    source = YamlSource.read(path)
    values = source.mapping()
    if "name" not in values:
        if not re.fullmatch(NAME_PATTERN, path.stem):
            raise source.problem(
                ["name"], f"'{path.stem}' cannot be a run's name; add 'name:' with letters, digits, - or _"
            )
        values["name"] = path.stem
    try:
        experiment = Experiment.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise source.explain(error, Experiment) from None
    return _with_absolute_paths(experiment, path.resolve().parent, source)


def _with_absolute_paths(experiment: Experiment, folder: Path, yaml: YamlSource) -> Experiment:
    """Resolves paths, and reports the ones that do not exist at the line that names them."""
    model, data = experiment.model, experiment.data
    paths = _Paths(folder, yaml)
    if model.base is not None and (model.base.startswith((".", "/", "~")) or paths.holds(model.base)):
        model = model.model_copy(update={"base": paths.existing(model.base, "model", "base")})
    if model.template not in ("auto", "plain", "chatml"):
        model = model.model_copy(update={"template": paths.existing(model.template, "model", "template")})
    data = data.model_copy(update={"source": paths.source(data.source, "data", "source")})
    if data.replay is not None:
        source = paths.source(data.replay.source, "data", "replay", "source")
        data = data.model_copy(update={"replay": data.replay.model_copy(update={"source": source})})
    arms = (
        arm if arm.own else arm.model_copy(update={"model": paths.reference(arm.model)})
        for arm in experiment.judge.arms
    )
    suites = tuple(paths.suite(name, index) for index, name in enumerate(experiment.judge.suites))
    judge = experiment.judge.model_copy(update={"arms": tuple(arms), "suites": suites})
    return experiment.model_copy(update={"model": model, "data": data, "judge": judge})


@dataclass(frozen=True)
class _Paths:
    """Makes the paths of one experiment file absolute."""

    folder: Path
    yaml: YamlSource

    def existing(self, text: str, *key: str | int) -> str:
        try:
            candidate = (self.folder / Path(text).expanduser()).resolve()
            found = candidate.exists()
        # A home that nobody has; a name that is too long; a zero character.
        except (RuntimeError, OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise self.yaml.problem(key, f"cannot be a path ({reason}); give the path of a file or folder") from None
        if not found:
            # Its repr shows what cannot be printed.
            shown = str(candidate) if str(candidate).isprintable() else repr(str(candidate))
            raise self.yaml.problem(key, f"no such file: {shown}; paths are taken from the experiment's folder")
        return str(candidate)

    def holds(self, text: str) -> bool:
        """Whether there is such a file or folder beside the experiment."""
        try:
            return (self.folder / text).exists()
        except (OSError, ValueError):
            return False

    def reference(self, text: str) -> str:
        """The name of a model; files and folders in it that are beside the experiment become absolute."""
        kind, colon, named = text.partition(":") if text.startswith(("gguf:", "mlx:")) else ("", "", text)
        return kind + colon + "+".join(map(self._weights, named.split("+")))

    def suite(self, text: str, index: int) -> str:
        """A suite of the package by its name, or a file."""
        if text in suite_names():
            return text
        if text.endswith(".yaml"):
            return self.existing(text, "judge", "suites", index)
        known = ", ".join(suite_names())
        raise self.yaml.problem(
            ("judge", "suites", index), f"'{text}' is neither a suite of the package ({known}) nor a .yaml file"
        )

    def _weights(self, text: str) -> str:
        body, sign, precision = text.rpartition("@")
        for named, rest in ((text, ""), (body, sign + precision)):
            if named and self.holds(named):
                return str((self.folder / named).resolve()) + rest
        return text

    def rows(self, text: str, *key: str | int) -> str:
        """A file, a folder, or (left as it is) what can only be a hub id."""
        return text if is_hub_name(text) and not self.holds(text) else self.existing(text, *key)

    def source(self, source: Source, *key: str | int) -> Source:
        if isinstance(source, str):
            return self.rows(source, *key)
        if isinstance(source, ParallelSource):
            return self.parallel(source, *key)
        if isinstance(source, CatalogueSource):
            path = self.existing(source.dataset_info, *key, "dataset_info")
            return source.model_copy(update={"dataset_info": path})
        if isinstance(source, FilesSource):
            parts = {name: part for name in ("train", "validation", "test") if (part := getattr(source, name))}
            return FilesSource(**{name: self.part(part, *key, name) for name, part in parts.items()})
        return source

    def part(self, part: str | ParallelSource, *key: str | int) -> str | ParallelSource:
        return self.rows(part, *key) if isinstance(part, str) else self.parallel(part, *key)

    def parallel(self, source: ParallelSource, *key: str | int) -> ParallelSource:
        return ParallelSource(
            src=self.existing(source.src, *key, "src"),
            refs=tuple(self.existing(name, *key, "refs", i) for i, name in enumerate(source.refs)),
        )
