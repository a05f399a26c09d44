"""The weights of the tuned arm: which they are, how they are loaded, and what the judgement says of them.

Notable: what QLoRA tuned is an adapter on a base in NF4, and is judged as that. Its base arms are the whole base: one
that quantisation had damaged first would be easier to beat.
"""

import importlib.metadata
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from whetstone.engine.torch_engine import TorchEngine
from whetstone.errors import UserError
from whetstone.experiment import Experiment
from whetstone.models.fingerprint import digest_weights, record_weights
from whetstone.models.load import LanguageModel, end_ids, load_weights
from whetstone.models.quantise import nf4
from whetstone.run import Manifest, Run, SettingsRecord, WeightsRecord, installed_packages

__all__ = [
    "ADAPTER",
    "judged_packages",
    "load_tuned",
    "open_engine",
    "quantised_settings",
    "record_candidate",
    "tuned_folder",
]

ADAPTER = "tuned"
"""The name of the adapter in the engine."""


def tuned_folder(run: Run, manifest: Manifest) -> Path:
    """Where the weights are that the run tuned.

    Raises:
        UserError: It has tuned none, or they changed since.
    """
    if manifest.tuning is None:
        raise UserError(f"{run.path}: not tuned yet; call 'whet tune' first, or name weights with --candidate")
    folder = run.weights("adapter" if manifest.experiment.tune.adapts else "model")
    if digest_weights(folder) != manifest.tuning.tuned.sha256:
        raise UserError(f"{folder}: the weights are not those that were tuned; restore them or tune again with --fresh")
    return folder


def quantised_settings(manifest: Manifest) -> SettingsRecord | None:
    """What the run's adapter was trained with, where its base was in NF4."""
    settings = manifest.settings
    return settings if settings is not None and settings.quantised else None


def load_tuned(
    base: LanguageModel, folder: Path, experiment: Experiment, quantised: SettingsRecord | None
) -> tuple[PreTrainedModel, dict[str, Path]]:
    """The model of the tuned arm, and the adapter that goes on it where there is one.

    An adapter shares the base's weights, unless it was trained on quantised ones.
    """
    if folder == base.folder:
        return base.model, {}
    if (folder / "adapter_config.json").exists():
        under = base.model if quantised is None else _load_quantised(base, experiment, quantised)
        return under, {ADAPTER: folder}
    tuned = load_weights(folder, dtype=experiment.model.dtype, device=base.model.device)
    ours, theirs = (path / "tokenizer.json" for path in (base.folder, folder))
    if theirs.exists() and ours.exists() and Tokenizer.from_file(str(theirs)).get_vocab() != base.template.vocabulary():
        raise UserError(f"{folder}: its tokenizer is not the base's; arms can be compared on equal token ids only")
    return tuned, {}


def open_engine(
    model: PreTrainedModel, base: LanguageModel, adapters: dict[str, Path], experiment: Experiment
) -> TorchEngine:
    """An engine that answers a whole batch at once; every arm ends its answers with the base's end tokens."""
    stop_ids = base.template.stop_ids(end_ids(base.model))
    rows = experiment.judge.generation.batch_size
    return TorchEngine(model, base.template, stop_ids=stop_ids, adapters=adapters, max_rows=rows)


def _load_quantised(base: LanguageModel, experiment: Experiment, settings: SettingsRecord) -> PreTrainedModel:
    """A second copy of the base, in the very numbers that training had: rounding first would change the NF4 codes."""
    device, double = base.model.device, experiment.tune.double_quantisation
    quantisation = nf4(device, compute_dtype=getattr(torch, settings.precision), double=double)
    return load_weights(base.folder, dtype=settings.weights, device=device, quantisation=quantisation)


def record_candidate(
    folder: Path, tuned: PreTrainedModel, experiment: Experiment, quantised: SettingsRecord | None
) -> WeightsRecord:
    """What the judgement says of the tuned arm's weights."""
    if quantised is None:
        return record_weights(str(folder), folder, tuned)
    constants = ", its constants quantised too" if experiment.tune.double_quantisation else ""
    origin = f"{folder} on the base in NF4{constants} ({quantised.weights} weights, products in {quantised.precision})"
    return record_weights(origin, folder, tuned)


def judged_packages(quantised: SettingsRecord | None) -> dict[str, str]:
    """What the numbers depend on.

    The quantisation is that of bitsandbytes, so it stands among them; by it, too, an adapter on a quantised base and
    the same adapter on the whole base are two judgements.
    """
    if quantised is None:
        return installed_packages()
    return installed_packages() | {"bitsandbytes": importlib.metadata.version("bitsandbytes")}
