"""Finds and proves models for a program, and writes what it needs of them."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from whetstone.data.example import Example
from whetstone.data.template import Template
from whetstone.engine.api import Completion, Delta, Request
from whetstone.engine.open import Opened
from whetstone.engine.opened_template import template_of
from whetstone.engine.provenance import Provenance
from whetstone.errors import UserError
from whetstone.evaluate.collect import render_prompts, repeated, request_of
from whetstone.evaluate.evidence import EXAMPLES
from whetstone.evaluate.sample import Sample
from whetstone.files import write_atomic
from whetstone.line_file import LineFile
from whetstone.models.load import context_tokens, load_config, stored_end_ids
from whetstone.models.merge import merge
from whetstone.models.ref import Gguf, Mlx, RandomWeights, RunModel, Server, Weights
from whetstone.models.resolve import Resolved, Resolver
from whetstone.serve.delegate.order import Judged, Prepare, Prepared, PreparedModel
from whetstone.serve.proof.describe import served_model
from whetstone.serve.proof.names import NamedModel, name_models
from whetstone.serve.proof.replay import Replay, batches
from whetstone.serve.proof.verdict import Standing, Verdicts, refuse_unless_forced

__all__ = ["ready_models"]

_DTYPES: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16", "float16")


class _Elsewhere:
    """The engine of a model that another program computes."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        raise UserError("another program computes this model")

    def stream(self, request: Request) -> AsyncIterator[Delta]:
        raise UserError("another program computes this model")

    def close(self) -> None:
        return None


def ready_models(order: Prepare, stage: Callable[[str], None]) -> tuple[Prepared, Template]:
    """Makes models ready.

    Args:
        order: Which, and for what.
        stage: Told what is being done, in words.

    Returns:
        Where they are; and the template that all of them are asked with.

    Raises:
        UserError: A model is not there, may not be served, is not what its run recorded, or is nothing for the program.
    """
    opening, runs = order.opening, Path(order.opening.runs)
    named = name_models(opening.refs)
    verdicts = Verdicts(runs, stage)
    standings = [verdicts.of_model(one.model) for one in named]
    for one, standing in zip(named, standings, strict=True):
        _check_kind(one, order)
        refuse_unless_forced(one.ref, standing.refusal, force=opening.force)
    stage(f"reading the weights of {', '.join(one.name for one in named)}")
    resolver = Resolver(runs)
    found = [resolver.resolve(one.model) for one in named]
    folder = Path(order.folder)
    first = _Ready.of(named[0], found[0], order, stage)
    for one, resolved in zip(named[1:], found[1:], strict=True):
        if order.form != "folders" or resolved.path != found[0].path or resolved.tokenizer != found[0].tokenizer:
            raise UserError(f"{one.ref}: is no adapter on the weights of {named[0].ref}; start a server for each")
    models = tuple(
        _prepared(one, resolved, standing, first, order)
        for one, resolved, standing in zip(named, found, standings, strict=True)
    )
    template_file = folder / "chat_template.jinja"
    write_atomic(template_file, str(first.template.tokenizer.chat_template))
    prepared = Prepared(
        path=str(first.path),
        tokenizer=str(found[0].tokenizer or found[0].path),
        template=str(template_file),
        dtype=first.dtype,
        context_tokens=first.context_tokens,
        stop_ids=tuple(sorted(first.stop_ids)),
        models=models,
    )
    return prepared, first.template


def _check_kind(one: NamedModel, order: Prepare) -> None:
    """Refuses names that say that somebody else computes.

    Raises:
        UserError: One does.
    """
    model = one.model
    if isinstance(model, RandomWeights | Server):
        raise UserError(f"{one.ref}: {order.engine} cannot serve it; leave --backend out")
    if isinstance(model, Gguf) and order.form != "gguf":
        raise UserError(f"{one.ref}: {order.engine} reads no GGUF file; give --backend llamacpp, or leave it out")
    if isinstance(model, Mlx) and order.form != "mlx":
        raise UserError(f"{one.ref}: 'mlx:' names what MLX computes; leave it out, or give --backend mlx")
    if isinstance(model, Weights | RunModel) and model.precision is not None:
        raise UserError(f"{one.ref}: {order.engine} takes weights as they are stored; leave out '@{model.precision}'")


class _Ready:
    """Weights as the program reads them.

    Attributes:
        path: Of the weights.
        template: What they are asked with.
        stop_ids: The tokens that end an answer.
        context_tokens: The longest prompt and answer together.
        dtype: Of the weights.
    """

    def __init__(self, path: Path, template: Template, stop_ids: frozenset[int], context: int, dtype: str) -> None:
        self.path = path
        self.template = template
        self.stop_ids = stop_ids
        self.context_tokens = context
        self.dtype = dtype

    @classmethod
    def of(cls, one: NamedModel, resolved: Resolved, order: Prepare, stage: Callable[[str], None]) -> "_Ready":
        """Writes what the program needs.

        Raises:
            UserError: It cannot be made.
        """
        folder = Path(order.folder)
        if isinstance(one.model, Gguf):
            return cls._of_gguf(resolved.path)
        template = template_of(resolved, "auto")
        config = load_config(resolved.path)
        dtype = resolved.dtype or str(config.dtype or "float32").removeprefix("torch.")
        if dtype not in _DTYPES:
            raise UserError(f"{one.ref}: weights in {dtype} cannot be served by {order.engine}")
        stop_ids = template.stop_ids(stored_end_ids(resolved.path))
        path, context = resolved.path, context_tokens(config)
        if order.form == "gguf":
            path = folder / "model.gguf"
            context = cls._write_gguf(one, path, dtype, order, stage)
        elif order.form == "mlx":
            path = folder / "mlx"
            cls._write_mlx(resolved, path, template, stop_ids, dtype, stage)
        return cls(path, template, stop_ids, context, dtype)

    @classmethod
    def _of_gguf(cls, file: Path) -> "_Ready":
        from whetstone.engine.gguf_file import read_gguf

        said = read_gguf(file, "auto")
        return cls(file, said.template, said.template.stop_ids(()), said.context_tokens, "as stored")

    @staticmethod
    def _write_gguf(one: NamedModel, file: Path, dtype: str, order: Prepare, stage: Callable[[str], None]) -> int:
        from whetstone.engine.gguf_file import read_gguf
        from whetstone.models.export import export_model

        stage(f"writing {one.name} as a GGUF file")
        for known in _DTYPES:
            if known == dtype:
                export_model(str(one.model), file, known, Path(order.opening.runs))
        return read_gguf(file, "auto").context_tokens

    @staticmethod
    def _write_mlx(
        resolved: Resolved,
        out: Path,
        template: Template,
        stop_ids: frozenset[int],
        dtype: str,
        stage: Callable[[str], None],
    ) -> None:
        import torch

        from whetstone.models.mlx import write_mlx

        source = resolved.path
        if resolved.adapter is not None:
            stage("merging the adapter into its base")
            source = out.parent / "merged"
            merge(resolved.path, resolved.adapter, source, getattr(torch, dtype))
        write_mlx(source, out, template, stop_ids)


def _prepared(one: NamedModel, resolved: Resolved, standing: Standing, ready: _Ready, order: Prepare) -> PreparedModel:
    provenance = Provenance(
        ref=one.ref,
        engine=order.engine,
        origin=resolved.origin,
        sha256=resolved.sha256,
        adapter_sha256=resolved.adapter_sha256,
        dtype=None if isinstance(one.model, Gguf) else ready.dtype,
        template_hash=ready.template.hash,
    )
    opened = Opened(_Elsewhere(), ready.template, provenance, context_tokens=ready.context_tokens)
    served = served_model(one.name, standing, opened, Replay(0, 0), forced=standing.refusal, device=None)
    return PreparedModel(
        served=served.model_copy(update={"embeds": False}),
        adapter=str(resolved.adapter) if resolved.adapter is not None and order.form == "folders" else None,
        trained_nf4=resolved.trained_nf4 is not None,
        refusal=standing.refusal,
        judged=tuple(_judged(standing, ready.template)),
    )


def _judged(standing: Standing, template: Template) -> Iterator[Judged]:
    """The first judged answers, where they were greedy: what was drawn by chance, another program draws otherwise."""
    if standing.run is None or standing.manifest is None or standing.judgement is None:
        return
    generation = standing.manifest.experiment.judge.generation
    path = standing.run.samples / f"{standing.arm}.jsonl"
    if generation.temperature != 0 or not path.exists():
        return
    file = LineFile.open(path)
    count = max((stop for _, stop in batches(len(file), generation.batch_size)), default=0)
    rows = [Sample.from_row(row) for row in file.rows(0, count)]
    examples = map(Example.from_row, LineFile.open(standing.run.samples / EXAMPLES).rows(0, count))
    needed = list(islice(examples, -(-count // generation.repeats)))
    prompts = repeated(render_prompts(needed, template), generation.repeats)[:count]
    for row, prompt in zip(rows, prompts, strict=True):
        request = request_of(prompt, standing.arm, None, generation)
        same = (row.example, row.prompt_hash) == (prompt.example.id, prompt.hash)
        yield Judged(row.example, prompt.messages, request.max_new_tokens, request.sampling, row.text, same)
