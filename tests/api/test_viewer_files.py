"""The viewer's files: versioned, compressed, kept for good; reached by one name for ever; and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from audit_pipeline.api import create_subapp
from audit_pipeline.api.viewer_files import ViewerFiles
from fastapi import FastAPI

from .conftest import API, check_problem, served

FOLDER = Path(__file__).parent.parent.parent / "api" / "viewer"
LISTED = "https://dashboard.example.com"
TYPES = {".js": "text/javascript", ".svg": "image/svg+xml", ".css": "text/css", ".LICENSE": "text/plain"}


def files() -> list[str]:
    """What the folder has for browsers, but the page."""
    return sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in TYPES)


def current(api: API, path: str) -> str:
    """The path of a file in the current version."""
    return f"/viewer/{api.app.state.viewer.version}/{path}"


def said(module: str) -> list[str]:
    """The texts of a module that has nothing else between quotes, without what they are filled with."""
    return re.findall(r'"[^"\n]*"|`[^`]*`', re.sub(r"\$\{[^}]*\}", "", module))


def test_each_file_is_served_under_its_version(memory_api: API) -> None:
    """Below the version's folder each file is there with its type, and may be kept for good."""
    assert {"icon.svg", "vendor/lit.js", "vendor/lit.LICENSE"} <= set(files())
    for path in files():
        answer = memory_api.get(current(memory_api, path), token=None)
        assert answer.status_code == 200
        written = (FOLDER / path).read_text()
        if path.endswith(".js") and "/" not in path:
            # What a browser needs of ours: all but comments that have lines of their own, and space.
            assert not [line for line in answer.text.splitlines() if line != line.strip() or not line]
            assert not re.search(r"[{,;(\[]\n|\) \{| => ", answer.text)
            lines = [line.strip() for line in written.splitlines()]
            comments = [line for line in lines if line.startswith(("//", "/*", "*/", "* ")) and line[:3] != "* {"]
            kept = "\n".join(line for line in lines if line not in comments)
            assert "".join(answer.text.split()) == "".join(kept.split())
            assert path != "texts.js" or said(answer.text) == said(kept)
        else:
            assert answer.text == written
        assert answer.headers["content-type"] == f"{TYPES[Path(path).suffix]}; charset=utf-8"
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize(
    ("accepted", "zips"),
    [
        ("gzip", True), ("gzip, deflate, br, zstd", True), ("br;q=1.0, GZIP;q=0.5", True), ("gzip; q=0.001", True),
        ("", False), ("identity", False), ("br", False), ("gzip;q=0", False), ("gzip; q=0.0, *", False),
    ],
)  # fmt: skip
def test_files_are_compressed_for_whoever_takes_that(memory_api: API, accepted: str, zips: bool) -> None:
    """gzip is sent where `Accept-Encoding` has it; caches are told that the answer depends on it."""
    for path in (current(memory_api, "vendor/lit.js"), "/"):
        plain = memory_api.get(path, headers={"accept-encoding": "identity"})
        answer = memory_api.get(path, headers={"accept-encoding": accepted})
        assert ("content-encoding" in answer.headers) == zips
        assert (int(answer.headers["content-length"]) < len(answer.content)) == zips
        assert (answer.content, "accept-encoding" in answer.headers["vary"].lower()) == (plain.content, True)
        assert (answer.headers["etag"] == plain.headers["etag"]) == (not zips)


def test_what_is_there_already_is_not_sent_again(memory_api: API) -> None:
    """A browser that asks with the tag of what it has is told that it is still good; with another one it gets it."""
    for path in (current(memory_api, "icon.svg"), "/"):
        for coding in ("gzip", "identity"):
            first = memory_api.get(path, headers={"accept-encoding": coding})
            for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
                again = memory_api.get(path, headers={"accept-encoding": coding, "if-none-match": known})
                assert (again.status_code, again.content) == (304, b"")
                for name in ("etag", "cache-control", "vary"):
                    assert again.headers[name] == first.headers[name]
            assert memory_api.get(path, headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize("path", ["vendor/lit.js", "icon.svg"])
@pytest.mark.parametrize("before", ["", "0123456789ab/"])
def test_a_name_without_the_version_leads_to_it(memory_api: API, path: str, before: str) -> None:
    """Without a version, or with one that is gone, the answer leads to the current one, and is asked for each time."""
    asked = f"/viewer/{before}{path}"
    answer = memory_api.get(asked)
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-cache")
    assert urljoin(asked, answer.headers["location"]) == current(memory_api, path)


def test_pages_of_a_listed_origin_may_import_the_viewer(memory_api: API) -> None:
    """The way to the current version, and the file itself, may be read by pages of a listed origin only."""
    shared = memory_api.with_settings(cors_origins=(LISTED,))
    for path, status in (("/viewer/vendor/lit.js", 307), (current(shared, "vendor/lit.js"), 200)):
        answer = shared.get(path, headers={"origin": LISTED}, token=None)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, LISTED)
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert {"origin", "accept-encoding"} >= set(answer.headers["vary"].lower().split(", ")) >= {"origin"}
        other = shared.get(path, headers={"origin": "https://evil.example"}, token=None)
        assert "access-control-allow-origin" not in other.headers


SECRET = "audit_secret"
OUTSIDE = (
    "../{secret}", "..%2f{secret}", "%2e%2e/{secret}", "%2e%2e%2f{secret}", "..\\{secret}", "..%5c{secret}",
    "....//{secret}", "vendor/../../{secret}", "vendor/..%2f..%2f{secret}", "%252e%252e/{secret}", "//{secret}",
    "/etc/passwd", "%2fetc%2fpasswd", "file:///etc/passwd", "__init__.py", "__pycache__", "vendor", "vendor/",
    "vendor/lit.sha256", "", ".", "index.html", "icon.svg/", "icon.svg%00", "icon.svg%2f..%2f__init__.py",
)  # fmt: skip


@pytest.mark.parametrize("given", OUTSIDE)
def test_nothing_else_is_served(memory_api: API, given: str) -> None:
    """No path, however it is written, reaches what is not a file of the viewer: neither directly nor by a redirect."""
    for base in ("/viewer/", current(memory_api, ""), "/viewer/0123456789ab/"):
        for secret in ("app.py", "py.typed", "../pyproject.toml"):
            check_problem(memory_api.get(base + given.format(secret=secret)), 404, "not-found")


@pytest.mark.parametrize("path", ["vendor%2Flit.js", "icon%2esvg", "%76endor/lit.js", "0123456789ab%2ficon.svg"])
def test_escapes_lead_nowhere(memory_api: API, path: str) -> None:
    """A file has one path. An escaped slash would make a relative redirect lead elsewhere."""
    for base in ("/viewer/", current(memory_api, ""), "/viewer/0123456789ab/"):
        check_problem(memory_api.get(base + path), 404, "not-found")


def test_the_page_names_the_current_version(tmp_path: Path, memory_api: API) -> None:
    """In the page, links have the version, and each module is fetched at once; its other text stays as it is."""
    (tmp_path / "vendor").mkdir()
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "vendor" / "b.js").write_text("2")
    (tmp_path / "a.css").write_text("3")
    (tmp_path / "__init__.py").write_text("4")
    page = '<link href="viewer/VERSION/a.css">\n  <!-- modulepreload -->\n<p>VERSION viewer/x</p>\n'
    (tmp_path / "index.html").write_text(page)
    files = ViewerFiles(tmp_path)
    memory_api.app.state.viewer = files
    folder = f"viewer/{files.version}"
    assert memory_api.get("/").text == (
        f'<link href="{folder}/a.css">\n'
        f'  <link rel="modulepreload" href="{folder}/a.js">\n'
        f'  <link rel="modulepreload" href="{folder}/vendor/b.js">\n'
        "<p>VERSION viewer/x</p>\n"
    )
    before = files.version
    (tmp_path / "__init__.py").write_text("5")
    assert ViewerFiles(tmp_path).version == before
    for name in ("vendor/b.js", "index.html"):
        (tmp_path / name).write_text("changed")
        changed = ViewerFiles(tmp_path).version
        assert changed != before
        before = changed


def test_everything_that_the_page_names_is_there(memory_api: API) -> None:
    """Each link of the page is a file of its version."""
    page = memory_api.get("/", token=None)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    named = re.findall(r'(?:href|src)="(viewer/[^"]+)"', page.text)
    assert set(named) >= {current(memory_api, path)[1:] for path in files() if path.endswith(".js")}
    for path in named:
        assert memory_api.get(f"/{path}").status_code == 200


def test_under_a_prefix(memory_api: API) -> None:
    """Under a path of somebody else's application the page, the redirect and the files lead to one another."""
    host = FastAPI()
    host.mount("/intern/pr%20otokoll", memory_api.app)
    host.mount("/part", create_subapp(pipeline=memory_api.pipeline, caller=lambda: None))
    with served(host) as address, httpx.Client(base_url=address, follow_redirects=True) as client:
        for prefix in ("/intern/pr%2520otokoll", "/part"):
            answer = client.get(f"{prefix}/viewer/vendor/lit.js")
            assert str(answer.url) == address + prefix + current(memory_api, "vendor/lit.js")
            assert answer.content == (FOLDER / "vendor/lit.js").read_bytes()
        page = client.get("/intern/pr%2520otokoll/")
        (icon,) = re.findall(r'href="([^"]+icon.svg)"', page.text)
        assert client.get(urljoin(str(page.url), icon)).history == []
        check_problem(client.get("/part/"), 404, "not-found")


def test_head_tells_what_get_would(memory_api: API) -> None:
    """HEAD has the headers of GET, the length included, and no body."""
    with served(memory_api.app) as address, httpx.Client(base_url=address) as client:
        for path in ("/", "/viewer/icon.svg", current(memory_api, "icon.svg")):
            asked, got = client.head(path), client.get(path)
            assert (asked.status_code, asked.content) == (got.status_code, b"")
            for name in ("content-length", "cache-control", "content-type", "etag", "location"):
                assert asked.headers.get(name) == got.headers.get(name)
