"""What the API is compared with: one route, a small answer."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def hello() -> dict[str, str]:
    """A small answer."""
    return {"status": "ok"}
