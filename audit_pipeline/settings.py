"""The settings: read once from the environment, at the edge, into one frozen object. Nothing is read at import."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from .errors import SettingsError
from .stores import Store

__all__ = ["ON_FULL", "VARIABLES", "Settings", "spool_path", "state_folder", "unknown_line", "unknown_variables"]

Networks = tuple[IPv4Network | IPv6Network, ...]

DEFAULT_STORE = "sqlite:///audit.db"
ON_FULL = ("fail_closed", "fail_open")
"""What may become of a log call while the spool takes no entries."""
SPOOL_LIMIT = 2**30
SPOOL_LIMITS = (2**20, 2**50)
"""The least and the most that AUDIT_SPOOL_LIMIT may be, in bytes."""
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
DATABASE_FILES = ("", "-wal", "-shm", "-journal")
"""What SQLite keeps of one database, by the ends of the names."""
SPOOL_FILES = (*DATABASE_FILES, ".card", ".lock", ".gaps", ".cursor-key")
"""What is kept of one spool."""

VARIABLES = (
    "AUDIT_STORE_URL",
    "AUDIT_SPOOL",
    "AUDIT_SPOOL_LIMIT",
    "AUDIT_SPOOL_AGE",
    "AUDIT_ON_FULL",
    "AUDIT_JWT_SECRET",
    "AUDIT_JWKS_URL",
    "AUDIT_JWKS_FILE",
    "AUDIT_JWT_ISSUER",
    "AUDIT_JWT_AUDIENCE",
    "AUDIT_CURSOR_KEYS",
    "AUDIT_ENTITLED_PLANS",
    "AUDIT_TRUSTED_PROXIES",
    "AUDIT_ALLOWED_HOSTS",
    "AUDIT_CORS_ORIGINS",
    "AUDIT_EXPORT_LIMIT",
    "AUDIT_IP_STORAGE",
    "AUDIT_CATALOGUE",
)
"""Every environment variable that is read."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decided. Made by `from_environment`; secrets do not show in its text form."""

    store_url: str = field(default=DEFAULT_STORE, repr=False)
    spool: Path | None = None
    spool_limit: int = SPOOL_LIMIT
    spool_age: int | None = None
    on_full: str = "fail_closed"
    jwt_secret: str | None = field(default=None, repr=False)
    jwks_url: str | None = field(default=None, repr=False)
    jwks_file: Path | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    cursor_keys: tuple[str, ...] = field(default=(), repr=False)
    entitled_plans: tuple[str, ...] = ("business", "enterprise")
    trusted_proxies: Networks = ()
    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    cors_origins: tuple[str, ...] = ()
    export_limit: int = 50_000
    ip_storage: str = "full"
    catalogue: Path | None = None

    @property
    def keeps_masked(self) -> bool:
        """Whether no address is written in full, anywhere."""
        return self.ip_storage == "masked"

    @classmethod
    def from_environment(
        cls,
        environment: Mapping[str, str] | None = None,
        *,
        store: str | None = None,
        spool: str | Path | None = None,
    ) -> Settings:
        """The settings of the environment; `store` and `spool` win over it. Raises SettingsError.

        White space around a value does not count, but for a secret, which others have as it is; a value of nothing else
        is one that was not set.
        """
        options = {"AUDIT_STORE_URL": store or "", "AUDIT_SPOOL": str(spool or "")}
        said = dict(os.environ if environment is None else environment)
        said |= {name: value for name, value in options.items() if value.strip()}
        given = {
            name: value if name == "AUDIT_JWT_SECRET" else value.strip()
            for name, value in said.items()
            # An empty variable is one that was not set; but no plans at all is a choice, which a slip must not make.
            if name in VARIABLES and (value.strip() or (name == "AUDIT_ENTITLED_PLANS" and not value))
        }
        made = cls(
            store_url=given.get("AUDIT_STORE_URL", DEFAULT_STORE),
            spool=_path("AUDIT_SPOOL", given.get("AUDIT_SPOOL")),
            spool_limit=_bytes("AUDIT_SPOOL_LIMIT", given.get("AUDIT_SPOOL_LIMIT", str(SPOOL_LIMIT)), SPOOL_LIMITS),
            spool_age=_positive("AUDIT_SPOOL_AGE", given["AUDIT_SPOOL_AGE"]) if "AUDIT_SPOOL_AGE" in given else None,
            on_full=one_of("AUDIT_ON_FULL", given.get("AUDIT_ON_FULL", ON_FULL[0]), ON_FULL),
            jwt_secret=given.get("AUDIT_JWT_SECRET"),
            jwks_url=given.get("AUDIT_JWKS_URL"),
            jwks_file=_path("AUDIT_JWKS_FILE", given.get("AUDIT_JWKS_FILE")),
            jwt_issuer=given.get("AUDIT_JWT_ISSUER"),
            jwt_audience=given.get("AUDIT_JWT_AUDIENCE"),
            cursor_keys=_some("AUDIT_CURSOR_KEYS", given.get("AUDIT_CURSOR_KEYS", ""), "one key, or several"),
            entitled_plans=_some(
                "AUDIT_ENTITLED_PLANS",
                given.get("AUDIT_ENTITLED_PLANS", "business,enterprise"),
                "such as business,enterprise, or nothing at all, so that no plan is needed",
            ),
            trusted_proxies=_networks("AUDIT_TRUSTED_PROXIES", given.get("AUDIT_TRUSTED_PROXIES", "")),
            allowed_hosts=_hosts(given.get("AUDIT_ALLOWED_HOSTS", ",".join(LOOPBACK_HOSTS))),
            cors_origins=_origins(given.get("AUDIT_CORS_ORIGINS", "")),
            export_limit=_positive("AUDIT_EXPORT_LIMIT", given.get("AUDIT_EXPORT_LIMIT", "50000")),
            ip_storage=one_of("AUDIT_IP_STORAGE", given.get("AUDIT_IP_STORAGE", "full"), ("full", "masked")),
            catalogue=_path("AUDIT_CATALOGUE", given.get("AUDIT_CATALOGUE")),
        )
        verifiers = [name for name in ("AUDIT_JWT_SECRET", "AUDIT_JWKS_URL", "AUDIT_JWKS_FILE") if given.get(name)]
        if len(verifiers) > 1:
            raise SettingsError(f"{' and '.join(verifiers)} are set; allowed is one of them")
        if made.jwks_url and not re.fullmatch(r"https?://[^\s/?#]+([/?]\S*)?", made.jwks_url):
            raise SettingsError("AUDIT_JWKS_URL: not a URL; allowed are https:// and http:// addresses")
        for name in ("AUDIT_JWT_SECRET", "AUDIT_CURSOR_KEYS"):
            if not _is_text(given.get(name, "")):
                raise SettingsError(f"{name}: is no UTF-8; allowed is text, such as openssl rand -base64 48 prints")
        return made


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """The names in the environment that look like settings and are none, each with what was perhaps meant."""
    names = sorted(os.environ if environment is None else environment)
    unknown = [name for name in names if name.startswith("AUDIT_") and name not in VARIABLES]
    if not unknown:
        return []
    # Imported here: a large module, for a rare sentence.
    from difflib import get_close_matches

    near = [get_close_matches(name, VARIABLES, 1, 0.8) for name in unknown]
    return [
        (name, f"Did you mean {found[0]}?" if found else f"Known are {', '.join(VARIABLES)}.")
        for name, found in zip(unknown, near, strict=True)
    ]


def unknown_line(environment: Mapping[str, str] | None = None) -> str:
    """The same in one line; empty where there are none. A misspelt setting is no error: others may use such names."""
    return " ".join(f"{name} is no setting. {advice}" for name, advice in unknown_variables(environment))


def spool_path(settings: Settings, store: Store) -> Path:
    """Where the spool of a store lies: as set, else beside the store, else in the user's state folder.

    Raises SettingsError where that folder cannot be made, or the store itself is what was set.
    """
    if settings.spool is not None:
        kept = getattr(store, "path", None)
        if isinstance(kept, Path) and _shares_files(settings.spool, kept):
            raise SettingsError(
                f"AUDIT_SPOOL: {str(settings.spool)[:80]!r} is the file of the store, or one that is kept beside it; "
                "allowed is a file that nothing else uses: name another one, or leave AUDIT_SPOOL unset"
            )
        return settings.spool.absolute()
    if store.spool_path is not None:
        return store.spool_path
    try:
        state = state_folder()
    except SettingsError as error:
        raise SettingsError(f"AUDIT_SPOOL: is not set, and {error}, or AUDIT_SPOOL to a file in one") from error
    identity = store.identity(state / "spool")
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", identity).strip("-")[:60]
    digest = sha256(identity.encode()).hexdigest()[:8]
    return state / f"{name}-{digest}.spool.db"


def state_folder() -> Path:
    """The user's folder for what is kept between two runs; made where it is missing. Raises SettingsError."""
    try:
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "audit-pipeline"
    except RuntimeError as error:  # a user without an entry in the system's list, as containers have them
        raise SettingsError("there is no home folder; set XDG_STATE_HOME to a folder that can be written") from error
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{state} cannot be made ({error.strerror}); set XDG_STATE_HOME to a folder that can be written"
        ) from error
    return state


def _shares_files(spool: Path, store: Path) -> bool:
    """Whether one file would be of both: what one of them writes there, the other could not read."""
    # SQLite keeps its files beside the file that a link leads to; a second name of the file is seen by its inode.
    of_spool, of_store = os.path.realpath(spool), os.path.realpath(store)
    names = {of_spool + end for end in SPOOL_FILES} & {of_store + end for end in DATABASE_FILES}
    there = os.path.exists(of_spool) and os.path.exists(of_store)
    return bool(names) or (there and os.path.samefile(of_spool, of_store))


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value, where it is allowed. Raises SettingsError."""
    if value not in allowed:
        raise SettingsError(f"{name}: {value[:40]!r} is not allowed; allowed are {', '.join(allowed)}")
    return value


def _path(name: str, value: str | None) -> Path | None:
    if value is None:
        return None
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise SettingsError(f"{name}: {value[:80]!r} names no known home folder; write the path out") from None


def _list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _some(name: str, value: str, allowed: str) -> tuple[str, ...]:
    """A list. Raises SettingsError where nothing but commas is in it."""
    parts = _list(value)
    if value and not parts:
        raise SettingsError(f"{name}: {value[:40]!r} names none; allowed are {allowed}")
    return parts


def _is_text(value: str) -> bool:
    """Whether the environment had UTF-8 there: Python hands on other bytes as surrogates."""
    return value == value.encode(errors="replace").decode()


def _networks(name: str, value: str) -> Networks:
    try:
        return tuple(ip_network(part, strict=False) for part in _list(value))
    except ValueError:
        raise SettingsError(
            f"{name}: {value[:80]!r} is no list of networks; allowed are addresses and networks such as "
            "10.0.0.0/8,2001:db8::/32"
        ) from None


def _hosts(value: str) -> tuple[str, ...]:
    hosts = _some("AUDIT_ALLOWED_HOSTS", value, "such as audit.example.com,*.example.com")
    for host in hosts:
        if not re.fullmatch(r"\*|(\*\.)?[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]", host):
            raise SettingsError(
                f"AUDIT_ALLOWED_HOSTS: {host[:80]!r} is no host name; allowed are names without scheme and port, such "
                "as audit.example.com, *.example.com, 10.0.0.1 or [::1]"
            )
    return tuple(host.lower() for host in hosts)


def _origins(value: str) -> tuple[str, ...]:
    for origin in _list(value):
        if not re.fullmatch(r"https?://[A-Za-z0-9_.:\[\]-]+", origin):
            raise SettingsError(
                f"AUDIT_CORS_ORIGINS: {origin[:80]!r} is no origin; allowed are such as https://dashboard.example.com"
            )
    return tuple(origin.lower() for origin in _list(value))


def _positive(name: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII) or not int(value):
        raise SettingsError(f"{name}: {value[:40]!r} is not allowed; allowed are whole numbers from 1 to 999999999")
    return int(value)


def _bytes(name: str, value: str, allowed: tuple[int, int]) -> int:
    number = int(value) if re.fullmatch(r"\d{1,16}", value, re.ASCII) else -1
    if not allowed[0] <= number <= allowed[1]:
        raise SettingsError(
            f"{name}: {value[:40]!r} is not allowed; allowed are numbers of bytes from {allowed[0]} to {allowed[1]}"
        )
    return number
