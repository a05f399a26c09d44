"""Opens any model by its name (:mod:`whetstone.models.ref`): its engine, its template, and the proof of what it is.

Notable: models that differ by their adapters alone share one copy of the weights, so that a tuned model and its base
can be asked at the same time for the memory of one.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from whetstone.data.example import Message
from whetstone.data.template import Template
from whetstone.engine.api import Constraint, Engine, Request, Sampling
from whetstone.engine.open_torch import TorchWeights, asked_with, load_torch, torch_weights
from whetstone.engine.opened_template import template_of
from whetstone.engine.provenance import Provenance
from whetstone.engine.server_key import key_for
from whetstone.errors import UserError
from whetstone.models.load import context_tokens, load_config
from whetstone.models.ref import Gguf, ModelRef, RandomWeights, RunModel, Server, Weights, is_there, parse_ref
from whetstone.models.resolve import Resolved, Resolver

if TYPE_CHECKING:
    from whetstone.engine.torch_engine import TorchEngine

__all__ = ["Opened", "close_adapter", "open_adapter", "open_engine", "open_engines"]

_ADAPTER_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that can be asked.

    Attributes:
        engine: Answers; models that share weights share it.
        template: Renders messages; None where a server does.
        provenance: What it is.
        adapter: The adapter that requests have to name.
        context_tokens: The longest prompt and answer together; None where nobody knows.
        weights: What torch holds; None where another engine computes.
    """

    engine: Engine
    template: Template | None
    provenance: Provenance
    adapter: str | None = None
    context_tokens: int | None = None
    weights: TorchWeights | None = None

    def request(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: tuple[str, ...] = (),
        logprobs: int | None = None,
        constraint: Constraint | None = None,
        deadline_s: float | None = None,
    ) -> Request:
        """A request that asks this model; its arguments are the fields of :class:`Request`.

        Raises:
            UserError: The template does not take the messages.
        """
        return Request(
            token_ids=() if self.template is None else tuple(self.template.prompt_ids(messages)),
            max_new_tokens=max_new_tokens,
            sampling=sampling or Sampling(),
            seed=seed,
            adapter=self.adapter,
            stop=stop,
            logprobs=logprobs,
            constraint=constraint,
            deadline_s=deadline_s,
            messages=tuple(messages),
        )

    def embed(self, token_ids: Sequence[int]) -> list[float]:
        """A text as a vector; see :meth:`whetstone.engine.torch_engine.TorchEngine.embed`.

        Raises:
            UserError: It is empty or too long, or another engine than torch computes, which tells no hidden states.
        """
        return _torch_engine(self, "makes no vectors of texts").embed(token_ids, self.adapter)

    def close(self) -> None:
        """Ends the engine, for all models that share it; to close twice is nothing."""
        self.engine.close()


@dataclass(frozen=True, slots=True)
class _Found:
    """A model that was found here, and not opened yet.

    Attributes:
        ref: Its name.
        model: The same, read.
        resolved: Where it lies.
        template: What it is asked with.
        context_tokens: The longest prompt and answer together.
        weights: What torch has to load; None where another engine computes.
    """

    ref: str
    model: ModelRef
    resolved: Resolved
    template: Template
    context_tokens: int
    weights: TorchWeights | None = None

    @property
    def adapter(self) -> str | None:
        """What the adapter is called in torch's engine: its own hash, which no other adapter has."""
        digest = self.resolved.adapter_sha256
        return None if digest is None else digest[:_ADAPTER_DIGITS]


def open_engine(
    ref: str,
    *,
    runs: Path,
    device: str = "auto",
    dtype: str | None = None,
    template: str = "auto",
    test_mode: bool = False,
) -> Opened:
    """Opens one model; see :func:`open_engines`."""
    return open_engines([ref], runs=runs, device=device, dtype=dtype, template=template, test_mode=test_mode)[0]


def open_engines(
    refs: Sequence[str],
    *,
    runs: Path,
    device: str = "auto",
    dtype: str | None = None,
    template: str = "auto",
    test_mode: bool = False,
) -> list[Opened]:
    """Opens models, in their order. All are found and proved before the weights of the first are read.

    Args:
        refs: Their names.
        runs: The folder that holds the runs.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``, for what torch runs; others choose for themselves.
        dtype: Of the weights that torch runs, where their names say none; None as their run or their folder says.
        template: ``auto`` (that which a model was tuned with, else its own), ``plain``, ``chatml`` or a Jinja file.
        test_mode: Allow random weights.

    Raises:
        UserError: A model is not there, is not what its run recorded, or cannot be opened.
    """
    parsed = [parse_ref(ref, is_there) for ref in refs]
    for ref, model in zip(refs, parsed, strict=True):
        if isinstance(model, RandomWeights) and not test_mode:
            raise UserError(f"{ref}: random weights answer nonsense: only with --test-mode")
    resolver = Resolver(runs)
    found = [
        _find(ref, model, resolver, template=template, device=device, dtype=dtype)
        for ref, model in zip(refs, parsed, strict=True)
        if not isinstance(model, Server)
    ]
    here = iter(found)
    with contextlib.ExitStack() as closing:
        engines = _torch_engines(found, closing)
        opened = []
        for ref, model in zip(refs, parsed, strict=True):
            one = _open_server(ref, model) if isinstance(model, Server) else _open(next(here), engines)
            closing.callback(one.close)
            opened.append(one)
        closing.pop_all()
    return opened


def open_adapter(base: Opened, source: str | Path, *, runs: Path, template: str = "auto") -> Opened:
    """Opens one more adapter on weights that are in memory, while other models on them answer.

    Args:
        base: A model of torch, with an adapter or without; the new one shares its weights.
        source: The folder of an adapter, or the name of a model (``run:NAME``) that is an adapter on these weights.
            An adapter from a folder lies on the weights as they are held; one by name has to be meant for them as they
            are held, or its name has to say so (``run:NAME@bfloat16``).
        runs: The folder that holds the runs.
        template: As of :func:`open_engines`.

    Raises:
        UserError: It is not there, is not what its run recorded, is open already, does not fit, or is meant for other
            weights, another precision or another template than these; the engine is as it was then.
    """
    engine, weights = _torch_engine(base, "takes no adapters"), base.weights
    if weights is None:
        raise UserError(f"{base.provenance.ref}: was not opened by its name, so nobody knows what an adapter fits")
    known = {} if base.provenance.sha256 is None else {weights.folder: base.provenance.sha256}
    found = _find_adapter(base, weights, source, Resolver(runs, known=known), template)
    resolved, adapter = found.resolved, found.resolved.adapter
    if adapter is None or found.adapter is None or found.weights is None:
        raise UserError(f"{source}: no adapter on other weights; open it by itself")
    _check_shared(found, found.weights, base, weights)
    engine.load_adapter(found.adapter, adapter)
    provenance = replace(
        base.provenance,
        ref=found.ref,
        origin=resolved.origin,
        adapter_sha256=resolved.adapter_sha256,
        template_hash=found.template.hash,
    )
    return replace(base, template=found.template, provenance=provenance, adapter=found.adapter)


def close_adapter(opened: Opened) -> None:
    """Takes an adapter off the weights that it shares; what it is answering is cancelled.

    Raises:
        UserError: It is no adapter, or was taken off before.
    """
    engine = _torch_engine(opened, "takes no adapters")
    if opened.adapter is None:
        raise UserError(f"{opened.provenance.ref}: no adapter; close it with its engine")
    engine.unload_adapter(opened.adapter)


def _torch_engine(opened: Opened, otherwise: str) -> "TorchEngine":
    # Slow to import, and not needed for the other engines.
    from whetstone.engine.torch_engine import TorchEngine

    if not isinstance(opened.engine, TorchEngine):
        provenance = opened.provenance
        raise UserError(f"{provenance.ref}: the engine '{provenance.engine}' {otherwise}; open the model with torch")
    return opened.engine


def _find_adapter(base: Opened, weights: TorchWeights, source: str | Path, resolver: Resolver, template: str) -> _Found:
    """Finds an adapter; one from a folder lies on the weights as they are held."""
    if isinstance(source, str):
        model = parse_ref(source, is_there)
        if not isinstance(model, Weights | RunModel):
            raise UserError(f"{source}: no adapter; give the folder of one, or run:NAME")
        return _find(source, model, resolver, template=template, device=weights.device, dtype=None)
    model = Weights(str(weights.folder), str(source))
    resolved = resolver.resolve(model)
    resolved = replace(resolved, origin=f"{source} on {base.provenance.origin}")
    if resolved.tokenizer is None and base.template is not None and template == "auto":
        # It brings none of its own: it is asked as the base is.
        rendered = base.template
    else:
        rendered = template_of(resolved, template)
    held = replace(weights, asked_with=asked_with(rendered))
    return _Found(str(source), model, resolved, rendered, base.context_tokens or 0, held)


def _check_shared(found: _Found, meant: TorchWeights, base: Opened, held: TorchWeights) -> None:
    """Refuses an adapter that is not meant for these weights as they are held and asked.

    Raises:
        UserError: It is meant for others.
    """
    ref, other = found.ref, base.provenance.ref
    if found.resolved.sha256 != base.provenance.sha256:
        raise UserError(f"{ref}: lies on other weights than {other}; open it by itself")
    if meant.asked_with != held.asked_with:
        raise UserError(f"{ref}: asked with another template or tokenizer than {other}; open it by itself")
    if replace(meant, folder=held.folder) != held:
        said, holding = (f"{one.dtype}{_said(one)}" for one in (meant, held))
        raise UserError(
            f"{ref}: meant for weights in {said}, and {other} holds them in {holding}; open it by itself, or name the "
            "precision behind its name"
        )


def _said(weights: TorchWeights) -> str:
    quantisation = weights.described()
    return "" if quantisation is None else f" ({quantisation}, multiplied in {weights.products})"


def _find(ref: str, model: ModelRef, resolver: Resolver, *, template: str, device: str, dtype: str | None) -> _Found:
    resolved = resolver.resolve(model)
    if isinstance(model, Gguf):
        from whetstone.engine.gguf_file import read_gguf

        file = read_gguf(resolved.path, template)
        return _Found(ref, model, resolved, file.template, file.context_tokens)
    rendered, context = template_of(resolved, template), context_tokens(load_config(resolved.path))
    if not isinstance(model, Weights | RunModel | RandomWeights):
        return _Found(ref, model, resolved, rendered, context)
    weights = torch_weights(model, resolved, rendered, device=device, dtype=dtype)
    return _Found(ref, model, resolved, rendered, context, weights)


def _torch_engines(found: Sequence[_Found], closing: contextlib.ExitStack) -> dict[TorchWeights, Engine]:
    """One engine for each copy of weights, with the adapters of all models that are otherwise the same."""
    engines: dict[TorchWeights, Engine] = {}
    for first in found:
        if first.weights is None or first.weights in engines:
            continue
        # Slow to import, and not needed for the other engines.
        from whetstone.engine.torch_engine import TorchEngine

        sharers = [one for one in found if one.weights == first.weights]
        adapters = {one.adapter: one.resolved.adapter for one in sharers if one.adapter and one.resolved.adapter}
        engine = TorchEngine(load_torch(first.weights, first.ref), first.template, adapters=adapters)
        closing.callback(engine.close)
        engines[first.weights] = engine
    return engines


def _open(one: _Found, engines: Mapping[TorchWeights, Engine]) -> Opened:
    resolved, weights = one.resolved, one.weights
    provenance = Provenance(
        ref=one.ref,
        engine="torch",
        origin=resolved.origin,
        sha256=resolved.sha256,
        adapter_sha256=resolved.adapter_sha256,
        template_hash=one.template.hash,
    )
    if weights is not None:
        held = replace(
            provenance,
            dtype=weights.dtype,
            quantisation=weights.described(),
            random_weights=weights.random,
            device=weights.device,
        )
        return Opened(engines[weights], one.template, held, one.adapter, one.context_tokens, weights)
    if isinstance(one.model, Gguf):
        from whetstone.engine.llama_cpp import llama_cpp_engine

        engine = llama_cpp_engine(resolved.path, one.template, context_tokens=one.context_tokens)
        provenance = replace(provenance, engine="llama.cpp")
    else:
        from whetstone.engine.mlx_engine import mlx_engine

        engine = mlx_engine(resolved.path, one.template, adapter=resolved.adapter)
        provenance = replace(provenance, engine="mlx")
    return Opened(engine, one.template, provenance, context_tokens=one.context_tokens)


def _open_server(ref: str, server: Server) -> Opened:
    from whetstone.engine.http_engine import HttpEngine

    engine = HttpEngine(server.url, server.model, api_key=key_for(server.url, os.environ))
    return Opened(engine, None, Provenance(ref=ref, engine="http", origin=server.url))
