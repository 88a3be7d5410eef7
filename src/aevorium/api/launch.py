"""The API of the settings that hold in this folder, for `uvicorn api.main:app`."""

from __future__ import annotations

import logging
import os
import sys

from aevorium.api.app import create_app
from aevorium.api.configuration import configure
from aevorium.settings import load_settings

__all__ = ["app"]

os.environ["AEVORIUM_LAUNCHER"] = "1"
# uvicorn's own log of requests shows paths with their queries. The API logs without them.
_uvicorn = logging.getLogger("uvicorn.access")
_uvicorn.handlers.clear()
_uvicorn.propagate = False
_options = configure(load_settings().values)
if _options.start_token is not None:
    sys.stderr.write(
        f"No API key exists yet. From this machine this token may do all while the API runs: {_options.start_token}\n"
    )

app = create_app(_options)
"""What uvicorn serves."""
