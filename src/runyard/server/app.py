"""The application: routes, errors and the gate, around one `Context`."""

from __future__ import annotations

from fastapi import Depends, FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from runyard import __version__
from runyard.server import (
    admin,
    agents,
    attempts,
    browser,
    errors,
    files,
    runlogs,
    runs,
    table,
    tokens,
    tracking,
    trees,
)
from runyard.server.auth import authorize
from runyard.server.context import Context
from runyard.server.gate import Gate
from runyard.server.shapes import Submit

_TAGS = [
    {"name": "runs", "description": "Submit, look, change, end."},
    {"name": "logs", "description": "What runs print."},
    {"name": "outputs", "description": "Files that runs write."},
    {"name": "tracking", "description": "What runs log."},
    {"name": "trees", "description": "Frozen code."},
    {"name": "tokens", "description": "Credentials for programs and other hosts."},
    {"name": "server", "description": "The server and the yard as a whole."},
    {"name": "agents", "description": "For agents: the agent as a whole."},
    {"name": "attempts", "description": "For agents: single attempts."},
]
_NOT_COMPRESSED = ("application/octet-stream", "application/x-tar", "text/*", "image/*", "audio/*", "video/*")
"""Streams and files: a compressor would hold back what should come at once, and break ranges."""


def create_api(context: Context) -> FastAPI:
    """Return the application without the gate."""
    api = FastAPI(
        title="Runyard",
        version=__version__,
        description="Runs, their logs and outputs, and the agents that carry them out.",
        openapi_tags=_TAGS,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        dependencies=[Depends(authorize)],
        redirect_slashes=False,
    )
    api.state.context = context
    errors.install(api)
    # Routes with fixed names come before those that take any name.
    for module in (admin, browser, runs, table, runlogs, files, tracking, trees, agents, attempts, tokens):
        api.include_router(module.router)
    _describe_submit(api)
    return api


def _describe_submit(api: FastAPI) -> None:
    """Put the shapes of the one body that is checked by hand (`runs.post_runs`) among the schema's components."""
    make = api.openapi

    def openapi() -> dict[str, object]:
        schema = make()
        shapes = Submit.model_json_schema(ref_template="#/components/schemas/{model}")
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        for name, shape in shapes.pop("$defs", {}).items():
            components.setdefault(name, shape)
        components.setdefault("Submit", shapes)
        return schema

    api.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend a schema


def create_app(context: Context) -> ASGIApp:
    """Return the whole application, for uvicorn."""
    compressed = GZipMiddleware(
        create_api(context), minimum_size=1024, compresslevel=5, exclude_content_types=_NOT_COMPRESSED
    )
    return Gate(compressed, context)
