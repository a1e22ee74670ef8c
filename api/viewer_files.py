"""The viewer's files: read once at start-up, served compressed, under a path that changes whenever one of them does.

Below `/viewer/<version>/` a file never changes, so browsers keep it for good. `/viewer/<path>` leads to the current
version: a page of somebody else's names the file that way, for ever, and what that file imports, by relative paths, is
of its version. Only what was read at start-up can be had: no request reaches the file system.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from .problems import Problem

__all__ = ["ViewerFiles", "page_router", "router"]

PAGE = "index.html"
"""The page at `/`. It is not among the files: its links are relative to where it is served."""
VERSION_LINE = "viewer/VERSION/"
"""Stands in the page for the folder of the current version."""
PRELOAD_LINE = re.compile(r"^([ \t]*)<!-- modulepreload -->$", re.MULTILINE)
"""Stands in the page for the links that fetch all modules at once, instead of one after the other."""

_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain",
}
# What no browser needs, over a third of what would be sent: comments that have lines of their own, indentation, and
# space beside brackets and operators. The modules keep to that form: none has a text with a line that begins like a
# comment, or with such space.
_ASIDE = re.compile(
    rb"^[ \t]*(//.*|/\*.*\*/)\n|^[ \t]*/\*\*\n([ \t]*\*.*\n)+|^[ \t]+|^\n",
    re.MULTILINE,
)
# A line with a comment at its end takes no other line to it.
_LINE_GOES_ON = re.compile(rb"^((?:(?!//).)*[{(\[,;])\n", re.MULTILINE)
_SPACE = re.compile(rb"(?<=\{) | (?=\})|(?<=\)) (?=\{)| (=>|===|!==|&&|\|\||\?\?|=) ")
_STYLES = re.compile(rb"css`[^`]*`")
_STYLE_SPACE = re.compile(rb"(?<=[:,;>]) | (?=[>{])")
_VERSION = re.compile(r"([0-9a-f]{12})/")
_FOR_GOOD = "public, max-age=31536000, immutable"
_ASK_EACH_TIME = "no-cache"

router = APIRouter(include_in_schema=False)
"""`/viewer/…`. The application that includes it has `ViewerFiles` in its `state.viewer`."""
page_router = APIRouter(include_in_schema=False)
"""`/`, the page."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is sent."""

    media_type: str
    plain: bytes
    zipped: bytes
    digest: str

    @classmethod
    def of(cls, name: str, content: bytes) -> _File:
        zipped = gzip.compress(content, 9, mtime=0)
        media_type = _MEDIA_TYPES[_suffix(name)] + "; charset=utf-8"
        return cls(media_type, content, zipped, sha256(content).hexdigest()[:16])

    def answer(self, request: Request, caching: str) -> Response:
        """This file for whoever asks: compressed where they take that, and empty (304) where they have it already."""
        zips = _takes_gzip(request)
        # The two forms differ in their bytes, and so they do in their tags (RFC 9110, section 8.8.3).
        tag = f'"{self.digest}-gzip"' if zips else f'"{self.digest}"'
        headers = {"Cache-Control": caching, "ETag": tag, "Vary": "Accept-Encoding"}
        known = request.headers.get("if-none-match", "")
        if known.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in known.split(",")):
            return Response(status_code=304, headers=headers)
        if zips:
            headers["Content-Encoding"] = "gzip"
        return Response(self.zipped if zips else self.plain, media_type=self.media_type, headers=headers)


class ViewerFiles:
    """What the folder `viewer` has for browsers, in memory, and the name of this version of it."""

    def __init__(self, folder: Traversable | None = None) -> None:
        """Reads the folder; that of this package unless another is given."""
        found = dict(sorted(_contents(folder or files(__package__ or "") / "viewer")))
        digest = sha256()
        for path, content in found.items():
            digest.update(f"{path} {len(content)}\n".encode() + content)
        self.version = digest.hexdigest()[:12]
        """12 hexadecimal digits, others whenever a file is."""
        page = found.pop(PAGE).decode()
        self._files: Mapping[str, _File] = {path: _File.of(path, content) for path, content in found.items()}
        self._page = _File.of(PAGE, self._with_version(page).encode())

    def page(self, request: Request) -> Response:
        """The page, to be served one folder above the files."""
        return self._page.answer(request, _ASK_EACH_TIME)

    def file(self, path: str, request: Request) -> Response:
        """What lies at a path below `/viewer/`: a file of this version, or the way to it. Raises Problem."""
        given = _VERSION.match(path)
        name = path[given.end() :] if given else path
        # No file's path needs escapes; and where a slash is escaped, a relative path leads elsewhere.
        if name not in self._files or not _is_verbatim(path, request):
            raise Problem(404, "not-found", "The viewer has no such file.")
        if given and given[1] == self.version:
            return self._files[name].answer(request, _FOR_GOOD)
        # Relative, as only whoever asks knows under which prefix a proxy, or an application around this one, has it.
        return RedirectResponse(
            "../" * path.count("/") + f"{self.version}/{name}", headers={"Cache-Control": _ASK_EACH_TIME}
        )

    def _with_version(self, page: str) -> str:
        folder = f"viewer/{self.version}/"
        modules = [path for path in self._files if path.endswith(".js")]

        def preloads(line: re.Match[str]) -> str:
            return "\n".join(f'{line[1]}<link rel="modulepreload" href="{folder}{path}">' for path in modules)

        return PRELOAD_LINE.sub(preloads, page).replace(VERSION_LINE, folder)


def _contents(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _contents(entry, f"{prefix}{entry.name}/")
        elif _suffix(entry.name) in _MEDIA_TYPES:
            content = entry.read_bytes()
            # What is in a subfolder is not ours.
            yield prefix + entry.name, content if prefix or _suffix(entry.name) != ".js" else _tight(content)


def _tight(module: bytes) -> bytes:
    code = _SPACE.sub(rb"\1", _LINE_GOES_ON.sub(rb"\1", _ASIDE.sub(b"", module)))
    return _STYLES.sub(lambda styles: _STYLE_SPACE.sub(b"", styles[0]), code)


def _suffix(name: str) -> str:
    return name[name.rfind(".") :]


def _is_verbatim(path: str, request: Request) -> bool:
    raw: bytes | None = request.scope.get("raw_path")
    return raw is None or raw.endswith(f"/viewer/{path}".encode())


def _takes_gzip(request: Request) -> bool:
    for offer in request.headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = offer.replace(" ", "").partition(";q=")
        if coding == "gzip":
            return re.fullmatch(r"0(\.0*)?", weight) is None
    return False


@router.api_route("/viewer/{path:path}", methods=["GET", "HEAD"])
async def viewer_file(request: Request, path: str) -> Response:
    """A file of the viewer."""
    viewer: ViewerFiles = request.app.state.viewer
    return viewer.file(path, request)


@page_router.api_route("/", methods=["GET", "HEAD"])
async def viewer_page(request: Request) -> Response:
    """The viewer's page."""
    viewer: ViewerFiles = request.app.state.viewer
    return viewer.page(request)
