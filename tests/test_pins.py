"""docker/constraints.txt pins all that the project's extras bring along, as it is installed here."""

from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = Path(__file__).parents[1] / "docker" / "constraints.txt"


def _brought_along(name: str, extras: frozenset[str], found: dict[str, str]) -> None:
    for requirement in map(Requirement, distribution(name).requires or []):
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras or {""})
        known = canonicalize_name(requirement.name)
        if wanted and (known not in found or requirement.extras):
            found[known] = distribution(known).version.split("+")[0]  # torch says for which accelerator it was built
            _brought_along(known, frozenset(requirement.extras), found)


def test_every_package_is_pinned_at_the_version_that_is_tested() -> None:
    """A new requirement, or a newer version, must be written down."""
    found: dict[str, str] = {}
    _brought_along("sdfsrn", frozenset({"service", "worker", "embedded", "dev"}), found)
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in PINS.read_text().split())}
    assert len(found) > 80
    assert {name: version for name, version in found.items() if pins.get(name) != version} == {}
