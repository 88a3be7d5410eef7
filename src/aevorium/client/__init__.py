"""A typed client of the REST API: `Client`. It knows the API alone, and nothing of how it is made."""

from aevorium.client.api import ApiProblem, Client
from aevorium.client.events import Event

__all__ = ["ApiProblem", "Client", "Event"]
