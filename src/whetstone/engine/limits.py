"""What an engine can answer at all; said before a request is queued, so that it costs nobody else anything."""

from collections.abc import Collection
from dataclasses import dataclass

from whetstone.engine.api import Request
from whetstone.engine.sampling import check_choices
from whetstone.errors import UserError

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What every core refuses.

    Attributes:
        context_tokens: How long a prompt and its answer may be together.
        context: What is so long, in words.
        vocabulary: How many tokens the model knows; None where only the tokenizer does.
        adapters: The names of those that are loaded.
    """

    context_tokens: int
    context: str = "the context"
    vocabulary: int | None = None
    adapters: Collection[str] = ()

    def check(self, request: Request) -> None:
        """Refuses what can never be answered.

        Raises:
            UserError: It is empty or too long, its sampling chooses no token, or it asks for what is not there.
        """
        prompt, answer = len(request.token_ids), request.max_new_tokens
        check_choices(request)
        if not prompt:
            raise UserError("a prompt without tokens; give at least one")
        self._check_ids(request)
        if answer < 1:
            raise UserError(f"max_new_tokens: {answer}; ask for at least one")
        if prompt + answer > self.context_tokens:
            raise UserError(
                f"a prompt of {prompt} tokens and an answer of {answer} exceed {self.context} of "
                f"{self.context_tokens}; lower max_new_tokens or shorten the prompt"
            )
        if request.adapter is not None and request.adapter not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise UserError(
                f"no adapter '{request.adapter}' is loaded (there: {known}); open it with the model, or merge it"
            )

    def _check_ids(self, request: Request) -> None:
        if self.vocabulary is None:
            return
        least, most = min(request.token_ids), max(request.token_ids)
        if least < 0 or most >= self.vocabulary:
            raise UserError(
                f"a token from {least} to {most} in the prompt, and the model knows "
                f"0 to {self.vocabulary - 1}; use the tokenizer that belongs to the model"
            )
