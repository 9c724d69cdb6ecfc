"""The HTTP application, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles

from service import errors, openapi
from service.callers import Callers
from service.context import make_context
from service.limits import BodyLimit, SameSite, Traced
from service.metrics import Measured
from service.routes import artifacts, datasets, events, health, jobs, models, reconstructions, trainings
from service.settings import Settings

STATIC = Path(__file__).parent / "static"
# The page loads nothing from elsewhere, runs no inline script and sits in nobody's frame.
_PAGE_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; form-action 'self'"


def create_app(settings: Settings | None = None) -> FastAPI:
    """A new application; without `settings`, they come from the environment."""
    chosen = settings or Settings()
    context = make_context(chosen)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.happenings.start()
        context.decoders.warm()
        yield
        context.decoders.stop()
        await context.happenings.stop()
        context.queue.close()

    app = FastAPI(
        title="sdfsrn",
        version=version("sdfsrn"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
        description="3-D shape from single pictures, learned from silhouettes alone.",
    )
    app.state.context = context
    app.state.callers = Callers(chosen)
    errors.install(app)
    openapi.install(app)
    for router in (
        reconstructions.router,
        trainings.router,
        jobs.router,
        events.router,
        artifacts.router,
        datasets.router,
        models.router,
        health.router,
    ):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(BodyLimit, has_room=context.artifacts.has_room)
    if not chosen.keys:
        app.add_middleware(SameSite, hosts=chosen.hosts)
    app.add_middleware(Measured, metrics=context.metrics)
    app.add_middleware(Traced)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        """The web page."""
        return FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": _PAGE_POLICY})

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
