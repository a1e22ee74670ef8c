"""The keys of cursors and resume tokens: the API encrypts with them, the command line signs."""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from .errors import SettingsError
from .files import sync_folder
from .settings import Settings

__all__ = ["cursor_keys"]


def cursor_keys(settings: Settings, spool: Path) -> list[bytes]:
    """The keys, newest first: as set, else derived from the JWT secret, else made once and kept beside the spool.

    So all workers of a machine have the same, and a restart does not end a walk. Raises SettingsError where a key can
    be neither read nor kept.
    """
    if settings.cursor_keys:
        return [key.encode() for key in settings.cursor_keys]
    if settings.jwt_secret:
        return [hmac.digest(settings.jwt_secret.encode(), b"audit-pipeline cursor key", "sha256")]
    path = spool.with_name(spool.name + ".cursor-key")
    try:
        if not path.exists():
            # Written aside and linked into place: of two processes that make one at once, both read the first.
            made = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
            try:
                with os.fdopen(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                    file.write(secrets.token_urlsafe(32))
                    file.flush()
                    os.fsync(file.fileno())
                with suppress(FileExistsError):
                    os.link(made, path)
            finally:
                made.unlink(missing_ok=True)
            sync_folder(path.parent)
        key = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"AUDIT_CURSOR_KEYS: are not set, and {path} cannot be used ({error.strerror}); set them, or make its "
            "folder writable"
        ) from error
    if not key:
        raise SettingsError(f"AUDIT_CURSOR_KEYS: are not set, and {path} is empty; delete it, and another one is made")
    return [key]
