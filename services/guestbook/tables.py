"""The tables: the original's `message`, and the two that keep its promises."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
)
from sqlalchemy.dialects import mysql

from services.guestbook.entry import MAX_MESSAGE, MAX_USERNAME

metadata = MetaData()

_BIG_ID = BigInteger().with_variant(Integer, "sqlite")
_MILLISECONDS = DateTime().with_variant(mysql.DATETIME(fsp=3), "mysql", "mariadb")
_UTF8: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    # By code point, as SQLite sorts.
    "mysql_collate": "utf8mb4_bin",
}

MAX_KEY = 255

message = Table(
    "message",
    metadata,
    Column("id", _BIG_ID, primary_key=True, autoincrement=True),
    Column("username", String(MAX_USERNAME), nullable=False),
    Column("message", String(MAX_MESSAGE), nullable=False),
    Column("timestamp", _MILLISECONDS, nullable=False),
    # Each holds the id as well, so a page in either order is read straight from it.
    Index("message_username", "username"),
    Index("message_timestamp", "timestamp"),
    sqlite_autoincrement=True,  # An id is never given twice, as in MySQL.
    **_UTF8,
)

message_count = Table(
    "message_count",
    metadata,
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("total", BigInteger, nullable=False),
    **_UTF8,
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column(
        "value",
        String(MAX_KEY).with_variant(
            mysql.VARCHAR(MAX_KEY, charset="ascii", collation="ascii_bin"), "mysql", "mariadb"
        ),
        primary_key=True,
    ),
    Column(
        "fingerprint",
        LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb"),
        nullable=False,
    ),
    Column("message_id", BigInteger, nullable=False),
    Column("timestamp", _MILLISECONDS, nullable=False),
    Column("created", _MILLISECONDS, nullable=False),
    Index("idempotency_key_created", "created"),
    **_UTF8,
)
