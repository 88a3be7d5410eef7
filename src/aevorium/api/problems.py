"""Every failure as a problem document (RFC 9457), with the code and the remedy of the error catalogue."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from aevorium.errors import AevoriumError, ConfigError, InternalError, UserError

__all__ = [
    "BEARER",
    "BEARER_OR_NEAR",
    "MEDIA_TYPE",
    "RESPONSES",
    "DocumentedApi",
    "Problem",
    "RetryLater",
    "add_problems",
    "problem_response",
]

MEDIA_TYPE = "application/problem+json"

BEARER = "bearer"
"""What the OpenAPI document calls a token that is needed."""

BEARER_OR_NEAR = "bearer or near"
"""One that requests of this machine do not need; the document says that it can be left out."""

_LOGGER = logging.getLogger(__name__)

_UNAUTHENTICATED, _WRONG_METHOD = 401, 405

_OF_STATUS = {404: "ROUTE_NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class Invalid(BaseModel):
    """A field of a request that cannot be used. What was sent is not repeated."""

    field: str = Field(description="Where it stands, such as body.rows.")
    reason: str


class Problem(BaseModel):
    """A failure (RFC 9457)."""

    type: str = Field(description="The documentation page of the code.")
    title: str = Field(description="One sentence of the catalogue, the same for every failure of the code.")
    status: int
    detail: str = Field(description="What happened, and why.")
    code: str = Field(description="The code of the error catalogue.")
    hint: str = Field(description="What to do.")
    invalid: list[Invalid] = Field(default=[], description="The fields that cannot be used.")


RESPONSES: Mapping[int | str, dict[str, Any]] = {"default": {"model": Problem, "description": "A problem (RFC 9457)."}}
"""What every operation may answer beside what it promises."""


class RetryLater(UserError):
    """Something that passes by itself.

    Args:
        code: A key of the catalogue.
        message: "Problem. Reason."
        seconds: When to try again.
    """

    def __init__(self, code: str, message: str, *, seconds: float) -> None:
        super().__init__(code, message)
        self.seconds = max(1, math.ceil(seconds))


class DocumentedApi(FastAPI):
    """A FastAPI whose OpenAPI document tells of problem documents, and of tokens that are not always needed."""

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            made = get_openapi(
                title=self.title, version=self.version, summary=self.summary, routes=self.routes, tags=self.openapi_tags
            )
            for operations in made["paths"].values():
                for operation in operations.values():
                    # FastAPI names the type of what the operation promises.
                    default = operation["responses"]["default"]
                    default["content"] = {MEDIA_TYPE: next(iter(default["content"].values()))}
                    # What FastAPI would say of a request that cannot be used is not what it answers here.
                    operation["responses"].pop("422", None)
                    if operation.get("security") == [{BEARER_OR_NEAR: []}]:
                        operation["security"] = [{BEARER: []}, {}]
            made["components"]["securitySchemes"].pop(BEARER_OR_NEAR)
            self.openapi_schema = made
        return self.openapi_schema


def add_problems(app: FastAPI) -> None:
    """Turns every exception into a problem document, and notes its code for the log."""

    @app.exception_handler(AevoriumError)
    async def known(request: Request, error: AevoriumError) -> JSONResponse:
        request.state.code = error.code
        headers = {"Retry-After": str(error.seconds)} if isinstance(error, RetryLater) else None
        return problem_response(error, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        request.state.code = "REQUEST_INVALID"
        fields = [
            Invalid(field=".".join(str(part) for part in found["loc"]), reason=str(found["msg"]))
            for found in error.errors()
        ]
        return problem_response(
            ConfigError("REQUEST_INVALID", "The request cannot be used. Its fields do not hold what they should."),
            invalid=fields,
        )

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        code = request.state.code = _OF_STATUS.get(error.status_code, "REQUEST_INVALID")
        headers = (
            {**(error.headers or {}), **_allowed(request)} if error.status_code == _WRONG_METHOD else error.headers
        )
        return problem_response(
            ConfigError(code, "The request cannot be served."), status=error.status_code, headers=headers
        )

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        # The kind alone: texts may quote data, and logs are read by many.
        _LOGGER.error("request failed: %s", type(error).__name__)
        request.state.code = "INTERNAL"
        return problem_response(InternalError(f"Something failed inside Aevorium: {type(error).__name__}."))


def problem_response(
    error: AevoriumError,
    *,
    status: int | None = None,
    invalid: Sequence[Invalid] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The document of an error.

    Args:
        error: The error.
        status: The answer's status; that of the error's code if None.
        invalid: The fields that cannot be used.
        headers: Further headers of the answer.
    """
    problem = Problem(
        type=error.docs,
        title=error.entry.summary,
        status=error.http_status if status is None else status,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        invalid=list(invalid),
    )
    more = {"WWW-Authenticate": "Bearer"} if error.http_status == _UNAUTHENTICATED else {}
    return JSONResponse(
        problem.model_dump(),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers={**more, **(headers or {})},
    )


def _allowed(request: Request) -> dict[str, str]:
    """What the address takes: Starlette names the methods of the first route there alone."""
    methods: set[str] = set()
    for path, found in request.app.openapi()["paths"].items():
        if compile_path(path)[0].match(request.url.path):
            methods.update(method.upper() for method in found)
    return {"Allow": ", ".join(sorted(methods))} if methods else {}
