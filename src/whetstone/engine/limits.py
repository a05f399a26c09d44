"""What an engine can answer at all; said before a request is queued, so that it costs nobody else anything."""

from collections.abc import Collection, Sequence
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
        self._check_ids(request.token_ids)
        if answer < 1:
            raise UserError(f"max_new_tokens: {answer}; ask for at least one")
        if prompt + answer > self.context_tokens:
            raise UserError(
                f"a prompt of {prompt} tokens and an answer of {answer} exceed {self.context} of "
                f"{self.context_tokens}; lower max_new_tokens or shorten the prompt"
            )
        self._check_adapter(request.adapter)

    def check_prompt(self, token_ids: Sequence[int], adapter: str | None) -> None:
        """Refuses what can never be read, where no answer is wanted.

        Raises:
            UserError: It is empty or too long, or asks for what is not there.
        """
        self._check_ids(token_ids)
        if len(token_ids) > self.context_tokens:
            raise UserError(f"{len(token_ids)} tokens exceed {self.context} of {self.context_tokens}; shorten the text")
        self._check_adapter(adapter)

    def _check_adapter(self, adapter: str | None) -> None:
        if adapter is not None and adapter not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise UserError(f"no adapter '{adapter}' is loaded (there: {known}); open it with the model, or merge it")

    def _check_ids(self, token_ids: Sequence[int]) -> None:
        if not token_ids:
            raise UserError("a prompt without tokens; give at least one")
        if self.vocabulary is None:
            return
        least, most = min(token_ids), max(token_ids)
        if least < 0 or most >= self.vocabulary:
            raise UserError(
                f"a token from {least} to {most} in the prompt, and the model knows "
                f"0 to {self.vocabulary - 1}; use the tokenizer that belongs to the model"
            )
