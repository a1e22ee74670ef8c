"""Settings, store URLs, and where the spool lies."""

from __future__ import annotations

import importlib
import traceback
from dataclasses import FrozenInstanceError
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from audit_pipeline import stores
from audit_pipeline.errors import SettingsError
from audit_pipeline.settings import VARIABLES, Settings, spool_path, unknown_line, unknown_variables
from audit_pipeline.stores import StoreURL, open_store

SECRET = "hunter2-hunter2"


def refused(variable: str, value: str) -> str:
    """The one line that a wrong value stops the program with."""
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment({variable: value})
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300
    return str(raised.value)


# Values


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {name: "" for name in VARIABLES if name != "AUDIT_ENTITLED_PLANS"},
        dict.fromkeys(VARIABLES, " \t\r\n"),
    ],
    ids=["none", "empty", "white space"],
)
def test_defaults(environment: dict[str, str]) -> None:
    """Without variables, or with empty ones or white space alone, the defaults of INTERFACE, section 2."""
    settings = Settings.from_environment(environment)
    assert settings == Settings()
    assert settings.store_url == "sqlite:///audit.db"
    assert settings.spool is None
    assert (settings.jwt_secret, settings.jwks_url, settings.jwks_file) == (None, None, None)
    assert (settings.jwt_issuer, settings.jwt_audience) == (None, None)
    assert settings.cursor_keys == ()
    assert settings.entitled_plans == ("business", "enterprise")
    assert settings.trusted_proxies == ()
    assert settings.allowed_hosts == ("localhost", "127.0.0.1", "[::1]")
    assert settings.cors_origins == ()
    assert settings.export_limit == 50_000
    assert settings.ip_storage == "full"
    assert settings.catalogue is None


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("AUDIT_STORE_URL", "memory://", "store_url", "memory://"),
        ("AUDIT_SPOOL", "/var/a.db", "spool", Path("/var/a.db")),
        ("AUDIT_SPOOL", "~/a.db", "spool", Path.home() / "a.db"),
        ("AUDIT_JWT_SECRET", " s ", "jwt_secret", " s "),
        ("AUDIT_JWKS_URL", "https://id.example.com/keys", "jwks_url", "https://id.example.com/keys"),
        ("AUDIT_JWKS_FILE", "/etc/keys.json", "jwks_file", Path("/etc/keys.json")),
        ("AUDIT_JWT_ISSUER", "https://id.example.com", "jwt_issuer", "https://id.example.com"),
        ("AUDIT_JWT_AUDIENCE", "audit", "jwt_audience", "audit"),
        ("AUDIT_CURSOR_KEYS", "new, old,", "cursor_keys", ("new", "old")),
        ("AUDIT_ENTITLED_PLANS", "", "entitled_plans", ()),
        ("AUDIT_ENTITLED_PLANS", "team", "entitled_plans", ("team",)),
        ("AUDIT_TRUSTED_PROXIES", "10.0.0.1/8", "trusted_proxies", (ip_network("10.0.0.0/8"),)),
        ("AUDIT_TRUSTED_PROXIES", "::1,1.2.3.4", "trusted_proxies", (ip_network("::1"), ip_network("1.2.3.4"))),
        (
            "AUDIT_ALLOWED_HOSTS",
            "Audit.example.com,*.a.b,[::1],*",
            "allowed_hosts",
            ("audit.example.com", "*.a.b", "[::1]", "*"),
        ),
        (
            "AUDIT_CORS_ORIGINS",
            "https://a.example,http://b:8080",
            "cors_origins",
            ("https://a.example", "http://b:8080"),
        ),
        ("AUDIT_SPOOL_LIMIT", "1048576", "spool_limit", 2**20),
        ("AUDIT_SPOOL_LIMIT", "1125899906842624", "spool_limit", 2**50),
        ("AUDIT_SPOOL_AGE", "3600", "spool_age", 3600),
        ("AUDIT_ON_FULL", "fail_open", "on_full", "fail_open"),
        ("AUDIT_EXPORT_LIMIT", "1", "export_limit", 1),
        ("AUDIT_EXPORT_LIMIT", "999999999", "export_limit", 999_999_999),
        ("AUDIT_IP_STORAGE", "masked", "ip_storage", "masked"),
        ("AUDIT_CATALOGUE", "/etc/actions.json", "catalogue", Path("/etc/actions.json")),
    ],
)
def test_each_variable_is_read(variable: str, value: str, field: str, expected: Any) -> None:
    """Each one sets its own field, and no other."""
    settings = Settings.from_environment({variable: value})
    assert getattr(settings, field) == expected
    assert {name for name in Settings.__slots__ if getattr(settings, name) != getattr(Settings(), name)} == {field}
    # A secret is taken as it is; no plans at all is a choice, and white space alone is none.
    if value and variable != "AUDIT_JWT_SECRET":
        assert Settings.from_environment({variable: f" \t{value}\r\n"}) == settings


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("AUDIT_SPOOL", "~nobody-of-that-name/a.db", "write the path out"),
        ("AUDIT_JWKS_FILE", "~nobody-of-that-name/a", "write the path out"),
        ("AUDIT_CATALOGUE", "~nobody-of-that-name/a", "write the path out"),
        ("AUDIT_JWKS_URL", "id.example.com/keys", "allowed are https://"),
        *[
            ("AUDIT_JWKS_URL", value, "allowed are https://")
            for value in ("file:///etc/passwd", "https://", "https:///keys", "https://a b/keys", "https://?x")
        ],
        ("AUDIT_JWT_SECRET", "\udcff" * 40, "is no UTF-8"),
        ("AUDIT_CURSOR_KEYS", "new,\udcff", "is no UTF-8"),
        ("AUDIT_CURSOR_KEYS", ",", "names none; allowed are one key, or several"),
        ("AUDIT_ALLOWED_HOSTS", ", ", "names none; allowed are such as audit.example.com"),
        *[
            ("AUDIT_TRUSTED_PROXIES", value, "such as 10.0.0.0/8")
            for value in ("x", "10.0.0.0/33", "*", "a,b\nc", "1.2.3.4:80")
        ],
        *[
            ("AUDIT_ALLOWED_HOSTS", value, "without scheme and port")
            for value in ("https://a.b", "a.b:80", "a b", "a/", "::1", "a\nb")
        ],
        *[
            ("AUDIT_CORS_ORIGINS", value, "such as https://")
            for value in ("*", "a.b", "https://a.b/", "https://a.b/x", "ftp://a", "null")
        ],
        *[
            ("AUDIT_EXPORT_LIMIT", value, "from 1 to 999999999")
            for value in ("0", "-1", "1.5", "many", "9" * 5000, "1_000", "١", "1 0")
        ],
        *[
            ("AUDIT_SPOOL_LIMIT", value, "numbers of bytes from 1048576 to 1125899906842624")
            for value in ("0", "1048575", "1125899906842625", "1G", "-1", "9" * 5000, "1e9", "١٢٣٤٥٦٧٨")
        ],
        ("AUDIT_ENTITLED_PLANS", ",", "names none; allowed are such as business,enterprise"),
        *[("AUDIT_SPOOL_AGE", value, "from 1 to 999999999") for value in ("0", "-1", "1h", "1.5", "never")],
        *[("AUDIT_ON_FULL", value, "allowed are fail_closed, fail_open") for value in ("open", "FAIL_OPEN", "drop")],
        *[("AUDIT_IP_STORAGE", value, "allowed are full, masked") for value in ("none", "FULL", "full,", "x" * 5000)],
    ],
    ids=lambda value: value[:24],
)
def test_each_wrong_value_stops_the_program(variable: str, value: str, allowed: str) -> None:
    """One line names the variable and what is allowed."""
    said = refused(variable, value)
    assert said.startswith(f"{variable}: ")
    assert allowed in said


def test_only_one_way_to_verify_tokens_is_set() -> None:
    """Two of them are refused by name, and not by value."""
    with pytest.raises(SettingsError, match=r"^AUDIT_JWT_SECRET and AUDIT_JWKS_URL are set; allowed is one") as raised:
        Settings.from_environment({"AUDIT_JWT_SECRET": SECRET, "AUDIT_JWKS_URL": "https://a.b"})
    assert SECRET not in str(raised.value)


def test_arguments_win_over_the_environment() -> None:
    """A store and a spool that are given stand for those of the environment; an empty one does not."""
    environment = {"AUDIT_STORE_URL": "memory://", "AUDIT_SPOOL": "/a.db"}
    assert Settings.from_environment(environment, store="sqlite:///b.db", spool="/b.db") == Settings(
        store_url="sqlite:///b.db", spool=Path("/b.db")
    )
    for empty in ("", " "):
        assert Settings.from_environment(environment, store=empty, spool=empty) == Settings(
            store_url="memory://", spool=Path("/a.db")
        )
    assert Settings.from_environment({}, store=" memory:// ", spool=" /a.db\n") == Settings(
        store_url="memory://", spool=Path("/a.db")
    )


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read when settings are made, and not at import; other variables are not looked at."""
    monkeypatch.setenv("AUDIT_EXPORT_LIMIT", "7")
    monkeypatch.setenv("AUDIT_OTHER", "x")
    assert Settings.from_environment() == Settings(export_limit=7)


def test_settings_do_not_change() -> None:
    """They are read once."""
    with pytest.raises(FrozenInstanceError):
        Settings().export_limit = 1  # type: ignore[misc]


def test_secrets_do_not_show() -> None:
    """Neither the JWT secret, nor cursor keys, nor passwords in URLs are in the text of the settings."""
    settings = Settings.from_environment(
        {
            "AUDIT_STORE_URL": f"opensearch+https://admin:{SECRET}@search:9200",
            "AUDIT_JWT_SECRET": SECRET,
            "AUDIT_CURSOR_KEYS": f"{SECRET}1,{SECRET}2",
        }
    )
    with_keys = Settings.from_environment({"AUDIT_JWKS_URL": f"https://u:{SECRET}@id.example.com"})
    for shown in (repr(settings), str(settings), f"{settings}", repr(with_keys)):
        assert SECRET not in shown


# Stores


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("audit.db", r"has no scheme; did you mean sqlite:///audit\.db\? allowed are URLs that begin with"),
        ("/var/audit.db", r"has no scheme; did you mean sqlite:////var/audit\.db\? allowed"),
        ("a:hunter2@b/audit.db", "not a URL; allowed|no store is called 'a'; allowed"),
        ("a.db?x=hunter2", "has no scheme; allowed"),
        ("", "has no scheme; allowed"),
        (
            "postgres://localhost/audit",
            "no store is called 'postgres'; allowed are .*memory://, .*opensearch\\+https://, sqlite://",
        ),
        ("base://x", "no store is called 'base'"),
        ("..sqlite:///x", "(no scheme|no store is called)"),
        ("sqlite+ssl:///audit.db", r"no scheme 'sqlite\+ssl'; allowed are sqlite"),
        ("x" * 10_000 + "://", "no store is called 'x{40}'"),
        ("sqlite:///", "sqlite needs a file; allowed are sqlite:///relative.db, sqlite:////absolute.db"),
        ("sqlite://", "sqlite needs a file"),
        ("sqlite://audit.db", "sqlite needs a file"),
        ("sqlite:///folder/", "sqlite needs a file"),
        ("sqlite:///:memory:", "sqlite needs a file"),
        ("sqlite:///a%00b", "sqlite needs a file"),
        ("sqlite:///a.db?mode=ro", "sqlite has no option 'mode'; allowed are: none"),
        ("sqlite:///a.db?x", "not a URL"),
        ("memory://?index=x", "memory has no option 'index'"),
        ("memory://host", "memory:// takes no host and no path"),
        ("memory:///a.db", "memory:// takes no host and no path"),
        ("sqlite://[::1/x", "not a URL; allowed are sqlite:///relative.db"),
        ("opensearch+https://a:hunter2@one:9200,b:hunter3@two:9200", "has a # or @ at a place where none is allowed"),
    ],
    ids=lambda value: value[:32],
)
def test_wrong_store_urls(url: str, said: str) -> None:
    """A URL that names no store raises SettingsError, in one line that says what is allowed."""
    with pytest.raises(SettingsError, match=f"^AUDIT_STORE_URL: .*{said}") as raised:
        open_store(url)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_store_whose_extra_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store's client library need not be there; the error names the extra."""

    def missing(name: str, package: str) -> None:
        raise ModuleNotFoundError(f"No module named 'client' for {package}{name}", name="client")

    monkeypatch.setattr(stores, "store_names", lambda: ["cluster", "sqlite"])
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        SettingsError, match=r"cluster needs client; install it with: pip install 'audit-pipeline\[cluster\]'"
    ):
        open_store("cluster+https://host")


@pytest.mark.parametrize(
    "url",
    [
        "opensearch+https://admin:{}@search:9200",
        "opensearch://admin:{}@search:9200?colour=red",
        "opensearch+ftp://admin:{}@search:9200",
        "postgres://admin:{}@search",
        "sqlite://admin:{}@search/a.db",
        "memory://admin:{}@search",
        "opensearch://admin:{}@[::1",
        "opensearch://admin:{}@search:port",
        "opensearch://admin:{}@search?x",
        "opensearch://:{}@search",
        "opensearch://admin:{}%40x@search",
        "opensearch+https://admin:Pa?{}=x@search:9200",
        "opensearch://admin:Pa?index={}@search:9200",
        "opensearch://a@b:Pa?{}=x@search:9200",
    ],
)
def test_a_password_never_shows(url: str) -> None:
    """Neither in an error, its traceback, nor the text of the URL."""
    url = url.format(SECRET)
    shown = []
    try:
        parts = StoreURL(url)
        shown += [str(parts), repr(parts)]
        shown.append(repr(open_store(url)))
    except SettingsError as error:
        shown += [line for line in traceback.format_exception(error) if "Error" in line]
    assert shown
    assert not any(SECRET in text for text in shown)


@pytest.mark.parametrize("url", ["sqlite:audit.db", "sqlite:/srv/audit.db", "memory:", "opensearch:one:9200"])
def test_a_store_url_has_two_slashes(url: str) -> None:
    """One slash and an absolute path would name a file of the current folder."""
    with pytest.raises(SettingsError, match=r"not a URL; allowed are sqlite:///relative\.db"):
        open_store(url)


def test_the_parts_of_a_store_url() -> None:
    """User, password and path are decoded; the hosts and the options are as given."""
    url = StoreURL("opensearch+https://a%40b:p%3Aw@one:9200,two:9200/x%20y?index=log&shards=2&index=audit")
    assert (url.scheme, url.hosts, url.user, url.password) == ("opensearch+https", "one:9200,two:9200", "a@b", "p:w")
    assert (url.path, url.options) == ("/x y", {"index": "audit", "shards": "2"})
    assert str(url) == "opensearch+https://a@b:***@one:9200,two:9200/x y"


# The spool


def place(store_url: str, spool: Path | None = None) -> Path:
    return spool_path(Settings(store_url=store_url, spool=spool), open_store(store_url))


def test_a_spool_that_is_set_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken as it is, from the current folder where it is relative."""
    monkeypatch.chdir(tmp_path)
    assert place("sqlite:///audit.db", Path("/x/s.db")) == Path("/x/s.db")
    assert place("sqlite:///audit.db", Path("s.db")) == tmp_path / "s.db"


def test_the_spool_of_a_file_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`audit.spool.db` beside `audit.db`, wherever that is."""
    monkeypatch.chdir(tmp_path)
    assert place("sqlite:///audit.db") == tmp_path / "audit.spool.db"
    assert place("sqlite:////var/lib/log.sqlite") == Path("/var/lib/log.spool.db")


def test_other_spools_lie_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named after their store, in a folder for its owner only, below XDG_STATE_HOME or the home folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    found = place("memory://")
    assert found.parent == tmp_path / "state" / "audit-pipeline"
    assert found.parent.stat().st_mode & 0o777 == 0o700
    assert found.name.startswith("memory-")
    assert found.name.endswith(".spool.db")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert place("memory://").parent == tmp_path / "home/.local/state/audit-pipeline"


def test_a_spool_has_no_password_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is that of the place, without who goes there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    url = f"opensearch://admin:{SECRET}@search:9200"
    found = spool_path(Settings(store_url=url), open_store(url))
    assert SECRET not in str(found)
    assert "admin" not in found.name
    assert found.name.startswith("opensearch-search-9200-audit-events-")


def test_a_state_folder_that_cannot_be_made_is_a_settings_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the setting to use instead; so it does where there is no home folder."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match=r"^AUDIT_SPOOL: is not set, and .* cannot be made \(Not a directory\)"):
        place("memory://")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(SettingsError, match=r"^AUDIT_SPOOL: is not set, and there is no home folder"):
        place("memory://")


def test_what_is_no_setting_is_named_with_what_was_meant() -> None:
    """Of the environment's names those that begin as settings do and are none; of no value anything is said."""
    far = "AUDIT_ZZZZZZZZZZZZZZ"
    environment = {"AUDIT_STORE_ULR": SECRET, "AUDIT_SPOOL": "a.db", "HOME": "/", far: SECRET, "audit_spool": ""}
    assert unknown_variables({"AUDIT_SPOOL": "a.db"}) == []
    assert unknown_line({"AUDIT_SPOOL": "a.db"}) == ""
    named = dict(unknown_variables(environment))
    assert list(named) == ["AUDIT_STORE_ULR", far]
    assert named["AUDIT_STORE_ULR"] == "Did you mean AUDIT_STORE_URL?"
    assert all(name in named[far] for name in VARIABLES)
    line = unknown_line(environment)
    assert line.startswith("AUDIT_STORE_ULR is no setting. Did you mean AUDIT_STORE_URL? AUDIT_Z")
    assert "\n" not in line
    assert SECRET not in line
