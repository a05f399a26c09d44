"""Who may answer for a name."""

import pytest

from scripted_backend import ScriptedBackend
from whetstone.serve.api.candidates import candidates
from whetstone.serve.api.service import Service
from whetstone.serve.backend import BackendState
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.admission import Admission
from whetstone.serve.gate.keys import KeyRing
from whetstone.serve_section import Limits, Serve


def test_a_fallback_stands_in_for_what_was_named_and_for_nothing_else() -> None:
    away = ScriptedBackend(models={})
    away.state = BackendState("starting")
    fallback = ScriptedBackend("other")
    names = frozenset({"demo"})
    service = Service(Serve(), (away, fallback), KeyRing.read(None, {}), Admission(Limits()), (fallback,), names=names)
    assert [(backend, model.name) for backend, model in candidates(service, "demo")] == [(fallback, "other")]
    assert [model.name for _, model in candidates(service, "other")] == ["other"]
    with pytest.raises(ServeError) as refused:
        list(candidates(service, "dmeo"))
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
