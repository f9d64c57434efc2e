"""Reads what a request brings: its body, the key, the types; refuses it with a reason."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError

from services.guestbook.tables import MAX_KEY

MAX_BODY = 64 * 1024
"""Bytes."""

JSON_TYPES = "application/json, application/hal+json"
PATCH_TYPES = "application/merge-patch+json, application/json"

_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY}}}")
_JSON = re.compile(r"application/(?:[\w.!#$&^-]+\+)?json", re.ASCII)

Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request, model: type[Model]) -> Model:
    """The body as a model; raises HTTPException 400, 413 or 415."""
    _check_type(request)
    body = await _limited(request)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(HTTPStatus.BAD_REQUEST, reasons(error)) from None


def idempotency_key(request: Request) -> str | None:
    """The `Idempotency-Key` of the request; raises HTTPException 400 for one that cannot be."""
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        detail = f"Idempotency-Key: not 1 to {MAX_KEY} visible ASCII characters"
        raise HTTPException(HTTPStatus.BAD_REQUEST, detail)
    return key


def reasons(error: ValidationError) -> str:
    """Everything that is wrong, in words for a client."""
    return "; ".join(_reason(each["type"], each["loc"], each["msg"]) for each in error.errors())


def _check_type(request: Request) -> None:
    """JSON of any name, or none named; a JSON Patch is a list of operations, which we do not do."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if not _JSON.fullmatch(kind.lower()) or kind.lower() == "application/json-patch+json":
        patch = request.method == "PATCH"
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {kind!r} is not supported; send {PATCH_TYPES if patch else JSON_TYPES}",
            {"Accept-Patch": PATCH_TYPES} if patch else None,
        )


async def _limited(request: Request) -> bytes:
    """FastAPI's own limit answers without the reason in JSON."""
    declared = request.headers.get("content-length", "0")
    body = bytearray()
    if int(declared) <= MAX_BODY:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                break
    if int(declared) > MAX_BODY or len(body) > MAX_BODY:
        detail = f"The body is over {MAX_BODY} bytes"
        # The rest of the body is not read, so the connection cannot be used again.
        headers = {"Connection": "close"}
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, headers)
    return bytes(body)


def _reason(kind: str, location: tuple[int | str, ...], message: str) -> str:
    if kind == "json_invalid":
        return f"the body is not valid JSON ({message.removeprefix('Invalid JSON: ')})"
    if not location:
        return "the body must be a JSON object"
    if kind == "missing":
        return f"{location[0]}: missing"
    return f"{location[0]}: {message.removeprefix('Value error, ')}"
