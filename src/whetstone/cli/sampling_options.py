"""Options of the verbs that generate: which engine, and how it chooses tokens."""

from typing import Annotated

import typer

__all__ = [
    "DeviceOption",
    "MinPOption",
    "NewTokensOption",
    "RefArgument",
    "RepetitionPenaltyOption",
    "SeedOption",
    "SystemOption",
    "TestModeOption",
    "TopKOption",
    "TopPOption",
]

RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help="A run, a model or adapter folder, a GGUF file, a hub id or a URL.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
TestModeOption = Annotated[
    bool, typer.Option("--test-mode", help="Allow random weights, which every answer then says.")
]
SystemOption = Annotated[str | None, typer.Option("--system", help="The system turn.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the random streams.")]
NewTokensOption = Annotated[
    int | None,
    typer.Option("--max-new-tokens", min=1, help="Where an answer is cut off; at most 512 where it is not given."),
]
TopPOption = Annotated[
    float, typer.Option("--top-p", min=0.0, max=1.0, help="Draw from the smallest set of this probability.")
]
TopKOption = Annotated[int | None, typer.Option("--top-k", min=1, help="Draw from at most so many tokens.")]
MinPOption = Annotated[
    float, typer.Option("--min-p", min=0.0, max=1.0, help="Leave out tokens less likely than this times the likeliest.")
]
RepetitionPenaltyOption = Annotated[
    float, typer.Option("--repetition-penalty", min=0.01, help="Make tokens that were said less likely; 1 is none.")
]
