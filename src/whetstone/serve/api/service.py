"""What the handlers of one server share."""

from dataclasses import dataclass

from whetstone.serve.answered import Answered, Listener
from whetstone.serve.backend import Backend
from whetstone.serve.cache import AnswerCache
from whetstone.serve.errors import ServeError
from whetstone.serve.gate.admission import Admission
from whetstone.serve.gate.keys import KeyRing, Principal
from whetstone.serve.served_model import ServedModel
from whetstone.serve_section import Serve

__all__ = ["Service"]


@dataclass(frozen=True, slots=True)
class Service:
    """One server, as its handlers see it.

    Attributes:
        settings: How it was started.
        backends: Whoever answers, in the order in which they are asked; the fallbacks too.
        keyring: Tells who asks.
        admission: Tells who has to wait.
        fallbacks: Those of the backends that answer for every model while its own backends are not there: with their
            model of the same name, or with their first.
        cache: Answers that were given before; None to keep none.
        listeners: Told what became of each request.
        names: What requests may call the models that the server was started with, also before they are there; none
            where only the backends know.
    """

    settings: Serve
    backends: tuple[Backend, ...]
    keyring: KeyRing
    admission: Admission
    fallbacks: tuple[Backend, ...] = ()
    cache: AnswerCache | None = None
    listeners: tuple[Listener, ...] = ()
    names: frozenset[str] = frozenset()

    def identify(self, authorization: str | None) -> Principal:
        """Who asks, by the header.

        Raises:
            ServeError: 401.
        """
        return self.keyring.identify(authorization)

    def identify_admin(self, authorization: str | None) -> Principal:
        """Who asks, if it may change the server.

        Raises:
            ServeError: 401; 403 it may not.
        """
        principal = self.identify(authorization)
        if not principal.admin:
            raise ServeError(403, "admin_only", f"the key '{principal.name}' may not do this; it takes an admin's")
        return principal

    def as_asked(self, model: ServedModel) -> ServedModel:
        """A model with what the server was started with, which is of all its models and counts more."""
        said = {
            "system_prompt": self.settings.system_prompt,
            "validation": self.settings.validate_,
        }
        return model.model_copy(update={name: value for name, value in said.items() if value is not None})

    def tell(self, answered: Answered) -> None:
        """Tells all listeners."""
        for listener in self.listeners:
            listener.answered(answered)
