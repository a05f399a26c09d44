"""mlx-lm behind ours.

It has no key and no queue, takes text only, loads whatever model a request names, and is gone at once when it is told
to end. So it listens at a port of the loopback that nobody knows, is always asked for its first model, with merged
weights in a folder of our own whose configuration is what transformers understands, and is not asked what its tokenizer
would render otherwise than ours.
"""

import sys
from dataclasses import dataclass

from whetstone.errors import UserError
from whetstone.serve.delegate.dialect import MLX, Dialect
from whetstone.serve.delegate.order import Form, Prepared
from whetstone.serve.delegate.program import Launch

__all__ = ["Mlx"]


@dataclass(frozen=True, slots=True)
class Mlx:
    """``mlx_lm.server``.

    Attributes:
        program: The interpreter of an environment that has mlx-lm.
        cache_bytes: The most that it keeps of keys and values of earlier prompts.
        arguments: More of its own.
    """

    program: str = sys.executable
    cache_bytes: int = 2**30
    arguments: tuple[str, ...] = ()
    title: str = "mlx_lm.server"
    engine: str = "mlx"
    form: Form = "mlx"
    takes_token_ids: bool = False
    grace_s: float = 2.0

    def dialect(self, prepared: Prepared) -> Dialect:
        """Text, which it renders by the template in the folder."""
        return MLX

    def check(self, prepared: Prepared) -> None:
        """Refuses more than one model.

        Raises:
            UserError: There are several.
        """
        if len(prepared.models) != 1:
            names = ", ".join(model.served.name for model in prepared.models)
            raise UserError(f"mlx-lm serves one model, and these are {names}; start a server for each")

    def launch(self, prepared: Prepared, port: int, key: str) -> Launch:
        """The command line; pages of other sites may not ask it."""
        options = {
            "--model": prepared.path,
            "--host": "127.0.0.1",
            "--port": str(port),
            "--allowed-origins": "http://127.0.0.1",
            "--prompt-cache-bytes": str(self.cache_bytes),
            "--log-level": "WARNING",
        }
        arguments = [part for option in options.items() for part in option]
        return Launch((self.program, "-P", "-m", "mlx_lm", "server", *arguments, *self.arguments), {})

    def model(self, name: str) -> str:
        """Always the model that it was started with; by any other name it would look for another one."""
        return "default_model"
