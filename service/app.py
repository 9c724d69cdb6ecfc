"""The HTTP application, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from service import errors
from service.context import make_context
from service.limits import BodyLimit, SameSite
from service.routes import health, jobs, reconstructions, trainings
from service.settings import Settings

STATIC = Path(__file__).parent / "static"


def create_app(settings: Settings | None = None) -> FastAPI:
    """A new application; without `settings`, they come from the environment."""
    chosen = settings or Settings()
    context = make_context(chosen)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.endings.start()
        yield
        await context.endings.stop()
        context.queue.close()

    app = FastAPI(
        title="sdfsrn",
        version=version("sdfsrn"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        description="3-D shape from single pictures, learned from silhouettes alone.",
    )
    app.state.context = context
    errors.install(app)
    for router in (reconstructions.router, trainings.router, jobs.router, health.router):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(BodyLimit)
    app.add_middleware(SameSite, hosts=chosen.hosts)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        """The interactive documentation; its scripts come from here."""
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="sdfsrn",
            swagger_favicon_url="data:,",
            swagger_js_url="/static/swagger-ui-bundle.js",
            swagger_css_url="/static/swagger-ui.css",
        )

    return app
