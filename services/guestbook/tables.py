"""The tables: messages, idempotency keys, and the counters of the messages."""

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

from services.guestbook.models import MAX_MESSAGE, MAX_USERNAME

metadata = MetaData()

MAX_KEY = 255
SLOTS = 16
"""Rows of `message_count`."""

_BIG_ID = BigInteger().with_variant(Integer, "sqlite")
_MILLISECONDS = DateTime().with_variant(mysql.DATETIME(fsp=3), "mysql", "mariadb")
_TABLE: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
}


def _text(length: int, collation: str) -> Any:
    charset = collation.partition("_")[0]
    on_mysql = mysql.VARCHAR(length, charset=charset, collation=collation)
    return String(length).with_variant(on_mysql, "mysql", "mariadb")


message = Table(
    "message",
    metadata,
    Column("id", _BIG_ID, primary_key=True, autoincrement=True),
    # Sorted as people do: case and accents come last.
    Column("username", _text(MAX_USERNAME, "utf8mb4_unicode_ci"), nullable=False),
    Column("message", _text(MAX_MESSAGE, "utf8mb4_bin"), nullable=False),
    Column("timestamp", _MILLISECONDS, nullable=False),
    # Each holds the id as well, so a page in either order is read straight from it.
    Index("message_username", "username"),
    Index("message_timestamp", "timestamp"),
    sqlite_autoincrement=True,  # An id is never given twice, as in MySQL.
    **_TABLE,
)

message_count = Table(
    "message_count",
    metadata,
    Column("slot", SmallInteger, primary_key=True, autoincrement=False),
    Column("total", BigInteger, nullable=False),
    Column("last_id", BigInteger, nullable=False, server_default="0"),
    **_TABLE,
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("value", _text(MAX_KEY, "ascii_bin"), primary_key=True),
    Column(
        "fingerprint",
        LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb"),
        nullable=False,
    ),
    Column("message_id", BigInteger, nullable=False),
    Column("timestamp", _MILLISECONDS, nullable=False),
    Column("created", _MILLISECONDS, nullable=False),
    Index("idempotency_key_created", "created"),
    **_TABLE,
)
