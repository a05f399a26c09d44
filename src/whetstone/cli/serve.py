"""``whet serve``: answer over HTTP as OpenAI's API does."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from whetstone.cli.common import JsonOption, RunsOption, status
from whetstone.cli.sampling_options import DeviceOption, TestModeOption
from whetstone.errors import UserError

if TYPE_CHECKING:
    import ssl

__all__ = ["serve"]


def serve(
    refs: Annotated[
        list[str],
        typer.Argument(metavar="REF...", help="Models, each as REF or NAME=REF; requests ask for them by NAME."),
    ],
    host: Annotated[str | None, typer.Option("--host", help="Where to listen; else 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Else 8000; 0 takes one that is free.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="Who may ask: a file of 'whet keys new'; needed beyond this machine.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="A certificate (PEM), for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM).")] = None,
    fallback: Annotated[
        list[str] | None, typer.Option("--fallback", help="A model that answers while the first is not there.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Serve what was not judged, or judged otherwise than SHIP; answers say so.")
    ] = False,
    test_mode: TestModeOption = False,
    system_prompt: Annotated[
        str | None, typer.Option("--system-prompt", help="The system turn of conversations that bring none.")
    ] = None,
    feedback: Annotated[
        Path | None, typer.Option("--feedback", help="Keep what people think of answers in this file (SQLite).")
    ] = None,
    store_prompts: Annotated[
        bool, typer.Option("--store-prompts", help="Keep prompts and answers there, too, to make training data of.")
    ] = False,
    cache_mib: Annotated[
        int | None, typer.Option("--cache-mib", min=0, help="Memory for answers to questions that come again.")
    ] = None,
    adapter_root: Annotated[
        list[Path] | None, typer.Option("--adapter-root", help="Adapters below this folder may be loaded on request.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A YAML file with the keys of an experiment's section 'serve'.")
    ] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, bfloat16, int8 or nf4; else as judged.")
    ] = None,
    backend: Annotated[
        Literal["torch", "vllm", "llamacpp", "mlx"],
        typer.Option("--backend", help="What computes: this program, or one that it starts in its own environment."),
    ] = "torch",
    program: Annotated[
        str | None,
        typer.Option(
            "--program", help="Where that is: vllm, llama-server, or a python with llama-cpp-python or mlx-lm."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A name that a server without keys answers to, as well.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option("--allow-origin", help="A site whose pages may ask, as https://example.com.")
    ] = None,
    log: Annotated[
        Literal["text", "json"], typer.Option("--log", help="How the log on standard error looks.")
    ] = "text",
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Serve models over HTTP, as OpenAI's API does, with the proof that they are what was judged.

    Options count more than --config, and that more than the section 'serve' of the first run. Ctrl-C lets answers that
    have begun finish; a second one does not. Exit code 0; 1 if answers had to be cut off; 2 if it could not begin.

    For example:

    whet serve run:demo

    whet serve small=run:demo base=run:demo#base --port 9000 --cache-mib 64

    whet serve run:demo --host 0.0.0.0 --keys keys.jsonl --tls-cert cert.pem --tls-key key.pem

    whet serve run:demo --feedback feedback.db --store-prompts --fallback gguf:demo.gguf

    whet serve run:demo --backend vllm --program /opt/vllm/bin/vllm --fallback https://example.com/v1#small
    """
    from whetstone.serve.gate.keys import KeyRing
    from whetstone.serve.net.listener import bind, is_loopback_address, url_of
    from whetstone.serve.options import ServeOptions, effective_settings
    from whetstone.serve_section import Serve

    said = {
        "host": host,
        "port": port,
        "system_prompt": system_prompt,
        "feedback": None if feedback is None else str(feedback),
        "store_prompts": store_prompts or None,
        "cache_bytes": None if cache_mib is None else cache_mib * 2**20,
        "fallback": tuple(fallback or ()) or None,
    }
    flags = Serve.model_validate({name: value for name, value in said.items() if value is not None})
    options = ServeOptions(
        refs=tuple(refs),
        settings=effective_settings(flags, config, refs, runs),
        runs=runs,
        force=force,
        test_mode=test_mode,
        device=device,
        dtype=dtype,
        adapter_roots=tuple(adapter_root or ()),
        hosts=tuple(allow_host or ()),
        origins=tuple(allow_origin or ()),
        log=log,
        backend=backend,
        program=program,
    )
    where = options.settings.host
    keyring = KeyRing.read(keys, os.environ)
    only_loopback = is_loopback_address(where)
    if not (only_loopback or keyring.required):
        raise UserError(
            f"--host: {where} is reached from other machines, so whoever asks needs a key; make one with "
            "'whet keys new NAME --file keys.jsonl', and give --keys keys.jsonl"
        )
    tls = _tls(tls_cert, tls_key)
    sockets = bind(where, options.settings.port)
    _say_where(url_of(sockets, where, tls=tls is not None), refs, as_json=as_json)
    if not only_loopback and tls is None:
        status.print("keys and answers can be read on their way here; give --tls-cert and --tls-key", style="yellow")

    # It listens; only now comes what takes a moment to import.
    from whetstone.serve.launch import launch, make_backends

    code = launch(options, make_backends(options), keyring, sockets, only_loopback=only_loopback, tls=tls)
    raise typer.Exit(code)


def _tls(certificate: Path | None, key: Path | None) -> "ssl.SSLContext | None":
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UserError("--tls-cert and --tls-key go together: give both or neither")
    from whetstone.serve.net.tls import tls_context

    return tls_context(certificate, key)


def _say_where(url: str, refs: list[str], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
    line = Text.assemble(
        "listening at ",
        (f"{url}/v1", "bold"),
        "; loading ",
        ", ".join(refs),
        (f"; {url}/health/ready tells when", "dim"),
    )
    status.print(line, soft_wrap=True)
