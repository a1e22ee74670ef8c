"""The way to the engine: TLS, accounts, several hosts, forks, and what errors say."""

from __future__ import annotations

import base64
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from audit_pipeline.errors import StoreUnavailable
from audit_pipeline.query import Query, Window
from audit_pipeline.settings import Settings, spool_path
from audit_pipeline.stores import Store, open_store
from audit_pipeline.stores.opensearch import engine

from ..engine import Cluster
from .conftest import entry
from .proxy import Proxy

ALL = Query("default")


def make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "audit test")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(1))
        .not_valid_after(now + timedelta(1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / f"{host}.pem", folder / f"{host}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path, "127.0.0.1")[0]


@pytest.fixture
def tls(opensearch: Cluster, certificate: Path) -> Iterator[Proxy]:
    """The engine behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with Proxy(opensearch.hosts[0], context) as proxy:
        yield proxy


def test_tls_with_a_user_and_a_password(tls: Proxy, opened: Callable[..., Store], url: str, certificate: Path) -> None:
    """Over TLS, with an authority of one's own, user and password arrive; special characters are given escaped."""
    store = opened(f"ca_certs={certificate}", at=tls.before(url, "audit:p%40ss%2Fw%3Ard@"))
    assert store.append([entry()]) == []
    assert store.search(ALL, Window(1)).total == 1
    expected = "Basic " + base64.b64encode(b"audit:p@ss/w:rd").decode()
    assert {exchange.headers["authorization"] for exchange in tls.seen} == {expected}


def test_accounts_in_any_alphabet(proxy: Proxy, opened: Callable[..., Store], url: str) -> None:
    """User and password go as UTF-8, which is what OpenSearch reads."""
    store = opened(at=proxy.before(url, "%C3%A4udit:p%E2%82%ACss@"))
    assert store.append([entry()]) == []
    expected = "Basic " + base64.b64encode("äudit:p€ss".encode()).decode()
    assert {exchange.headers["authorization"] for exchange in proxy.seen} == {expected}


def test_tls_with_an_api_key(tls: Proxy, opened: Callable[..., Store], url: str, certificate: Path) -> None:
    """An API key goes in the header that it belongs in."""
    store = opened(f"ca_certs={certificate}&api_key=a1%2Bb2", at=tls.before(url))
    assert store.append([entry()]) == []
    assert {exchange.headers["authorization"] for exchange in tls.seen} == {"ApiKey a1+b2"}


def test_an_unknown_authority_is_not_believed(
    tls: Proxy, opened: Callable[..., Store], url: str, tmp_path: Path
) -> None:
    """A certificate of an unknown authority, or of another name, gets neither entry nor password."""
    folder = tmp_path / "other"
    folder.mkdir()
    other, _ = make_certificate(folder, "127.0.0.2")
    for options in ("", f"ca_certs={other}"):
        store = opened(options, at=tls.before(url, "audit:hunter2@"))
        with pytest.raises(StoreUnavailable, match=r"no TLS connection.*ca_certs") as error:
            store.append([entry()])
        assert "hunter2" not in f"{error.value!r}{error.value.__cause__!r}"
    assert tls.seen == []


def test_a_certificate_of_another_host_is_not_believed(
    opensearch: Cluster, opened: Callable[..., Store], url: str, tmp_path: Path
) -> None:
    """The certificate has to name the host that was asked for."""
    certificate, key = make_certificate(tmp_path, "127.0.0.9")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Proxy(opensearch.hosts[0], context) as proxy:
        store = opened(f"ca_certs={certificate}", at=proxy.before(url))
        with pytest.raises(StoreUnavailable, match="no TLS connection"):
            store.check()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_hosts_that_are_down_are_passed_over(opensearch: Cluster, opened: Callable[..., Store], url: str) -> None:
    """With several hosts, the store answers as long as one of them does."""
    dead = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    living = opensearch.hosts[0]
    for hosts in ([*dead, living], [dead[0], living, dead[1]], [living, *dead]):
        store = opened(at=url.replace(living, ",".join(hosts)))
        for _ in range(4):
            assert store.append([entry()]) == []
            assert store.search(ALL, Window(1)).total > 0


def test_no_host_at_all(opened: Callable[..., Store], url: str, opensearch: Cluster) -> None:
    """Where nothing listens, each call says so, and where."""
    dead = f"127.0.0.1:{free_port()}"
    store = opened(at=url.replace(opensearch.hosts[0], dead))
    for ask in (
        lambda: store.append([entry()]), lambda: store.search(ALL, Window(1)), lambda: store.get("default", entry().id),
        lambda: store.snapshot(ALL, 1), store.setup, store.check, store.organisations,
    ):  # fmt: skip
        with pytest.raises(StoreUnavailable, match=f"{dead}: cannot be reached"):
            ask()


def test_an_engine_that_hangs_is_given_up(
    opened: Callable[..., Store], url: str, opensearch: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What accepts connections and never answers is not waited for without end."""
    monkeypatch.setattr(engine, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = opened(at=url.replace(opensearch.hosts[0], f"127.0.0.1:{silent.getsockname()[1]}"))
        with pytest.raises(StoreUnavailable, match=r"no answer within 0.2 s"):
            store.check()


def test_a_forked_child_has_connections_of_its_own(store: Store) -> None:
    """Parent and child go on with the same store, at the same time."""
    first = entry(target="parent")
    store.append([first])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for _ in range(20):
                assert store.append([entry(target="child")]) == []
            assert store.get("default", first.id) == first
            status = 0
        finally:
            os._exit(status)
    for _ in range(20):
        assert store.append([entry(target="parent")]) == []
    assert os.waitpid(child, 0)[1] == 0
    assert store.search(ALL, Window(1)).total == 41


def test_the_spool_is_named_after_the_first_host_and_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further hosts, another account, other options: the spool stays; another index or first host has its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def spool(url: str) -> Path:
        return spool_path(Settings(store_url=url), open_store(url))

    assert spool("opensearch://a:9200").parent == tmp_path / "audit-pipeline"
    same = {
        spool(url)
        for url in (
            "opensearch://a",
            "opensearch://A:9200,b:9200?shards=2",
            "opensearch+https://u:p@a:9200",
            "opensearch://u2:p2@a?granularity=day",
        )
    }
    assert same == {spool("opensearch://a:9200")}
    others = {spool(url) for url in ("opensearch://b", "opensearch://a:9201", "opensearch://a?index=other")}
    assert len(others | same) == 4
    assert not any("u2" in str(path) or "p2" in str(path) for path in same | others)
