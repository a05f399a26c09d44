"""The experiment: one YAML file that says what to tune, on what, and by which rule it will be judged.

Notable: every key is typed and documented here and nowhere else; unknown keys, wrong types and impossible values are
one line that names file, line, key and mend; the rule under ``judge`` has a hash of its own, so that it can be frozen
before the first token is generated.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from whetstone.data_section import CatalogueSource, Data, FilesSource, ParallelSource, Source
from whetstone.model_section import Model
from whetstone.section import Count, KeyedError, Section, Seed, stable_hash
from whetstone.source_name import is_hub_name
from whetstone.tune_section import Tune
from whetstone.yaml_source import YamlSource

__all__ = [
    "NAME_PATTERN",
    "Experiment",
    "ExtraArm",
    "Generation",
    "Judge",
    "MustImprove",
    "MustNotRegress",
    "Serve",
    "load_experiment",
]

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a run may be called: a plain folder name on every system."""

_ARM_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
"""What an arm may be called: as a run, but without a dot, which parts the keys of a report."""

_TAKEN = ("copy-input", "base", "base-again", "tuned", "examples")
"""The arms of every comparison, and what lies beside their files."""

_OWN = re.compile(r"(tuned|base|merged)(@.*)?")

GateMetric = Literal["exact_match", "over_edit", "empty", "too_short", "extra_text", "truncated"]
"""The metrics that have a better direction; the others describe."""


class Generation(Section):
    """How every arm answers; temperature 0 is greedy."""

    max_new_tokens: Count = 64
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed = 0
    batch_size: Count = 32


class MustImprove(Section):
    """Gate: the tuned arm is better than ``over`` on ``metric``, beyond chance."""

    metric: GateMetric = "exact_match"
    over: Literal["base", "copy-input"] = "base"


class MustNotRegress(Section):
    """Gate: the tuned arm is not worse than ``over`` on ``metric`` by ``margin`` or more."""

    metric: GateMetric
    over: Literal["base", "copy-input"] = "base"
    margin: Annotated[float, Field(gt=0)]


class ExtraArm(Section):
    """One more arm: measured and described like the four, and no part of any gate."""

    name: Annotated[str, Field(pattern=f"^{_ARM_PATTERN}$")]
    model: Annotated[str, Field(min_length=1)]
    """``tuned``, ``base`` or ``merged`` (the adapter merged into the base) of this run, perhaps with ``@float32``,
    ``@bfloat16``, ``@int8`` or ``@nf4``; anything else names a model as in ``whet chat``: ``run:OTHER``,
    ``DIR+ADAPTER``, ``gguf:FILE``, ``mlx:DIR``, ``http://HOST/v1#MODEL``."""

    @model_validator(mode="after")
    def _name_is_free(self) -> "ExtraArm":
        # Some file systems take upper and lower case for the same name.
        if self.name.casefold() in _TAKEN:
            raise KeyedError("name", f"'{self.name}' is taken by what every comparison has; give another name")
        return self

    @property
    def own(self) -> tuple[str, str] | None:
        """Which model of this run it is, and its precision with the sign before it; None where it is another model."""
        found = _OWN.fullmatch(self.model)
        return None if found is None else (found[1], found[2] or "")

    @property
    def baseline(self) -> Literal["base", "tuned"]:
        """The arm that it is a variant of, and is compared with."""
        return "base" if self.own is not None and self.own[0] == "base" else "tuned"


class Judge(Section):
    """The rule of the verdict, fixed before generation."""

    generation: Generation = Generation()
    max_examples: Count | None = None
    """Judge on the first so many held-out examples (in split order); all of them when left out."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    must_improve: Annotated[tuple[MustImprove, ...], Field(min_length=1)] = (
        MustImprove(over="base"),
        MustImprove(over="copy-input"),
    )
    must_not_regress: tuple[MustNotRegress, ...] = ()
    arms: tuple[ExtraArm, ...] = ()
    """Models that are measured beside the four arms: quantised, merged or served variants, or any others."""

    @model_validator(mode="after")
    def _arms_differ_in_name(self) -> "Judge":
        names = [arm.name.casefold() for arm in self.arms]
        for arm in self.arms:
            if names.count(arm.name.casefold()) > 1:
                raise KeyedError("arms", f"more than one is called '{arm.name}'; give each a name of its own")
        return self

    @model_serializer(mode="wrap")
    def _what_was_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out arms where there are none, so that a rule without them keeps its hash."""
        return {key: value for key, value in handler(self).items() if key != "arms" or value}

    def rules(self) -> tuple[MustImprove | MustNotRegress, ...]:
        """All statistical gates, in the order in which they are reported."""
        return (*self.must_improve, *self.must_not_regress)

    def fingerprint(self) -> str:
        """The hash that is written into the run before the first token is generated."""
        return stable_hash(self.model_dump(mode="json"))


class Serve(Section):
    """Where a served model listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000


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
    judge = experiment.judge.model_copy(update={"arms": tuple(arms)})
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
