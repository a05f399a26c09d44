"""The README's commands are run as they stand there, on experiments made small; its YAML is read by the real loader."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from whetstone.experiment import load_experiment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.startswith("whet")]
SMALLER = (
    (r"train: \d+, validation: \d+, test: \d+", "train: 64, validation: 4, test: 24"),
    (r"epochs: [\d.]+", "steps: 4"),
    (r"max_new_tokens: \d+", "max_new_tokens: 16"),
)


@pytest.mark.timeout(400)
def test_every_command_of_the_readme_runs(tmp_path: Path) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    run = [command for command in COMMANDS if not command.startswith(("whet demo", "whet show demo"))]
    assert len(run) >= 8
    for command in run:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100
        )
        allowed = (0, 1, 3) if "compare" in command else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
        for path in tmp_path.glob("*.yaml"):
            text = path.read_text()
            for pattern, small in SMALLER:
                text = re.sub(pattern, small, text)
            path.write_text(text)
        adapter = tmp_path / "runs" / "grammar-lora" / "adapter"
        if adapter.exists() and not (tmp_path / "their-adapter").exists():
            shutil.copytree(adapter, tmp_path / "their-adapter")


def test_the_readmes_experiment_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "my-model").mkdir()
    for name in ("dev.src", "dev.ref0", "dev.ref1", "dev.ref2", "dev.ref3"):
        (tmp_path / name).write_text("x\n")
    path = tmp_path / "mine.yaml"
    path.write_text(block)
    assert load_experiment(path).model.base == str(tmp_path / "my-model")


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)]+)\)", README))
def test_links_and_pictures_exist(target: str) -> None:
    assert (ROOT / target.split("#")[0]).exists()
