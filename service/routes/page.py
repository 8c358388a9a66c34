"""The page at /, on which a person can try a clip."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

PAGE = Path(__file__).parents[1] / "static" / "index.html"


def add_page(app: FastAPI) -> None:
    """Add GET /."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE)
