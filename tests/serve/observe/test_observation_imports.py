import subprocess
import sys


def test_observing_loads_nothing_that_computes() -> None:
    heavy = "torch", "scipy", "transformers", "pandas", "numpy"
    code = (
        "import sys\n"
        "from whetstone.serve.observe import drift, health, logs, metrics, traces\n"
        f"print([name for name in {heavy} if name in sys.modules], 'opentelemetry.sdk' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] False\n"
