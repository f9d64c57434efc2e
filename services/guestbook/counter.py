"""How many messages there are, without counting them.

`COUNT(*)` costs InnoDB a walk over the table. Each transaction that adds or deletes a message
also adds to one of a few rows, the slots, whose sum is the count: exact on every replica, and
undone with the transaction. Several slots, so that posts do not wait for each other's commit.
See docs/decisions.
"""

from __future__ import annotations

from sqlalchemy import Connection, ScalarSelect, bindparam, func, insert, select, update

from services.guestbook.tables import message, message_count

SLOTS = 16

_add = (
    update(message_count)
    .where(message_count.c.slot == bindparam("at"))
    .values(total=message_count.c.total + bindparam("by"))
)


def total() -> ScalarSelect[int]:
    """The count, to be read in the same statement (so the same state) as a page."""
    return select(func.coalesce(func.sum(message_count.c.total), 0)).scalar_subquery()


def add(connection: Connection, message_id: int, by: int) -> None:
    """Count a message that this transaction adds (1) or deletes (-1)."""
    connection.execute(_add, {"at": message_id % SLOTS, "by": by})


def reconcile(connection: Connection) -> int:
    """Bring the count in line with the table, in a transaction; answers by how much it was off.

    It is off when somebody wrote to the table by hand, or the original made it. The correction
    is a difference, seen in one state of the data, so it stays right whatever others add to the
    other slots meanwhile; the lock on one slot keeps two corrections apart.
    """
    slots = select(message_count.c.slot)
    if connection.execute(slots.where(message_count.c.slot == 0).with_for_update()).first() is None:
        rows = [{"slot": slot, "total": 0} for slot in range(SLOTS)]
        connection.execute(insert(message_count), rows)
    counted = select(func.count()).select_from(message).scalar_subquery()
    difference = connection.execute(select(counted - total())).scalar_one()
    if difference:
        connection.execute(_add, {"at": 0, "by": int(difference)})
    return int(difference)
