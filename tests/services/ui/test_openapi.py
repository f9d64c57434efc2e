"""The ui under schemathesis: its addresses and their answers hold for whatever is sent."""

from __future__ import annotations

from typing import Any

from tests.support.openapi import Deviation, check_openapi
from tests.support.ui import Ui

HTML = {"content": {"text/html": {"schema": {"type": "string"}}}}


def page(*statuses: int) -> dict[str, Any]:
    """Returns the answers that are pages."""
    return {str(status): {"description": "A page.", **HTML} for status in statuses}


TO_THE_PAGE = {
    "303": {
        "description": "To the page.",
        "headers": {"location": {"required": True, "schema": {"const": "/"}}},
    }
}
FORM = {
    "type": "object",
    "required": ["name"],
    "maxProperties": 10,
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-zA-Z][^\x00]{0,99}$"},
        "message": {"type": "string", "pattern": r"^[^\x00]{0,2000}$"},
        "key": {"type": "string", "maxLength": 100},
        "time": {"type": "string", "maxLength": 100},
    },
}
NUMBER = {"type": "integer", "minimum": 1, "maximum": 1_000_000}
FILE = {"enum": ["style.css", "icon.svg"]}
SCHEMA = {
    "openapi": "3.1.0",
    "info": {"title": "ui", "version": "1.0"},
    "paths": {
        "/": {
            "get": {
                "parameters": [{"name": "page", "in": "query", "schema": NUMBER}],
                "responses": page(200, 400),
            }
        },
        "/greet": {
            "get": {"responses": TO_THE_PAGE},
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/x-www-form-urlencoded": {"schema": FORM},
                        "multipart/form-data": {"schema": FORM},
                    },
                },
                "responses": {**TO_THE_PAGE, **page(400, 413, 415, 422)},
            },
        },
        "/logout": {
            "get": {"responses": TO_THE_PAGE},
            "post": {"responses": TO_THE_PAGE},
        },
        "/static/{path}": {
            "get": {
                "parameters": [{"name": "path", "in": "path", "required": True, "schema": FILE}],
                "responses": {
                    "200": {
                        "description": "A file.",
                        "content": {"text/css": {}, "image/svg+xml": {}},
                    },
                    **page(404),
                },
            }
        },
    },
}
DEVIATIONS = (
    Deviation(
        "positive_data_acceptance",
        "A form that was taken leads back to the page.",
        statuses=("2xx", "303", "404"),
    ),
    Deviation(
        "negative_data_rejection",
        "All but the name of a form is mended where it can be: text has no types.",
        paths=("/greet",),
    ),
)


def test_every_answer_is_one_of_those_described(ui: Ui) -> None:
    check_openapi(ui.url, SCHEMA, deviations=DEVIATIONS)
