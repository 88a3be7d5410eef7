"""From settings to what an API serves, and whether it may be served at all."""

from __future__ import annotations

import ipaddress
import secrets

from aevorium.api.app import ApiOptions
from aevorium.api.oidc import OidcOptions
from aevorium.errors import ArtefactError, ConfigError
from aevorium.governance.chain import AuditChain
from aevorium.governance.secrets import Secrets
from aevorium.settings import Settings
from aevorium.state.api_keys import ApiKeyStore
from aevorium.state.store import Store, sqlite_url
from aevorium.workspace import Workspace

__all__ = ["configure", "database_of"]


def database_of(settings: Settings) -> str:
    """URL of the server's database."""
    if settings.database is not None:
        return settings.database.get_secret_value()
    return sqlite_url(Workspace(settings.workspace).api_database)


def configure(settings: Settings, *, has_worker: bool = True) -> ApiOptions:
    """What an API of these settings serves.

    Args:
        settings: They.
        has_worker: Whether it starts a worker of its own, on the nodes that the settings name.

    Raises:
        ConfigError: API_UNPROTECTED, if other machines could reach it and neither a key nor an issuer is there;
            CONFIG_INVALID, if an issuer is named and no audience; KEY_MISPLACED.
        ArtefactError: DATABASE_UNUSABLE; KEY_INVALID or AUDIT_KEY_WRONG, if the audit log could not be signed.
    """
    workspace, url, own = Workspace(settings.workspace), database_of(settings), Secrets.of(settings)
    own.require_apart(workspace.root)
    _require_signing(workspace, own)
    store = Store(url)
    has_key = any(key.revoked_at is None for key in ApiKeyStore(store).all())
    store.close()
    oidc = _oidc(settings)
    is_protected = has_key or oidc is not None
    if not is_protected and not _is_loopback(settings.api_host):
        raise ConfigError(
            "API_UNPROTECTED",
            f"The API does not start on {settings.api_host!r}. Other machines could reach it, and no API key exists.",
            hint="Type: aevorium api key create NAME --role steward. Or name an issuer of tokens, or leave --host out.",
        )
    return ApiOptions(
        workspace=workspace,
        database=url,
        log_key=own.log,
        settings=settings,
        nodes=tuple(settings.nodes),
        worker=("aevorium", "api", "worker", "--attached", "--workspace", str(workspace.root)) if has_worker else None,
        homes=(workspace.root / "nodes", workspace.root / "node-home", settings.node_home),
        start_token=None if is_protected else secrets.token_hex(24),
        oidc=oidc,
        rate=settings.api_rate,
        origins=settings.api_origins,
        is_log_json=settings.log_json,
    )


def _require_signing(workspace: Workspace, own: Secrets) -> None:
    """Passes if the key of the audit log can sign it; one that is made at the first entry is not made here."""
    if not workspace.database.is_file():
        if own.log.exists():
            _ = own.log.public_key
        return
    try:
        AuditChain(workspace.database, key=own.log).require_key()
    except ArtefactError as error:
        # A log that is damaged, or cannot be read, is served as what it is: people look here for what is wrong.
        if error.code not in ("AUDIT_BROKEN", "DATABASE_UNUSABLE"):
            raise


def _oidc(settings: Settings) -> OidcOptions | None:
    if settings.oidc_issuer is None:
        return None
    if settings.oidc_audience is None:
        raise ConfigError(
            "CONFIG_INVALID",
            "AEVORIUM_OIDC_ISSUER is set, and AEVORIUM_OIDC_AUDIENCE is not. Tokens for other services would pass.",
            hint="Set AEVORIUM_OIDC_AUDIENCE to the name under which the issuer knows this API.",
        )
    return OidcOptions(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        role_claim=settings.oidc_role_claim,
        roles=settings.oidc_roles,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
