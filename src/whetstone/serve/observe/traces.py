"""Spans of requests for OpenTelemetry, where somebody collects them.

Spans are made when a request is over, from the one record of it, and exported by a thread of their own; nothing of them
bears on how fast an answer is. Attributes follow the semantic conventions of OpenTelemetry for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/); what was asked and answered is never among them.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import whetstone
from whetstone.errors import UserError
from whetstone.serve.answered import Answered

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

__all__ = ["Traces", "open_traces"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_CLOSE_S = 2.0

_OPERATIONS = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}


class Traces:
    """Makes a span of each request, with children for its wait, its prefill and its decoding.

    Args:
        provider: Of the tracer; it decides which spans are kept, and where they go.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("whetstone.serve", whetstone.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def answered(self, answered: Answered) -> None:
        """Makes the spans."""
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        # The clock of the record has no date; both are read now.
        offset_s = time.time() - time.monotonic()

        def stamp(moment_s: float) -> int:
            return round((moment_s + offset_s) * 1e9)

        operation = _OPERATIONS.get(answered.endpoint, answered.endpoint)
        span = self._tracer.start_span(
            f"{operation} {answered.model}".rstrip(),
            self._propagator.extract({"traceparent": answered.traceparent} if answered.traceparent else {}),
            SpanKind.SERVER,
            _attributes(answered, operation),
            start_time=stamp(answered.arrived_s),
        )
        if span.is_recording():
            if answered.outcome not in ("ok", "disconnected"):
                span.set_status(Status(StatusCode.ERROR))
            context = set_span_in_context(span)
            for name, start_s, end_s in _parts(answered):
                part = self._tracer.start_span(name, context, start_time=stamp(start_s))
                part.end(stamp(end_s))
        span.end(stamp(answered.ended_s))

    def close(self) -> None:
        """Exports what is left, if somebody takes it within two seconds; the library itself would wait for thirty."""
        ending = threading.Thread(target=self._provider.shutdown, name="whetstone-traces", daemon=True)
        ending.start()
        ending.join(_CLOSE_S)


def _parts(answered: Answered) -> Iterator[tuple[str, float, float]]:
    """What a request went through: name, beginning and end."""
    admitted_s, tokens = answered.admitted_s, answered.token_s
    yield "queue", answered.arrived_s, answered.ended_s if admitted_s is None else admitted_s
    if admitted_s is not None and not answered.cached:
        yield "prefill", admitted_s, tokens[0] if tokens else answered.ended_s
        if tokens:
            yield "decode", tokens[0], answered.ended_s


def _attributes(answered: Answered, operation: str) -> "dict[str, AttributeValue]":
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "whetstone",
        "gen_ai.request.stream": answered.streamed,
        "gen_ai.usage.input_tokens": answered.prompt_tokens,
        "gen_ai.usage.output_tokens": answered.new_tokens,
        "gen_ai.usage.cache_read.input_tokens": answered.reused_tokens,
        "whetstone.request_id": answered.request_id,
        "whetstone.principal": answered.principal,
        "whetstone.choice": answered.choice,
        "whetstone.cached": answered.cached,
        "whetstone.invalid_answers": answered.invalid,
    }
    if answered.model:
        attributes["gen_ai.request.model"] = answered.model
    if answered.answer_id:
        attributes["gen_ai.response.id"] = answered.answer_id
    if answered.finish_reason:
        attributes["gen_ai.response.finish_reasons"] = (answered.finish_reason,)
    if answered.token_s:
        attributes["gen_ai.response.time_to_first_chunk"] = answered.token_s[0] - answered.arrived_s
    if answered.backend:
        attributes["whetstone.backend"] = answered.backend
    if answered.status is not None:
        attributes["http.response.status_code"] = answered.status
    if answered.outcome != "ok":
        attributes["error.type"] = answered.outcome
    return attributes


def open_traces(environment: Mapping[str, str]) -> Traces | None:
    """Traces that go to where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says, by OTLP over HTTP; None where it says nothing.

    All else is set by OpenTelemetry's own variables, such as ``OTEL_SERVICE_NAME`` and ``OTEL_TRACES_SAMPLER``.

    Args:
        environment: Of the process.

    Raises:
        UserError: An endpoint is given, and OpenTelemetry is not installed.
    """
    given = next((name for name in _ENDPOINTS if environment.get(name)), None)
    if given is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise UserError(
            f"{given} is set, but OpenTelemetry is not installed; pip install 'whetstone[otel]', or unset it"
        ) from None
    named = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": "whetstone"}
    resource = Resource.create({**named, "service.version": whetstone.__version__})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)
