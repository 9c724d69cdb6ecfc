"""A broker over TLS: its certificate is looked at, by the job record's client and by Celery's."""

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.jobs import connect
from service.queue import Queue
from service.settings import Settings


def certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate that nobody signed but itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{host}.pem", folder / f"{host}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return paths


@contextmanager
def listening(folder: Path, host: str) -> Iterator[tuple[int, list[bytes]]]:
    """A server with a certificate for `host`: its port, and what clients sent once they trusted it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate(folder, host))
    heard: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as trusted:
                    heard.append(trusted.recv(1000))
            except OSError:
                continue

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


CASES = {"ours": ("localhost", True), "nobody's": ("localhost", False), "another's": ("elsewhere.example", True)}


@pytest.mark.slow
@pytest.mark.parametrize(("host", "trusted"), CASES.values(), ids=CASES)
def test_nothing_is_sent_to_a_broker_whose_certificate_is_not_right(tmp_path: Path, host: str, trusted: bool) -> None:
    right = trusted and host == "localhost"
    with listening(tmp_path, host) as (port, heard):
        url = f"rediss://:secret@localhost:{port}/0" + (f"?ssl_ca_certs={tmp_path / host}.pem" if trusted else "")
        settings = Settings(data=tmp_path, redis_url=url)
        queue = Queue(settings)
        queue.wake("training", "job")  # logs that it could not
        queue.close()
        assert any(b"secret" in each for each in heard) == right, "Celery's client"
        heard.clear()
        with pytest.raises(redis.RedisError):  # the server ends the connection without an answer
            connect(settings).ping()
        assert any(b"secret" in each for each in heard) == right, "the job record's client"
