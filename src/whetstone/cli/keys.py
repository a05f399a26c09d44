"""``whet keys``: who may ask a server."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from whetstone.cli.common import JsonOption, print_json, status
from whetstone.errors import UserError

__all__ = ["keys"]

FileOption = Annotated[Path, typer.Option("--file", help="The file of keys that 'whet serve --keys' reads.")]

_DEFAULT = Path("keys.jsonl")

keys = typer.Typer(
    name="keys",
    help="Make, list and revoke the keys of a server.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is; metrics and logs show it.")],
    file: FileOption = _DEFAULT,
    admin: Annotated[bool, typer.Option("--admin", help="It may load adapters, and rate all answers.")] = False,
    requests_per_minute: Annotated[
        int | None, typer.Option(help="How many it may send; else any number.", min=1)
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(help="Answers that it may have waiting or running at once; else any number.", min=1)
    ] = None,
    weight: Annotated[
        float, typer.Option(help="Its share, where several keys want more than there is.", min=0.01, max=100)
    ] = 1.0,
    expires: Annotated[datetime | None, typer.Option(help="When it ends (UTC); else never.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it, this once; the file holds only its hash.

    A server that is running takes it within a second.

    Example: whet keys new alice --requests-per-minute 60
    """
    from whetstone.serve.gate.key_file import NAME_PATTERN, StoredKey, changing, hashed, make_key, new_salt

    if not re.fullmatch(NAME_PATTERN, name):
        raise UserError(f"'{name}' cannot be a key's name; use at most 64 letters, digits, '.', '_' and '-'")
    until = None if expires is None else expires.replace(tzinfo=UTC)
    key = make_key()
    with changing(file) as stored:
        if any(one.name == name for one in stored):
            raise UserError(f"{file}: has a key '{name}' already; take another name, or revoke it first")
        salt = stored[0].salt if stored else new_salt()
        made = StoredKey(
            name=name,
            sha256=hashed(salt, key),
            salt=salt,
            admin=admin,
            requests_per_minute=requests_per_minute,
            concurrent=concurrent,
            weight=weight,
            expires=until,
        )
        stored.append(made)
    if as_json:
        print_json({"key": key, **made.as_row()})
        return
    status.print(f"the key of {name}, which is shown only now:", markup=False, soft_wrap=True)
    sys.stdout.write(f"{key}\n")


@keys.command("list")
def list_(file: FileOption = _DEFAULT, as_json: JsonOption = False) -> None:
    """List the keys: their names and limits, for the keys themselves are not kept.

    Example: whet keys list
    """
    from rich.console import Console
    from rich.table import Table

    from whetstone.serve.gate.key_file import read_key_file

    rows = [key.as_row() for key in read_key_file(file)]
    if as_json:
        print_json({"keys": rows})
        return
    table = Table("name", "admin", "requests/min", "concurrent", "weight", "expires", box=None)
    for row in rows:
        shown = {**row, "admin": "yes" if row["admin"] else "", "weight": f"{row['weight']:g}"}
        if shown.pop("expired"):
            shown["expires"] = f"{row['expires']} (expired)"
        table.add_row(*("" if value is None else str(value) for value in shown.values()))
    Console().print(table if rows else f"no keys in {file}; 'whet keys new NAME' makes one")


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Whose key.")], file: FileOption = _DEFAULT, as_json: JsonOption = False
) -> None:
    """Take a key away; a server that is running refuses it within a second.

    Example: whet keys revoke alice
    """
    from whetstone.serve.gate.key_file import changing, read_key_file

    known = [key.name for key in read_key_file(file)]
    if name not in known:
        raise UserError(f"{file}: has no key '{name}' (there: {', '.join(known) or 'none'}); name one of these")
    with changing(file) as stored:
        stored[:] = [key for key in stored if key.name != name]
    if as_json:
        print_json({"revoked": name, "left": [one for one in known if one != name]})
    else:
        status.print(f"the key of {name} is revoked", markup=False, soft_wrap=True)
