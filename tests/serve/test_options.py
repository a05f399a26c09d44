"""What counts more: the command line, the file, the run."""

import json
from pathlib import Path

import pytest

from whetstone.errors import UserError
from whetstone.serve.options import effective_settings
from whetstone.serve_section import Limits, Serve, Validate


def write_run(runs: Path, name: str, serve: dict[str, object]) -> None:
    (runs / name).mkdir(parents=True)
    (runs / name / "run.json").write_text(json.dumps({"experiment": {"serve": serve}}))


def test_the_command_line_over_the_file_over_the_run_over_the_defaults(tmp_path: Path) -> None:
    write_run(tmp_path, "demo", {"host": "0.0.0.0", "port": 1, "cache_bytes": 7, "limits": {"queue": 5, "running": 6}})
    config = tmp_path / "serve.yaml"
    config.write_text("port: 2\nlimits: {queue: 9}\nvalidate: {max_characters: 10}\n")
    got = effective_settings(Serve(port=3), config, ["demo=run:demo"], tmp_path)
    expected = {"host": "0.0.0.0", "port": 3, "cache_bytes": 7, "limits": Limits(queue=9, running=6)}
    assert got == Serve.model_validate({**expected, "validate": Validate(max_characters=10)})


@pytest.mark.parametrize("ref", ["run:demo", "run:demo#base", "mlx:run:demo", "run:demo@int8", "x=run:demo#merged@nf4"])
def test_the_first_run_is_found_whatever_of_it_is_served(tmp_path: Path, ref: str) -> None:
    write_run(tmp_path, "demo", {"port": 1})
    write_run(tmp_path, "other", {"port": 2})
    assert effective_settings(Serve(), None, ["org/base", ref, "run:other"], tmp_path).port == 1


def test_what_is_of_one_model_is_not_of_the_others(tmp_path: Path) -> None:
    write_run(tmp_path, "demo", {"system_prompt": "Correct.", "validate": {"max_characters": 3}, "port": 1})
    assert effective_settings(Serve(), None, ["run:demo", "run:other"], tmp_path) == Serve(port=1)


@pytest.mark.parametrize("ref", ["run:gone", "org/base", "gguf:a.gguf", "http://127.0.0.1/v1#run:demo"])
def test_without_a_run_there_are_defaults(tmp_path: Path, ref: str) -> None:
    write_run(tmp_path, "demo", {"port": 1})
    assert effective_settings(Serve(), None, [ref], tmp_path) == Serve()


def test_a_section_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_run(tmp_path, "demo", {"port": "many"})
    with pytest.raises(UserError, match=r"run\.json: holds no section 'serve'"):
        effective_settings(Serve(), None, ["run:demo"], tmp_path)


def test_a_mistake_in_the_file_is_named_with_its_line(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("host: localhost\nport: 99999\n")
    with pytest.raises(UserError, match=r"serve\.yaml:2: port: "):
        effective_settings(Serve(), config, ["run:demo"], tmp_path)
