"""Cells of `get` that depend on nothing that runs."""

from __future__ import annotations

from lab.cli import get_tables


def test_a_slice_without_endpoints_has_none_set() -> None:
    shown = get_tables.cells({"kind": "EndpointSlice", "addressType": "IPv4"})
    assert shown == ["IPv4", "<unset>", "<unset>"]


def test_labels_are_in_the_order_of_their_names() -> None:
    labels = {"version": "1.0", "app": "ui"}
    metadata = {"name": "ui", "labels": labels, "creationTimestamp": ""}
    table = get_tables.table(
        [{"kind": "Sidecar", "metadata": metadata}], wide=False, namespaces=False, labels=True
    )
    assert table.splitlines()[1].endswith("app=ui,version=1.0")
