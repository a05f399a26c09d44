"""Makes the base model of the demo again, from nothing, and puts it where the package ships it.

Run as: .venv/bin/python scripts/make_demo_base.py   (about six minutes on two cores)

The recipe is ``demo-base``; ``whet demo --from-scratch`` trains the same model into ``runs/demo-base`` instead.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from whetstone.cli.tune import tune_run
from whetstone.experiment import load_experiment
from whetstone.files import atomic_folder
from whetstone.models.load import BUILTIN_BASE, locate
from whetstone.recipes import recipe_path
from whetstone.run import Run


def main() -> None:
    """Trains in a temporary folder and replaces the shipped model in one rename."""
    experiment = load_experiment(recipe_path("demo-base"))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / experiment.name)
        with run.lock():
            manifest = tune_run(run, experiment, fresh=False, resume=False)
        with atomic_folder(locate(BUILTIN_BASE)) as target:
            for file in run.weights("model").iterdir():
                shutil.copy(file, target / file.name)
    if manifest.tuning is not None:
        sys.stdout.write(f"{locate(BUILTIN_BASE)}: {manifest.tuning.tuned.sha256}\n")


if __name__ == "__main__":
    main()
