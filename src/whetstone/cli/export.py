"""``whet export``: one GGUF file of a model, for llama.cpp and all that is built on it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from whetstone.cli.common import JsonOption, RunsOption, print_json, working
from whetstone.errors import UserError

__all__ = ["export"]


def export(
    ref: Annotated[str, typer.Argument(metavar="REF", help="A run, a model folder, or BASE+ADAPTER.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.gguf", help="Where it goes; the tokenizer is put beside it.")],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", "q8_0"], typer.Option("--dtype", help="Of the matrices.")
    ] = "bfloat16",
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Merge an adapter into its base and write the result as one file; ask it with gguf:FILE.

    Example: whet export run:demo demo.gguf --dtype q8_0
    """
    if file.suffix != ".gguf":
        raise UserError(f"{file}: a file of llama.cpp ends in .gguf; call it {file.name}.gguf")
    from whetstone.models.export import export_model

    with working() as say:
        say(f"export {ref}")
        exported = export_model(ref, file, dtype, runs)
    if as_json:
        print_json({"file": str(file), "source_sha256": exported, "bytes": file.stat().st_size, "dtype": dtype})
    else:
        typer.echo(
            f"{file}: {file.stat().st_size / 1e6:,.1f} MB of {ref} in {dtype}; ask it with: whet chat gguf:{file}"
        )
