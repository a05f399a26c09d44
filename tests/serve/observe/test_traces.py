"""Spans say what became of a request and when, and belong to the trace of the client."""

import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from observed import answered_with
from whetstone.errors import UserError
from whetstone.serve.answered import Answered
from whetstone.serve.observe.traces import Traces, open_traces

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"

Spans = Callable[[Answered], dict[str, ReadableSpan]]


@pytest.fixture
def spans() -> Spans:
    """Gives the spans of an answer by name."""

    def of(answered: Answered) -> dict[str, ReadableSpan]:
        exporter = InMemorySpanExporter()
        # Of what a client traces, what it says is kept; of the rest, all.
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0 if answered.traceparent else 1)))
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        Traces(provider).answered(answered)
        return {span.name: span for span in exporter.get_finished_spans()}

    return of


def _seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None and span.end_time is not None
    return round((span.end_time - span.start_time) / 1e9, 6)


def test_a_request_and_its_parts(spans: Spans) -> None:
    found = spans(answered_with())
    assert set(found) == {"chat demo", "queue", "prefill", "decode"}
    request = found["chat demo"]
    assert {name: _seconds(span) for name, span in found.items()} == {
        "chat demo": 2.5,
        "queue": 1.0,
        "prefill": 0.5,
        "decode": 1.0,
    }
    for name in ("queue", "prefill", "decode"):
        parent = found[name].parent
        assert parent is not None and request.context is not None and parent.span_id == request.context.span_id
    assert request.parent is None and request.kind is SpanKind.SERVER
    assert request.status.status_code is StatusCode.UNSET
    assert found["queue"].end_time == found["prefill"].start_time
    assert found["prefill"].end_time == found["decode"].start_time


def test_spans_have_the_date(spans: Spans) -> None:
    now_s = time.monotonic()
    (request,) = spans(
        answered_with(arrived_s=now_s - 1, ended_s=now_s, admitted_s=None, token_s=(), model="", endpoint="embeddings")
    ).keys() - {"queue"}
    assert request == "embeddings"
    end = spans(answered_with(arrived_s=now_s - 1, ended_s=now_s))["chat demo"].end_time
    assert end is not None and abs(end / 1e9 - time.time()) < 5


def test_attributes_follow_the_conventions(spans: Spans) -> None:
    attributes = spans(answered_with(streamed=True))["chat demo"].attributes
    assert attributes is not None
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI")}
    assert {name for name in attributes if name.startswith("gen_ai.")} <= known
    expected = {
        gen_ai_attributes.GEN_AI_OPERATION_NAME: "chat",
        gen_ai_attributes.GEN_AI_REQUEST_MODEL: "demo",
        gen_ai_attributes.GEN_AI_RESPONSE_ID: "chatcmpl-1",
        gen_ai_attributes.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        gen_ai_attributes.GEN_AI_USAGE_INPUT_TOKENS: 7,
        gen_ai_attributes.GEN_AI_USAGE_OUTPUT_TOKENS: 5,
        gen_ai_attributes.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: 3,
        gen_ai_attributes.GEN_AI_REQUEST_STREAM: True,
        gen_ai_attributes.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: 1.5,
        "http.response.status_code": 200,
        "whetstone.backend": "scripted",
    }
    assert {name: attributes[name] for name in expected} == expected


def test_nothing_of_what_was_said(spans: Spans) -> None:
    for span in spans(answered_with(asked="the question", text="the answer")).values():
        assert "question" not in span.to_json() and 'answer"' not in span.to_json()


@pytest.mark.parametrize("sampled", [True, False])
def test_the_trace_of_the_client(spans: Spans, sampled: bool) -> None:
    found = spans(answered_with(traceparent=f"00-{TRACE}-{PARENT}-0{int(sampled)}"))
    assert bool(found) == sampled
    if sampled:
        request = found["chat demo"]
        assert request.context is not None and request.parent is not None
        assert f"{request.context.trace_id:032x}" == TRACE and f"{request.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize("said", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", "00-" + "é" * 32, "\n" * 55])
def test_what_is_no_trace_is_none(said: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    Traces(provider).answered(answered_with(traceparent=said))
    assert all(span.name != "chat demo" or span.parent is None for span in exporter.get_finished_spans())


@pytest.mark.parametrize(
    ("outcome", "status"), [("backend_lost", StatusCode.ERROR), ("disconnected", StatusCode.UNSET)]
)
def test_failures(spans: Spans, outcome: str, status: StatusCode) -> None:
    found = spans(answered_with(outcome=outcome, admitted_s=101.0, token_s=(), status=503, finish_reason=""))
    request = found["chat demo"]
    assert request.status.status_code is status
    assert request.attributes is not None and request.attributes["error.type"] == outcome
    assert _seconds(found["prefill"]) == 1.5 and "decode" not in found


def test_a_cached_answer_was_not_computed(spans: Spans) -> None:
    assert set(spans(answered_with(cached=True))) == {"chat demo", "queue"}


def test_without_an_endpoint_there_are_none() -> None:
    assert open_traces({}) is None
    assert open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None


def test_an_endpoint_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(UserError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT is set, .* 'whetstone\[otel\]'"):
        open_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"})


def test_spans_go_to_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_request(self, code: object = "-", size: object = "-") -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        traces = open_traces(os.environ)
        assert traces is not None
        traces.answered(answered_with())
        traces.close()
        server.shutdown()
        thread.join()
    ((path, body),) = received
    assert path == "/v1/traces"
    request = ExportTraceServiceRequest.FromString(body)
    (resource,) = request.resource_spans
    assert "whetstone" in [one.value.string_value for one in resource.resource.attributes if one.key == "service.name"]
    (scope,) = resource.scope_spans
    assert {span.name for span in scope.spans} == {"chat demo", "queue", "prefill", "decode"}


def test_the_end_does_not_wait_for_who_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whetstone.serve.observe.traces._CLOSE_S", 0.01)
    taken = threading.Event()

    class Stuck(SpanProcessor):
        def shutdown(self) -> None:
            taken.wait()

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Stuck())
    Traces(provider).close()
    taken.set()
