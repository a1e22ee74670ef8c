"""The layout that CONTRIBUTING describes: imports point one way, and only `stores` names a store."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import audit_pipeline
from audit_pipeline.stores import store_names

ROOT = Path(__file__).parent.parent.parent
LAYERS = (
    ("ahead", "card", "database", "errors", "files", "forking", "group_commit", "pages"),
    ("event",),
    ("actions", "privacy", "room"),
    ("gaps",),
    ("salvage",),
    ("spool_file",),
    ("query",),
    ("ecs", "index_templates"),
    ("stores",),
    ("context", "normalize", "settings", "spool", "shipping", "export", "keys", "offering"),
    ("shipper", "integrations", "copying", "quarantine", "replay", "listening", "troubles"),
    ("shipper_process",),
    ("processor",),
    ("importing", "testing", "demo_story"),
    ("demo",),
    ("api",),
    ("cli", "__main__"),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
SPOOLS = ("database.py", "room.py", "salvage.py", "spool.py", "spool_file.py")
SOURCES = sorted([*(ROOT / "audit_pipeline").rglob("*.py"), *(ROOT / "api").rglob("*.py")])


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports, by their first name under `audit_pipeline`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = ("audit_pipeline", *parts) if parts[0] == "api" else parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = list(package[: -node.level]) if node.level else []
            module = [*base, *(node.module or "").split(".")] if node.module else base
            names = [[*module, alias.name] for alias in node.names] if len(module) == 1 else [module]
            found |= {name[1] for name in names if name[0] == "audit_pipeline" and len(name) > 1}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("audit_pipeline.")}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    """A module imports from layers below its own, or from its own package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    own = parts[0] if parts[0] == "api" else parts[1]
    if own == "__init__":
        return
    for name in imports(path) - {own}:
        assert RANK[name] < RANK[own] or (RANK[name] == RANK[own] and own not in imports(_file(name))), name


def _file(name: str) -> Path:
    single = ROOT / "audit_pipeline" / f"{name}.py"
    return single if single.exists() else ROOT / "audit_pipeline" / name / "__init__.py"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_stores_names_a_store(path: Path) -> None:
    """No module outside `stores` imports a store's module or client library (but SQLite's, which the spool has too)."""
    if "stores" in path.parts:
        return
    source = path.read_text()
    assert not re.search(rf"stores\.({'|'.join(store_names())})\b", source)
    client = re.search(r"^\s*(?:from|import) (apsw|sqlite3|opensearchpy|urllib3)\b", source, re.MULTILINE)
    assert client is None or (client[1] == "apsw" and path.name in SPOOLS)


def test_every_public_module_says_what_it_offers() -> None:
    """Each module has `__all__`, every name of it exists, and everything public has a docstring."""
    for module_info in pkgutil.walk_packages(audit_pipeline.__path__, "audit_pipeline."):
        if module_info.name.endswith("__main__"):
            continue
        module = importlib.import_module(module_info.name)
        assert module.__doc__, module_info.name
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if callable(thing) and getattr(thing, "__module__", "").startswith("audit_pipeline"):
                assert thing.__doc__, f"{module_info.name}.{name}"
        tree = ast.parse(Path(str(module.__file__)).read_text())
        public = [
            node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
        ]
        if public:
            assert hasattr(module, "__all__"), module_info.name
        assert all(ast.get_docstring(node) for node in public), module_info.name


def test_importing_does_nothing() -> None:
    """Importing the package reads no settings, opens no file, and loads neither the API's nor a store's libraries."""
    import subprocess
    import sys

    script = (
        "import os, sys; os.environ['AUDIT_STORE_URL'] = 'nonsense://'; before = set(os.listdir('.'));"
        "import audit_pipeline, audit_pipeline.cli;"
        "loaded = {'fastapi', 'uvicorn', 'httpx', 'opensearchpy', 'jwt'} & set(sys.modules);"
        "assert not loaded, loaded; assert set(os.listdir('.')) == before"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
