"""The HTTP application, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from service import errors, openapi
from service.callers import Authenticated, Callers
from service.context import make_context
from service.limits import BodyLimit, Heads, SameSite, Traced
from service.metrics import Measured
from service.routes import artifacts, datasets, events, health, jobs, models, reconstructions, trainings
from service.settings import Settings, read_settings

STATIC = Path(__file__).parent / "static"
# The page loads nothing from elsewhere, runs no inline script and sits in nobody's frame.
_PAGE_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; form-action 'self'"
# Swagger UI sets styles on its elements.
_DOCS_POLICY = f"{_PAGE_POLICY}; style-src 'self' 'unsafe-inline'"


def create_app(settings: Settings | None = None) -> FastAPI:
    """A new application; without `settings`, they come from the environment."""
    chosen = settings or read_settings()
    context = make_context(chosen)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context.signals.start()
        context.decoders.warm()
        yield
        context.decoders.stop()
        await context.signals.stop()
        context.queue.close()

    app = FastAPI(
        title="sdfsrn",
        version=version("sdfsrn"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the redirection's address would be what the client sent as Host
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
        description="3-D shape from single pictures, learned from silhouettes alone.",
    )
    app.state.context = context
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
    app.add_middleware(Heads)
    app.add_middleware(BodyLimit, has_room=context.artifacts.has_room)
    app.add_middleware(Authenticated, callers=Callers(chosen))
    if not chosen.keys:
        app.add_middleware(SameSite, hosts=chosen.hosts)
    app.add_middleware(Measured, metrics=context.metrics)
    app.add_middleware(Traced)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        """The web page."""
        return FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": _PAGE_POLICY})

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        """The interactive documentation; its scripts come from here."""
        return FileResponse(STATIC / "docs.html", headers={"Content-Security-Policy": _DOCS_POLICY})

    return app
