"""What was taken from others, and is kept here, is what it says it is."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
VENDOR = ROOT / "api" / "viewer" / "vendor"
LOCKS = (ROOT / "tools/vendor-lit/package-lock.json", ROOT / "tests/browser/package-lock.json")


def test_lit_is_the_one_that_was_bundled() -> None:
    """The committed bundle has the checksum that was written with it, carries its licence, and is a release build."""
    about, line = (VENDOR / "lit.sha256").read_text().splitlines()
    code = (VENDOR / "lit.js").read_bytes()
    assert re.fullmatch(r"# Lit 3\.3\.\d+, bundled by esbuild \d+\.\d+\.\d+", about)
    assert line == f"{hashlib.sha256(code).hexdigest()}  lit.js"
    licence = (VENDOR / "lit.LICENSE").read_text()
    assert "BSD 3-Clause License" in licence
    assert "Google LLC" in licence
    assert b"lit.LICENSE" in code[:100]
    for never in (b"eval(", b"new Function", b"dev-mode", b"sourceMappingURL"):
        assert never not in code
    assert len(gzip.compress(code, 9)) < 8_600


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.parent.name)
def test_locked_packages_have_checksums_and_no_registry(path: Path) -> None:
    """Each package is locked by version and checksum; where it is fetched from is up to whoever installs it."""
    packages = json.loads(path.read_text())["packages"]
    assert len(packages) > 1
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name
