"""`python -m service.serve`: the HTTP server alone, for where broker, keeper and workers run elsewhere."""

import argparse
import resource
import socket
import sys
import tempfile

import uvicorn

from service import lifeline, logs, webhooks
from service.app import create_app
from service.connections import FINISH_WITHIN_S, MAX_HEAD, LimitedConnection, Server
from service.limits import LOOPBACK
from service.settings import Settings, read_settings


def listen(settings: Settings) -> socket.socket:
    """A bound socket; SystemExit with a sentence if the address cannot be had, or should not."""
    if settings.host not in LOOPBACK and not settings.keys and not settings.anonymous:
        sys.exit(
            f"refusing to listen on {settings.host}: there are no keys, so anybody who reaches this address could "
            "use the service; set SDFSRN_KEYS=name:key, or SDFSRN_ANONYMOUS=1 if that is meant"
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(128)
    except OSError as error:
        sys.exit(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "choose another with --port, 0 takes any that is free"
        )
    return listener


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m service.serve", description=__doc__)
    parser.add_argument("--fd", type=int, help="an inherited listening socket, instead of SDFSRN_HOST and _PORT")
    arguments = parser.parse_args()
    lifeline.end_with_parent()
    # a connection is a file: those that say nothing must not use up what others need
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    settings = read_settings()
    logs.configure("api", settings.log)
    webhooks.warn_of(settings)
    # what is uploaded passes through here on its way to the store; a container's /tmp is small
    incoming = settings.data / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(incoming)
    listener = listen(settings) if arguments.fd is None else socket.socket(fileno=arguments.fd)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        http=LimitedConnection,
        ws="none",
        h11_max_incomplete_event_size=MAX_HEAD,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=FINISH_WITHIN_S,
        server_header=False,
    )
    Server(config, on_end=app.state.context.signals.end).run(sockets=[listener])


if __name__ == "__main__":
    main()
