"""Adapters that are loaded while a server runs: which may be, and on which base.

Whoever asks for one is on the other side of a socket, so a source is the name of a run, or of a folder below the roots
that the server was started with, and nothing else: no absolute path, no way up, no link that leads out. An adapter is
known by the hash of its weights: a copy of what a run was judged with is as good as the run's own folder.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from whetstone.engine.open import Opened
from whetstone.engine.provenance import Provenance
from whetstone.errors import UserError
from whetstone.files import read_json
from whetstone.models.fingerprint import digest_weights
from whetstone.models.ref import RunModel, parse_ref
from whetstone.models.resolve import run_of
from whetstone.serve.proof.open_served import Served, prove_answers
from whetstone.serve.proof.run_of_weights import run_of_weights
from whetstone.serve.proof.verdict import Standing, Verdicts, refuse_unless_forced

__all__ = ["ProvedAdapter", "find_base", "prove_adapter", "serve_adapter"]

_CONFIG = "adapter_config.json"


@dataclass(frozen=True, slots=True)
class ProvedAdapter:
    """An adapter that may be loaded.

    Attributes:
        source: As it was asked for.
        folder: Where it lies, links followed.
        sha256: Hash of its weights.
        base_sha256: Hash of the weights that it was judged on; None where nobody knows, and it is loaded by force.
        standing: What was judged of it.
    """

    source: str
    folder: Path
    sha256: str
    base_sha256: str | None
    standing: Standing


def prove_adapter(source: str, *, runs: Path, roots: Sequence[Path], force: bool) -> ProvedAdapter:
    """Finds an adapter and whether it may be served; nothing of it is loaded yet.

    Args:
        source: ``run:NAME``, or the name of a folder below one of the roots.
        runs: The folder that holds the runs.
        roots: Folders; what lies in them may be asked for.
        force: Load what was not judged, or was judged otherwise than SHIP.

    Raises:
        UserError: There is no such adapter, it may not be served, or it is not what was judged.
    """
    verdicts = Verdicts(runs)
    found = _of_run(source, verdicts) if source.startswith("run:") else _of_folder(source, roots, verdicts)
    refuse_unless_forced(source, found.standing.refusal, force=force)
    return found


def find_base(adapter: ProvedAdapter, opened: Iterable[Opened]) -> Opened:
    """Which of the models here an adapter goes on: the base that it was judged on, in the judged type if that is there.

    Raises:
        UserError: None of them is that.
    """
    bases = [one for one in opened if _is_base(adapter, one.provenance)]
    manifest = adapter.standing.manifest
    dtype = None if manifest is None else manifest.experiment.model.dtype
    alike = [one for one in bases if one.provenance.dtype == dtype]
    if bases:
        return (alike or bases)[0]
    wanted = "a model of torch" if adapter.base_sha256 is None else f"the base of {adapter.base_sha256[:16]}"
    raise UserError(f"{adapter.source}: {wanted} is not served here, so there is nothing to put it on; serve it first")


def serve_adapter(
    name: str, adapter: ProvedAdapter, opened: Opened, *, force: bool, device: str, stage: Callable[[str], None]
) -> Served:
    """Asks a loaded adapter its judged questions again, and says all that is known of it.

    Args:
        name: What requests will call it.
        adapter: As it was proved.
        opened: The adapter on its base. What else its engine computes meanwhile is computed together with this, which
            may round otherwise than when it was judged; so it is best asked when nothing else runs.
        force: Serve it even if it answers otherwise than it was judged.
        device: What was asked for, for what torch runs.
        stage: Told what is being done.

    Raises:
        UserError: Other weights were loaded, or it answers otherwise than it was judged.
    """
    loaded = opened.provenance
    if loaded.adapter_sha256 != adapter.sha256 or adapter.base_sha256 not in (None, loaded.sha256):
        raise UserError(f"{adapter.source}: the weights changed while they were loaded; ask for it again")
    named = replace(opened, provenance=replace(loaded, ref=adapter.source))
    return prove_answers(name, adapter.standing, named, force=force, device=device, stage=stage)


def _of_run(source: str, verdicts: Verdicts) -> ProvedAdapter:
    model = parse_ref(source)
    if not isinstance(model, RunModel) or model.part != "tuned" or model.precision is not None:
        raise UserError(f"{source}: no adapter of a run; give run:NAME")
    run = run_of(model, verdicts.runs)
    manifest, folder = run.manifest(), run.weights("adapter")
    if not manifest.experiment.tune.adapts:
        raise UserError(f"{source}: the run tuned the whole model and has no adapter; start a server with it")
    if manifest.tuning is None or not folder.is_dir():
        raise UserError(f"{source}: not tuned yet; call 'whet tune' first")
    digest = digest_weights(folder)
    if digest != manifest.tuning.tuned.sha256:
        raise UserError(f"{folder}: the weights are not those that were tuned; restore them or tune again with --fresh")
    return _proved(source, folder.resolve(), digest, verdicts.of_run(run, "tuned", sha256=digest))


def _of_folder(source: str, roots: Sequence[Path], verdicts: Verdicts) -> ProvedAdapter:
    folder = _below(source, roots)
    _refuse_unusual(source, folder)
    digest = digest_weights(folder)
    run = run_of_weights(digest, verdicts.runs)
    if run is not None:
        return _proved(source, folder, digest, verdicts.of_run(run, "tuned", sha256=digest))
    return _proved(source, folder, digest, Standing(refusal="not judged: no run here was judged with this adapter"))


def _proved(source: str, folder: Path, digest: str, standing: Standing) -> ProvedAdapter:
    judgement = standing.judgement
    return ProvedAdapter(source, folder, digest, None if judgement is None else judgement.base_sha256, standing)


def _is_base(adapter: ProvedAdapter, here: Provenance) -> bool:
    """Whether weights are those that an adapter was judged on, and quantised as they were then."""
    if here.engine != "torch" or here.random_weights:
        return False
    if adapter.base_sha256 is None:
        return True
    judgement = adapter.standing.judgement
    on_nf4 = judgement is not None and "bitsandbytes" in judgement.packages
    quantised_alike = (here.quantisation or "").startswith("nf4") if on_nf4 else here.quantisation is None
    return here.sha256 == adapter.base_sha256 and quantised_alike


def _below(source: str, roots: Sequence[Path]) -> Path:
    """A folder strictly below one of the roots; what is not there and what must not be seen are told alike.

    Raises:
        UserError: There is none.
    """
    parts = PurePosixPath(source).parts
    plain = bool(parts) and source.isprintable() and ".." not in parts and "\\" not in source
    if plain and not PurePosixPath(source).is_absolute() and not PureWindowsPath(source).drive:
        for root in roots:
            top = root.resolve()
            try:
                folder = (top / source).resolve(strict=True)
            except (OSError, RuntimeError):  # not there; a circle of links
                continue
            if folder != top and folder.is_relative_to(top) and folder.is_dir() and _stays_below(folder, top):
                return folder
    raise UserError(f"{source!r}: no folder of this name below the roots for adapters; give run:NAME or such a folder")


def _stays_below(folder: Path, top: Path) -> bool:
    """Whether all that lies in a folder are plain files and folders, and no link among them leads out of the root."""
    for entry in folder.rglob("*"):
        real = entry.resolve()
        if not real.is_relative_to(top) or not (real.is_file() or real.is_dir()):
            return False
    return True


def _refuse_unusual(source: str, folder: Path) -> None:
    """Refuses what is no LoRA adapter, and one that has a module of its choice imported.

    Raises:
        UserError: It is such.
    """
    if not (folder / _CONFIG).is_file():
        raise UserError(f"{source}: holds no {_CONFIG}; give the folder of a PEFT adapter")
    config = read_json(folder / _CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or config.get("megatron_config"):
        raise UserError(f"{source}: {_CONFIG} is not that of a plain LoRA adapter; give one that PEFT saved")
