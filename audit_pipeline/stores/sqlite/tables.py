"""The tables, their version, and how an older file gets those of this one."""

from __future__ import annotations

from pathlib import Path

import apsw

from ...errors import StoreMismatch
from ...query import SEARCH_FIELDS
from . import counts

__all__ = ["VERSION", "install", "version_of"]

APPLICATION_ID = 0x41554454
VERSION = 2

_SCHEMA = f"""
CREATE TABLE orgs (org INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    org INTEGER NOT NULL,
    id BLOB NOT NULL,
    timestamp INTEGER NOT NULL,
    action TEXT NOT NULL,
    category TEXT NOT NULL,
    user TEXT NOT NULL,
    outcome TEXT NOT NULL,
    network TEXT NOT NULL,
    tone TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX entries_by_id ON entries (org, id);
CREATE INDEX entries_by_time ON entries (org, timestamp, id);
CREATE INDEX entries_by_action ON entries (org, action, timestamp, id);
CREATE INDEX entries_by_user ON entries (org, user, timestamp, id);
CREATE TABLE contents (
    number INTEGER PRIMARY KEY, origin TEXT NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE VIRTUAL TABLE search USING fts5({", ".join(SEARCH_FIELDS)}, content='', columnsize=0, tokenize='ascii');
PRAGMA application_id = {APPLICATION_ID};
"""


def install(db: apsw.Connection, found: int) -> None:
    """Make what a file of the version `found` lacks; 0 is one without tables. Call this in a transaction."""
    if found == 0:
        db.execute(_SCHEMA)
    db.execute(counts.SCHEMA)
    db.execute(f"PRAGMA user_version = {VERSION}")


def version_of(db: apsw.Connection, path: Path) -> int:
    """The version of the store in this file; 0 where there is nothing yet. Raises StoreMismatch."""
    application = db.execute("PRAGMA application_id").get
    version: int = db.execute("PRAGMA user_version").get
    if application == APPLICATION_ID and 0 < version <= VERSION:
        return version
    if application == APPLICATION_ID:
        raise StoreMismatch(
            f"{path}: is an audit store of version {version}, this program knows version {VERSION}; "
            "upgrade audit-pipeline"
        )
    if application or version or db.execute("SELECT count(*) FROM sqlite_schema").get:
        raise StoreMismatch(f"{path}: is another program's database, no audit store; choose another path")
    return 0
