"""`ServedFile`: a file as an answer, or the parts of it that a request names."""

from __future__ import annotations

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from aevorium.api.problems import problem_response
from aevorium.errors import UserError

__all__ = ["ServedFile"]

_REFUSED = 400


class ServedFile(FileResponse):
    """A file. Parts that it does not have are refused in a problem document, where Starlette would answer with text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers with the file."""
        is_refused = False

        async def send_unless_refused(message: Message) -> None:
            nonlocal is_refused
            is_refused = is_refused or message.get("status", 0) >= _REFUSED
            if not is_refused:
                await send(message)

        await super().__call__(scope, receive, send_unless_refused)
        if is_refused:
            error = UserError("RANGE_NOT_SATISFIABLE", "The file is not served. It does not have the range asked for.")
            scope.setdefault("state", {})["code"] = error.code
            whole = {"Content-Range": f"bytes */{self.headers['content-length']}"}
            await problem_response(error, headers=whole)(scope, receive, send)
