"""What the compose file says of every container, without an engine; `python -m tests.deploy` looks at running ones."""

import re
from typing import Any

import pytest
import yaml

from tests.deploy.compose import ROOT

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
WORKERS = [name for name in SERVICES if name.startswith("worker-")]


def default(value: str) -> str:
    """The value where the environment has no other."""
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_bounded_and_watched(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9][0-9]?g", default(service["mem_limit"]))
    assert service["pids_limit"] == (1024 if name in WORKERS else 256)
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["healthcheck"]["test"]
    assert service.get("ports", []) == (["127.0.0.1:${SDFSRN_PORT:-8000}:8000"] if name == "api" else [])


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_from_elsewhere_has_a_version(name: str) -> None:
    service = SERVICES[name]
    image = service["build"]["args"]["PYTHON_IMAGE"] if "build" in service else service["image"]
    assert re.fullmatch(r"[a-z/]+:\d+(\.\d+)*(-[a-z-]+)?", default(image)), image
    for file in (ROOT / "docker").glob("*.Dockerfile"):
        bases = re.findall(r"^FROM (\S+)", file.read_text(), re.MULTILINE)
        assert set(bases) == {"${PYTHON_IMAGE}", "dependencies"}


def test_the_broker_asks_everybody_for_its_password() -> None:
    broker = SERVICES["valkey"]
    password = broker["command"][broker["command"].index("--requirepass") + 1]
    assert len(default(password)) >= 8 and broker["networks"] == ["inside"]
    for name in SERVICES.keys() - {"valkey"}:
        assert SERVICES[name]["environment"]["SDFSRN_REDIS_URL"] == f"redis://:{password}@valkey:6379/0"


def test_the_secrets_of_webhooks_are_for_those_who_need_them() -> None:
    holders = {name for name, service in SERVICES.items() if any("WEBHOOK" in each for each in service["environment"])}
    assert holders == {"api", "keeper"}
