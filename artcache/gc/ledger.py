"""Which manifest names which pack, for a whole store: a table on disk, so memory is bounded.

SQLite's private temporary database: no other process sees it, and it is gone
when its process is, however that ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..layout import Listed
from ..pins import Pinned
from . import Item

_BATCH = 1000
_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -8000;
CREATE TABLE artifact (
    id INTEGER PRIMARY KEY, recipe TEXT, hash TEXT, made REAL, size INTEGER DEFAULT 0,
    pinned INTEGER DEFAULT 0, UNIQUE (recipe, hash));
CREATE TABLE manifest (
    name TEXT PRIMARY KEY, artifact INTEGER, size INTEGER, modified REAL) WITHOUT ROWID;
CREATE INDEX by_artifact ON manifest (artifact);
CREATE TABLE pack (
    id INTEGER PRIMARY KEY, blake3 TEXT UNIQUE, size INTEGER DEFAULT 0, modified REAL,
    refs INTEGER DEFAULT 0, dropped INTEGER DEFAULT 0, moved TEXT);
CREATE TABLE use (artifact INTEGER, pack INTEGER, PRIMARY KEY (artifact, pack)) WITHOUT ROWID;
CREATE TABLE trash (name TEXT PRIMARY KEY, blake3 TEXT, since REAL, run TEXT, size INTEGER);
CREATE TABLE hint (name TEXT PRIMARY KEY, recipe TEXT, hash TEXT, modified REAL, size INTEGER);
"""


class Pack(NamedTuple):
    blake3: str
    size: int
    modified: float
    dropped: bool = False
    """This run removed the last manifest that named it."""


class Trashed(NamedTuple):
    """A pack in the trash."""

    name: str
    blake3: str
    since: float
    """When the run that moved it began, by the store's clock."""
    run: str
    size: int


class Dropped(NamedTuple):
    """What went with an artifact."""

    item: Item
    why: str
    names: list[str]
    packs: list[int]
    size: int
    """Of its manifests, in bytes."""
    pack_bytes: int
    """Of the packs that no other artifact names."""


class Ledger:
    """Not for several threads."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")
        self.total = 0
        """Bytes of all manifests, and of the packs that they name."""

    def close(self) -> None:
        self._db.close()

    # -- what is there --------------------------------------------------------------------

    def add_pack(self, blake3: str, size: int, modified: float) -> None:
        self._db.execute(
            "INSERT INTO pack (blake3, size, modified) VALUES (?, ?, ?) ON CONFLICT (blake3)"
            " DO UPDATE SET size = excluded.size, modified = excluded.modified",
            (blake3, size, modified),
        )

    def add_trash(self, one: Trashed) -> None:
        self._db.execute("INSERT OR REPLACE INTO trash VALUES (?, ?, ?, ?, ?)", one)

    def add_hint(self, name: str, recipe: str, hash_: str, modified: float, size: int) -> None:
        row = (name, recipe, hash_, modified, size)
        self._db.execute("INSERT OR REPLACE INTO hint VALUES (?, ?, ?, ?, ?)", row)

    def knows(self, one: Listed) -> bool:
        """Whether exactly this manifest was added."""
        row = self._one("SELECT size, modified FROM manifest WHERE name = ?", one.name)
        return row == (one.size, one.modified)

    def add_manifest(self, one: Listed, packs: Iterable[str]) -> None:
        """What an earlier manifest of that name named stays named: too much is never lost."""
        self._db.execute(
            "INSERT INTO artifact (recipe, hash, made) VALUES (?, ?, ?) ON CONFLICT"
            " (recipe, hash) DO UPDATE SET made = max(made, excluded.made)",
            (one.recipe, one.hash, one.modified),
        )
        (artifact,) = self._one(
            "SELECT id FROM artifact WHERE recipe = ? AND hash = ?", one.recipe, one.hash
        )
        row = (one.name, artifact, one.size, one.modified)
        self._db.execute("INSERT OR REPLACE INTO manifest VALUES (?, ?, ?, ?)", row)
        self.total += one.size
        for blake3 in packs:
            self._db.execute("INSERT OR IGNORE INTO pack (blake3) VALUES (?)", (blake3,))
            (pack,) = self._one("SELECT id FROM pack WHERE blake3 = ?", blake3)
            self._use(artifact, pack)

    def _use(self, artifact: int, pack: int) -> None:
        done = self._db.execute("INSERT OR IGNORE INTO use VALUES (?, ?)", (artifact, pack))
        if done.rowcount > 0:
            (refs, size) = self._one("SELECT refs, size FROM pack WHERE id = ?", pack)
            self._db.execute("UPDATE pack SET refs = refs + 1 WHERE id = ?", (pack,))
            self.total += 0 if refs else size

    # -- what goes ------------------------------------------------------------------------

    def items(self, pinned: Pinned) -> Iterator[Item]:
        """Every artifact, the oldest first."""
        for recipe, hash_ in pinned:
            self._db.execute(
                "UPDATE artifact SET pinned = 1 WHERE recipe = ? AND hash = ?", (recipe, hash_)
            )
        self._db.execute(
            "CREATE TEMP TABLE turn AS SELECT id, recipe, hash, made, pinned, row_number()"
            " OVER (PARTITION BY recipe ORDER BY made DESC) AS rank FROM artifact"
            " ORDER BY made"
        )
        for recipe, hash_, made, rank, held, number in self._rows(
            "SELECT rowid, recipe, hash, made, rank, pinned, id FROM turn WHERE rowid > ?"
            " ORDER BY rowid LIMIT ?"
        ):
            yield Item(recipe, hash_, 0, made, rank, bool(held), number)

    def drop(self, item: Item, why: str) -> Dropped:
        """Count an artifact as gone, its manifests as unknown."""
        (size,) = self._one("SELECT sum(size) FROM manifest WHERE artifact = ?", item.number)
        names = self._list("SELECT name FROM manifest WHERE artifact = ?", item.number)
        packs = self._list("SELECT pack FROM use WHERE artifact = ?", item.number)
        self._db.execute("DELETE FROM manifest WHERE artifact = ?", (item.number,))
        self._db.execute("DELETE FROM use WHERE artifact = ?", (item.number,))
        free = 0
        for pack in packs:
            self._db.execute("UPDATE pack SET refs = refs - 1 WHERE id = ?", (pack,))
            refs, length = self._one("SELECT refs, size FROM pack WHERE id = ?", pack)
            if not refs:
                free += length
                self._db.execute("UPDATE pack SET dropped = 1 WHERE id = ?", (pack,))
        self.total -= size + free
        return Dropped(item, why, names, packs, size, free)

    def take_back(self, dropped: Dropped) -> None:
        """It stays: its packs are named."""
        for pack in dropped.packs:
            self._use(dropped.item.number, pack)

    def orphans(self, before: float) -> Iterator[Pack]:
        """The packs that no manifest names, stored no later than `before`."""
        for blake3, size, modified, dropped in self._rows(
            "SELECT id, blake3, size, modified, dropped FROM pack WHERE id > ? AND refs = 0"
            " AND modified <= ? ORDER BY id LIMIT ?",
            before,
        ):
            yield Pack(blake3, size, modified, bool(dropped))

    def moved(self, blake3: str, to: str) -> None:
        """The pack lies in the trash now, under that name."""
        self._db.execute(
            "UPDATE pack SET moved = ?, modified = NULL WHERE blake3 = ?", (to, blake3)
        )

    def moved_away(self, *, named: bool) -> Iterator[tuple[str, str]]:
        """What this run moved (BLAKE3, name in the trash): what is named by now, or not."""
        yield from self._rows(
            "SELECT id, blake3, moved FROM pack WHERE id > ? AND moved IS NOT NULL"
            f" AND {'refs > 0' if named else 'refs = 0'} ORDER BY id LIMIT ?"
        )

    def trash(self) -> Iterator[tuple[Trashed, bool, bool]]:
        """What lay in the trash before, each with whether it is named, and stored besides."""
        for *trashed, refs, modified in self._rows(
            "SELECT trash.rowid, trash.name, trash.blake3, since, run, trash.size, refs, modified"
            " FROM trash LEFT JOIN pack USING (blake3) WHERE trash.rowid > ?"
            " ORDER BY trash.rowid LIMIT ?"
        ):
            yield Trashed(*trashed), bool(refs), modified is not None

    def is_stored(self, blake3: str) -> bool:
        row = self._one("SELECT modified FROM pack WHERE blake3 = ?", blake3)
        return bool(row) and row[0] is not None

    def has(self, recipe: str, hash_: str) -> bool:
        """Whether a manifest of that key is there still."""
        return bool(
            self._one(
                "SELECT 1 FROM artifact JOIN manifest ON artifact = id"
                " WHERE recipe = ? AND hash = ?",
                recipe,
                hash_,
            )
        )

    def lost_hints(self, before: float, *, dropped: bool) -> Iterator[tuple[str, int]]:
        """Name and bytes of the hints to no manifest, written no later than `before`: where
        this run removed the manifest, or where none was."""
        yield from self._rows(
            "SELECT hint.rowid, name, hint.size FROM hint"
            " LEFT JOIN artifact USING (recipe, hash) WHERE hint.rowid > ? AND NOT EXISTS"
            " (SELECT 1 FROM manifest WHERE artifact = artifact.id) AND modified <= ?"
            " AND (artifact.id IS NOT NULL) = ? ORDER BY hint.rowid LIMIT ?",
            before,
            dropped,
        )

    def lacking(self) -> tuple[int, str]:
        """How many packs are named and nowhere, and one of the keys that name such."""
        row = self._one(
            "SELECT count(DISTINCT blake3), min(recipe || ' ' || substr(hash, 1, 12)) FROM pack"
            " JOIN use ON pack = pack.id JOIN artifact ON artifact = artifact.id"
            " WHERE modified IS NULL AND moved IS NULL"
            " AND blake3 NOT IN (SELECT blake3 FROM trash)"
        )
        return int(row[0]), str(row[1])

    # -- inside ---------------------------------------------------------------------------

    def _one(self, query: str, *values: object) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(query, values).fetchone() or ()
        return row

    def _list(self, query: str, value: int) -> list[Any]:
        return [row[0] for row in self._db.execute(query, (value,))]

    def _rows(self, query: str, *values: object) -> Iterator[Any]:
        """All rows of a query by its first column, a batch at a time, so that the tables may
        be changed meanwhile; without that column."""
        last = 0
        while rows := self._db.execute(query, (last, *values, _BATCH)).fetchall():
            for row in rows:
                yield row[1:]
            last = rows[-1][0]
