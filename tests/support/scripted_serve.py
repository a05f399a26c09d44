"""``whet serve``, but that what answers is scripted: a model called ``refused`` is, and ``slow`` takes its time."""

from scripted_backend import ScriptedBackend
from whetstone.cli.main import main
from whetstone.serve import launch
from whetstone.serve.backend import BackendState
from whetstone.serve.options import ServeOptions


def _make(options: ServeOptions) -> launch.Backends:
    names = [ref.partition("=")[0] for ref in options.refs]
    backend = ScriptedBackend(*names, pause_s=0.1 if "slow" in names else 0.0)
    if "refused" in names:
        backend.state = BackendState("failed", last_error="run:refused: its verdict is REJECT; 'whet report' says why")
    fallbacks = tuple(ScriptedBackend(ref, name=f"fallback {ref}") for ref in options.settings.fallback)
    return launch.Backends((backend,), fallbacks)


if __name__ == "__main__":
    launch.make_backends = _make
    main()
