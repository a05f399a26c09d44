"""The experiment: one YAML file that says what to tune, on what, and by which rule it will be judged.

Notable: every key is typed and documented here and nowhere else; unknown keys, wrong types and impossible values are
one line that names file, line, key and mend; the rule under ``judge`` has a hash of its own, so that it can be frozen
before the first token is generated.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from whetstone.yaml_source import YamlSource

__all__ = [
    "NAME_PATTERN",
    "Data",
    "Experiment",
    "Generation",
    "GrammarSource",
    "Judge",
    "Model",
    "MustImprove",
    "MustNotRegress",
    "ParallelSource",
    "Scratch",
    "Serve",
    "Split",
    "Tune",
    "load_experiment",
    "stable_hash",
]

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a run may be called: a plain folder name on every system."""

Count = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Share = Annotated[float, Field(ge=0, le=1)]
GateMetric = Literal["exact_match", "over_edit", "empty", "too_short", "extra_text", "truncated"]
"""The metrics that have a better direction; the others describe."""


class KeyedError(ValueError):
    """A value that is wrong only in the light of another; ``key`` says which line to show."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Section(BaseModel):
    """What all sections share: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Scratch(Section):
    """The shape of a Llama-type decoder that starts from random weights, and of its own BPE tokenizer."""

    vocabulary_size: Count = 2048
    dim: Count = 256
    layers: Count = 2
    heads: Count = 4
    feed_forward_dim: Count = 512
    context_tokens: Count = 128

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> "Scratch":
        if self.dim % (2 * self.heads):
            raise KeyedError("heads", f"dim {self.dim} must be a multiple of 2 x heads ({self.heads})")
        if self.vocabulary_size < 260:
            raise KeyedError("vocabulary_size", "needs at least 260 (256 bytes and 4 special tokens)")
        return self


class Model(Section):
    """Where the weights come from and how messages become tokens."""

    base: str | None = None
    """A directory, a hub id, or ``builtin:demo-base``."""
    scratch: Scratch | None = None
    """Start from random weights of this shape instead of a base."""
    template: str = "auto"
    """``auto`` (the tokenizer's own), ``plain``, ``chatml``, or a path to a Jinja file."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    @model_validator(mode="after")
    def _one_origin(self) -> "Model":
        if (self.base is None) == (self.scratch is None):
            raise KeyedError("base", "give exactly one of 'base' (a model) and 'scratch' (a shape)")
        return self


class ParallelSource(Section):
    """Two or more text files with one sentence a line: line i of every ``refs`` file corrects line i of ``src``."""

    src: str
    refs: Annotated[tuple[str, ...], Field(min_length=1)]


class GrammarSource(Section):
    """The embedded grammar-correction corpus, generated from a seed and split by frame and vocabulary group."""

    grammar: Literal["corrections", "instructions"]
    """``corrections``: learner sentences. ``instructions``: clean writing, copying and formatting, no correction."""
    train: Count = 6000
    validation: Count = 200
    test: Count = 400
    seed: Seed = 0


def _source_kind(value: Any) -> str:
    """Names the member of the union by what was given; the brackets keep tags apart from keys in error locations."""
    if isinstance(value, dict):
        return "<grammar>" if "grammar" in value else "<parallel>"
    if isinstance(value, GrammarSource):
        return "<grammar>"
    return "<parallel>" if isinstance(value, ParallelSource) else "<path>"


Source = Annotated[
    Annotated[str, Tag("<path>")]
    | Annotated[ParallelSource, Tag("<parallel>")]
    | Annotated[GrammarSource, Tag("<grammar>")],
    Discriminator(_source_kind),
]


class Split(Section):
    """How many groups go where; a count, or a share of all groups. Training takes what is left unless it is given."""

    train: Count | None = None
    validation: Annotated[float, Field(ge=0)] = 0.05
    test: Annotated[float, Field(gt=0)] = 0.2
    seed: Seed = 0


class Data(Section):
    """Which examples, how they are asked, and how they are divided."""

    source: Source
    prompt: str = "{source}"
    """The user turn; ``{source}`` stands for the sentence. Ignored for rows that bring their own messages."""
    system: str | None = None
    split: Split = Split()
    max_tokens: Count = 512
    """The longest training sequence, prompt and answer together."""
    too_long: Literal["raise", "drop"] = "raise"

    @model_validator(mode="after")
    def _prompt_holds_source(self) -> "Data":
        if "{source}" not in self.prompt:
            raise KeyedError("prompt", "must contain '{source}', the place where the sentence goes")
        return self


class Tune(Section):
    """How the weights are changed."""

    method: Literal["lora", "full", "scratch"] = "lora"
    rank: Count = 16
    alpha: Count = 32
    dropout: Share = 0.0
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    references: Literal["first", "all"] = "all"
    """Learn the first reference of an example, or every one (each becomes a training row)."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    steps: Count | None = None
    """Optimiser steps; when given, ``epochs`` is not used."""
    batch_size: Count = 16
    accumulation: Count = 1
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    warmup_ratio: Share = 0.1
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    seed: Seed = 0


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
        """Hash of what determines the tuned weights: the model, data and tune sections."""
        return stable_hash(self.model_dump(mode="json", include={"model", "data", "tune"}))


def stable_hash(value: Any) -> str:
    """SHA-256 of a JSON value, independent of key order; the first 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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

    def existing(text: str, *key: str | int) -> str:
        candidate = (folder / Path(text).expanduser()).resolve()
        if not candidate.exists():
            raise yaml.problem(key, f"no such file: {candidate}; paths are taken from the experiment's folder")
        return str(candidate)

    source: str | ParallelSource | GrammarSource = experiment.data.source
    if isinstance(source, str):
        source = existing(source, "data", "source")
    elif isinstance(source, ParallelSource):
        source = ParallelSource(
            src=existing(source.src, "data", "source", "src"),
            refs=tuple(existing(name, "data", "source", "refs", i) for i, name in enumerate(source.refs)),
        )
    model = experiment.model
    if model.base is not None and (model.base.startswith((".", "/", "~")) or (folder / model.base).exists()):
        model = model.model_copy(update={"base": existing(model.base, "model", "base")})
    if model.template not in ("auto", "plain", "chatml"):
        model = model.model_copy(update={"template": existing(model.template, "model", "template")})
    data = experiment.data.model_copy(update={"source": source})
    return experiment.model_copy(update={"model": model, "data": data})
