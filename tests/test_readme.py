"""The README's commands are run as they stand there, on experiments made small; its YAML is read by the real loader."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig, PhiConfig

from whetstone.experiment import load_experiment
from whetstone.files import read_jsonl
from whetstone.models.load import BUILTIN_BASE, locate

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
# As for the shell, a comment begins behind a space: run:NAME#base holds none.
COMMANDS = [
    re.sub(r"\s#.*", "", line).strip() for block in BLOCKS for line in block.splitlines() if line.startswith("whet")
]
QUESTION = "Correct: She go home ."
SMALLER = (
    (r"train: \d+, validation: \d+, test: \d+", "train: 64, validation: 4, test: 24"),
    (r"epochs: [\d.]+", "steps: 4"),
    (r"train: 2000}", "train: 64}"),
    (r"max_new_tokens: \d+", "max_new_tokens: 16"),
    (r"base: microsoft/phi-2", "base: ./tiny-phi"),
    (r"base: EleutherAI/pythia-1.4b", "base: ./tiny-pythia"),
    (r"validation: {every: \d+", "validation: {every: 2"),
)


def _make_tiny_models(folder: Path) -> None:
    """Random models of the architectures that recipes name, since there is no hub here."""
    demo = locate(BUILTIN_BASE)
    tokenizer = AutoTokenizer.from_pretrained(demo)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    common = {**sizes, "num_attention_heads": 2, "eos_token_id": tokenizer.eos_token_id, "max_position_embeddings": 256}
    for name, kind in (("tiny-phi", PhiConfig), ("tiny-pythia", GPTNeoXConfig)):
        AutoModelForCausalLM.from_config(kind(**common)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


@pytest.fixture
def serving() -> Iterator[Callable[[str, Path, dict[str, str]], str]]:
    """Runs a command that serves, until the test ends; gives its address when it is ready."""
    servers = []

    def serve(command: str, folder: Path, environment: dict[str, str]) -> str:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        servers.append(server)
        assert server.stdout is not None
        url = str(json.loads(server.stdout.readline())["url"])
        while httpx.get(f"{url}/health/ready").status_code != 200:
            time.sleep(0.1)
        return url

    yield serve
    for server in servers:
        server.terminate()
        assert server.wait(30) == 0


def _rate(url: str) -> None:
    """Asks, and says that the answer was wrong."""
    body = {"model": "grammar-lora", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 4}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    rating = {"answer_id": answer["id"], "rating": "correction", "correction": "She goes home ."}
    assert httpx.post(f"{url}/v1/feedback", json=rating).status_code == 200


@pytest.mark.timeout(400)
def test_every_command_of_the_readme_runs(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    _make_tiny_models(tmp_path)
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": QUESTION}) + "\n")
    (tmp_path / "gates.yaml").write_text("must_improve: [{metric: exact_match, over: base}]\n")
    (tmp_path / "their-report.md").write_text("Accuracy rose from 60 % to 70 % (n = 10).\n")
    run = [command for command in COMMANDS if not command.startswith(("whet demo", "whet show demo"))]
    assert len(run) >= 8 and any("chat" in command for command in run)
    url = ""
    for command in run:
        # Here the demo is a run that was trained for four steps, and is served because the test says so.
        command = command.replace("run:demo", "run:grammar-lora").replace("http://127.0.0.1:8000", url)
        if command.startswith("whet bench"):
            command += " --requests 8"
        if command.startswith("whet serve"):
            url = request.getfixturevalue("serving")(f"{command} --force --port 0 --json", tmp_path, environment)
            _rate(url)
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            input=f"{QUESTION}\n",  # what is typed in a chat
            capture_output=True,
            text=True,
            timeout=100,
        )
        judges = re.search(r"\bwhet (compare|audit)\b", command)
        allowed = (0, 1, 3) if judges else (0,)
        assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
        if "chat" in command:
            assert [line for line in done.stdout.splitlines() if line.startswith("──")] == [
                "── run:grammar-lora",
                "── run:grammar-lora#base",
            ]
        for path in tmp_path.glob("*.yaml"):
            text = path.read_text()
            for pattern, small in SMALLER:
                text = re.sub(pattern, small, text)
            path.write_text(text)
        adapter = tmp_path / "runs" / "grammar-lora" / "adapter"
        if adapter.exists() and not (tmp_path / "their-adapter").exists():
            shutil.copytree(adapter, tmp_path / "their-adapter")
    (more,) = read_jsonl(tmp_path / "more.jsonl")
    assert "She goes home ." in json.dumps(more) and QUESTION in json.dumps(more)
    assert '<testsuite name="scratch-cpu"' in (tmp_path / "gates.xml").read_text()
    (answer,) = read_jsonl(tmp_path / "answers.jsonl")
    assert answer["finish_reason"] in ("stop", "length") and answer["new_tokens"] > 0


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
