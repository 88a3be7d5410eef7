"""The insides of Flower's own two processes, which `superlink` and `supernode` run."""

from __future__ import annotations

import hmac
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aevorium.federation.flower_internals.pulls import answer_pulls_sooner

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["SupernodeState", "keep_durations", "run_supernode", "superlink_app", "supernode_app"]

_POLL = 0.05

_HEARTBEAT = 10
"""Seconds, the shortest that a SuperLink takes (Flower's own: 30). It misses a node, and lets the same key connect
again, after twice as many: that is how long a node whose machine lost power stays locked out."""


def superlink_app(*, certificates: tuple[Path, Path, Path], token: str, secret: bytes) -> Starlette:
    """Flower's SuperLink as an ASGI app, with node authentication, that starts no process and installs nothing.

    Its state is in memory: it ends with the server, whose run could not go on without it either, and half the time of
    an exchange would be spent on writing messages to a disk.

    Args:
        certificates: Files of the authority's certificate, the server's certificate and its key.
        token: What the Control API asks for.
        secret: What the Runtime API asks for before it hands out a task.
    """
    from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    authority, certificate, key = certificates
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=0,
        insecure=False,
        certificates=(authority.read_bytes(), certificate.read_bytes(), key.read_bytes()),
        superexec_auth_secret=secret,
        authn_plugin=_token_plugin(token),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(authority),
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation="process",
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


def _token_plugin(token: str) -> Any:  # noqa: ANN401 - Flower's own type
    from flwr.common.constant import ACCESS_TOKEN_KEY, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
    from flwr.supercore.auth.typing import AccountInfo
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin

    class TokenPlugin(NoOpControlAuthnPlugin):
        """Lets in who knows the token."""

        def validate_tokens_in_metadata(self, metadata: Any) -> tuple[bool, AccountInfo | None]:  # noqa: ANN401
            given = str(dict(metadata).get(ACCESS_TOKEN_KEY, ""))
            if not hmac.compare_digest(given.encode(), token.encode()):
                return False, None
            return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)

    return TokenPlugin()


@dataclass(frozen=True)
class SupernodeState:
    """The state that a SuperNode's two halves share."""

    factory: Any


def supernode_app(secret: bytes) -> tuple[Starlette, SupernodeState]:
    """The half of a SuperNode that hands messages to the resident node, as an ASGI app.

    Args:
        secret: What it asks for before it hands out a message.
    """
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode.main import create_app
    from flwr.supernode.nodestate import NodeStateFactory

    factory = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    return create_app(state_factory=factory, superexec_auth_secret=secret), SupernodeState(factory)


def run_supernode(
    state: SupernodeState,
    *,
    server: str,
    root_certificates: bytes,
    private_key: bytes,
    node_config: Mapping[str, str],
    connected: Callable[[], None],
    sent: Callable[[], None],
) -> None:
    """The half of a SuperNode that speaks with the server. Ends with the process.

    Args:
        state: What `supernode_app` made.
        server: Host and port of the server.
        root_certificates: The authority that signed its certificate, PEM.
        private_key: The node's key, PEM.
        node_config: What the ClientApp finds in its context.
        connected: Called when the server has let the node in.
        sent: Called when a reply has left for the server.
    """
    # The package exports a function under the name of this module.
    import flwr.supernode.start_client_internal  # noqa: F401
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    loop: Any = sys.modules["flwr.supernode.start_client_internal"]
    key = load_pem_private_key(private_key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("a node's key is on an elliptic curve")
    # Flower looks for messages every 3 s and for replies every 0.5 s; neither can be set.
    loop.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, _POLL)), time=time.time)
    _beat_sooner()
    keep_durations()
    push = loop._push_messages

    def push_and_tell(**arguments: object) -> None:
        push(**arguments)
        sent()

    pull = loop._pull_and_store_message

    def pull_and_tell(**arguments: object) -> object:
        # The loop begins when the connection stands: tell of it once.
        loop._pull_and_store_message = pull
        connected()
        return pull(**arguments)

    loop._push_messages, loop._pull_and_store_message = push_and_tell, pull_and_tell
    answer_pulls_sooner()
    loop.start_client_internal(
        state_factory=state.factory,
        server_address=server,
        node_config=dict(node_config),
        root_certificates=root_certificates,
        insecure=False,
        authentication_keys=(key, key.public_key()),
        isolation="process",
    )


def _beat_sooner() -> None:
    """Sends heartbeats as often as a SuperLink allows, and announces it."""
    from flwr.supercore import heartbeat
    from flwr.supernode import fleet_http_connection

    modules: tuple[Any, ...] = (heartbeat, fleet_http_connection)
    for module in modules:
        module.HEARTBEAT_DEFAULT_INTERVAL = _HEARTBEAT


def keep_durations() -> None:
    """Has a SuperNode say 0 s where it would tell the server how long an answer took, which follows the records."""
    from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

    state: Any = InMemoryNodeState
    state.get_message_processing_duration = lambda self, message_id: 0.0
