"""From the name of a model to the folders that it lies in, and the proof that they hold what they should."""

import contextlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from whetstone.errors import UserError
from whetstone.files import read_json, write_json
from whetstone.models.builtin import BUILTIN_BASE
from whetstone.models.fingerprint import digest_weights
from whetstone.models.load import locate
from whetstone.models.merge import merge
from whetstone.models.ref import Gguf, Mlx, ModelRef, RandomWeights, RunModel, Weights, nearest
from whetstone.run import Manifest, Run, list_runs

__all__ = ["Nf4Training", "Resolved", "Resolver", "run_of"]

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_MERGED_NOTE = "merged.json"


@dataclass(frozen=True, slots=True)
class Nf4Training:
    """How the base of a QLoRA run was quantised.

    Attributes:
        weights: The type that the weights had before.
        products: The type that they are multiplied in.
        double: The constants of the quantisation were quantised, too.
    """

    weights: str
    products: str
    double: bool


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a model lies, and what it is.

    Attributes:
        origin: The same in words.
        path: The folder of the weights, or the file of llama.cpp.
        sha256: Hash of the weights; None for those that will be random.
        adapter: The folder of the adapter.
        adapter_sha256: Its hash.
        tokenizer: The folder whose tokenizer and template it was tuned with; None where those of ``path`` are right.
        template: The choice of template that its experiment made.
        template_hash: The template that it was tuned with.
        dtype: The type that its run judges it at; None where it is not of a run.
        trained_nf4: How the base was quantised in training, for every model of a QLoRA run.
    """

    origin: str
    path: Path
    sha256: str | None
    adapter: Path | None = None
    adapter_sha256: str | None = None
    tokenizer: Path | None = None
    template: str = "auto"
    template_hash: str | None = None
    dtype: str | None = None
    trained_nf4: Nf4Training | None = None


def run_of(ref: RunModel, runs: Path) -> Run:
    """The run of a model.

    Raises:
        UserError: There is none of this name.
    """
    run = Run(runs / ref.name)
    if not run.exists():
        there = [other.name for other in list_runs(runs)]
        raise UserError(f"{ref}: no run '{ref.name}' under {runs}{nearest(ref.name, there)}; see 'whet runs'")
    return run


class Resolver:
    """Resolves the models of one command; what several of them share is hashed once."""

    def __init__(self, runs: Path, *, held: str | None = None, known: Mapping[Path, str] | None = None) -> None:
        """Looks at nothing yet.

        Args:
            runs: The folder that holds the runs.
            held: The name of a run whose lock the caller holds already.
            known: Hashes of folders that need not be hashed again, because what was read from them is in memory.
        """
        self._runs = runs
        self._held = held
        self._digests: dict[Path, str] = dict(known or {})

    def resolve(self, ref: ModelRef) -> Resolved:
        """Finds a model. Of ``run:NAME#merged`` the weights are made, once, under the run's lock.

        Raises:
            UserError: It is not there, or not what its run recorded.
        """
        if isinstance(ref, Weights):
            return self._weights(ref)
        if isinstance(ref, RandomWeights):
            return Resolved(f"random weights in the shape of {ref.base}", self._base(ref.base), None)
        if isinstance(ref, Gguf):
            return _gguf(ref)
        if isinstance(ref, Mlx):
            return self.resolve(ref.model)
        if isinstance(ref, RunModel):
            return self._run(ref)
        raise UserError(f"{ref}: its weights are with the server")

    def _weights(self, ref: Weights) -> Resolved:
        folder = self._base(ref.base)
        sha256 = self._digest(folder)
        if ref.adapter is None:
            return Resolved(ref.base, folder, sha256)
        adapter = _expanded(ref.adapter)
        if not (adapter / "adapter_config.json").is_file():
            said = "holds no adapter_config.json" if adapter.is_dir() else f"no such folder{_neighbour(adapter)}"
            raise UserError(f"{adapter}: {said}; give BASE+ADAPTER, the folder of a PEFT adapter behind '+'")
        tokenizer = adapter if (adapter / "tokenizer.json").is_file() else None
        origin = f"{ref.adapter} on {ref.base}"
        return Resolved(origin, folder, sha256, adapter, self._digest(adapter), tokenizer)

    def _base(self, named: str) -> Path:
        """The folder of a base that somebody named."""
        path = _expanded(named)
        if named == BUILTIN_BASE or path.is_dir():
            return locate(named if named == BUILTIN_BASE else str(path))
        if path.is_file():
            raise UserError(f"{named}: a file, not a model folder; a file of llama.cpp is gguf:{named}")
        if Run(self._runs / named).exists():
            raise UserError(f"{named}: no such folder; the run of this name is run:{named}")
        if not _HUB_ID.fullmatch(named):
            raise UserError(f"{named}: no such folder{_neighbour(path)}; a model of the hub is org/name")
        try:
            return locate(named, key=None)
        except UserError as error:
            raise UserError(f"{error}{_neighbour(path)}") from None

    def _run(self, ref: RunModel) -> Resolved:
        run = run_of(ref, self._runs)
        manifest = run.manifest()
        if ref.part == "base":
            return self._of_run(run, manifest, self._run_base(run, manifest), f"what run {run.name} began with")
        if manifest.tuning is None:
            raise UserError(f"{ref}: not tuned yet; call 'whet tune' first, or take run:{ref.name}#base")
        adapts = manifest.experiment.tune.adapts
        tuned = run.weights("adapter" if adapts else "model")
        if not tuned.is_dir() or self._digest(tuned) != manifest.tuning.tuned.sha256:
            raise UserError(
                f"{tuned}: the weights are not those that were tuned; restore them or tune again with --fresh"
            )
        if ref.part == "tuned":
            if not adapts:
                return self._of_run(run, manifest, tuned, f"what run {run.name} tuned")
            base = self._run_base(run, manifest)
            return self._of_run(run, manifest, base, f"the adapter of run {run.name} on its base", adapter=tuned)
        if not adapts:
            raise UserError(f"{ref}: the run tuned the whole model, there is nothing to merge; take run:{ref.name}")
        merged = self._merged(run, manifest, self._run_base(run, manifest), tuned)
        return self._of_run(run, manifest, merged, f"the adapter of run {run.name} merged into its base")

    def _run_base(self, run: Run, manifest: Manifest) -> Path:
        named = manifest.experiment.model.base
        folder = run.weights("base") if named is None else self._base(named)
        if not folder.is_dir():
            raise UserError(f"run:{run.name}#base: the run has made no weights yet; call 'whet tune' first")
        if manifest.base is not None and manifest.base.sha256 != self._digest(folder):
            raise UserError(f"{folder}: the base weights changed since run {run.name} began; restore them")
        return folder

    def _of_run(
        self, run: Run, manifest: Manifest, folder: Path, origin: str, *, adapter: Path | None = None
    ) -> Resolved:
        experiment, settings, tuning = manifest.experiment, manifest.settings, manifest.tuning
        tuned = run.weights("adapter" if experiment.tune.adapts else "model")
        return Resolved(
            origin=origin,
            path=folder,
            sha256=self._digest(folder),
            adapter=adapter,
            adapter_sha256=None if adapter is None else self._digest(adapter),
            tokenizer=tuned if tuning is not None and (tuned / "tokenizer.json").is_file() else None,
            template=experiment.model.template,
            template_hash=None if tuning is None else tuning.template_hash,
            dtype=experiment.model.dtype,
            trained_nf4=Nf4Training(settings.weights, settings.precision, experiment.tune.double_quantisation)
            if settings is not None and settings.quantised
            else None,
        )

    def _merged(self, run: Run, manifest: Manifest, base: Path, adapter: Path) -> Path:
        """The merged weights of a run, made where they are not there or not of these very weights."""
        folder, dtype = run.weights("merged"), manifest.experiment.model.dtype
        note = {"base": self._digest(base), "adapter": self._digest(adapter), "dtype": dtype}
        path = folder / _MERGED_NOTE
        if path.exists() and read_json(path) == note | {"merged": digest_weights(folder)}:
            return folder
        with contextlib.nullcontext() if run.name == self._held else run.lock():
            merged = merge(base, adapter, folder, getattr(torch, dtype))
            write_json(path, note | {"merged": merged})
        return folder

    def _digest(self, folder: Path) -> str:
        if folder not in self._digests:
            self._digests[folder] = digest_weights(folder)
        return self._digests[folder]


def _gguf(ref: Gguf) -> Resolved:
    file = _expanded(ref.file)
    if not file.is_file():
        raise UserError(f"{file}: no such GGUF file{_neighbour(file)}; 'whet export' writes one")
    with file.open("rb") as handle:
        sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
    return Resolved(ref.file, file, sha256)


def _expanded(named: str) -> Path:
    """A path in which ``~`` is the user's home; behind a kind or a sign, no shell replaces it."""
    try:
        return Path(named).expanduser()
    except RuntimeError:  # a home that nobody has
        return Path(named)


def _neighbour(path: Path) -> str:
    """The name in the same folder that is most like one that is not there."""
    try:
        near = [other.name for other in path.parent.iterdir()]
    except (OSError, ValueError):
        return ""
    return nearest(path.name, near)
