"""Envoy's messages as JSON, as Go's protojson prints them."""

from __future__ import annotations

import itertools
import json
import random

from lab.resources import protobuf


def test_maps_are_printed_by_key() -> None:
    """Envoy dumps the keys of a map in an order of its own, which differs between processes."""
    names = [f"{one}{other}" for one, other in itertools.product("abcdef", repeat=2)]
    shuffled = random.Random(1).sample(names, len(names))
    inner = {"list": [dict.fromkeys(shuffled, 1.0)]}
    printed = protobuf.to_camel_json(
        "envoy.config.cluster.v3.Cluster",
        {
            "name": "one",
            "metadata": {"filter_metadata": dict.fromkeys(shuffled, inner)},
            "typed_extension_protocol_options": {
                name: {
                    "@type": "type.googleapis.com/envoy.config.core.v3.Metadata",
                    "filter_metadata": {"istio": dict.fromkeys(shuffled, True)},
                }
                for name in shuffled
            },
        },
    )
    assert list(printed) == ["name", "metadata", "typedExtensionProtocolOptions"]
    assert list(printed["metadata"]["filterMetadata"]) == names
    assert all(
        json.dumps(item) == json.dumps({"list": [dict.fromkeys(names, 1.0)]})
        for item in printed["metadata"]["filterMetadata"].values()
    )
    assert list(printed["typedExtensionProtocolOptions"]) == names
    for item in printed["typedExtensionProtocolOptions"].values():
        assert list(item["filterMetadata"]["istio"]) == names
