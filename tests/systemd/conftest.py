"""The bed, one for each module, and the service in it, fresh for each test.

``bed`` is for whoever needs real systemd, journald or logind; ``service`` is reprod's system unit in it, installed and
not yet started. Both skip with a reason where there can be no bed.
"""

from collections.abc import Iterator

import pytest
from bed import Bed, why_not
from service_place import Service


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Yield a running systemd that nobody but this module uses."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    made = Bed(tmp_path_factory.mktemp("bed"))
    try:
        made.boot()
        yield made
    finally:
        made.end()


@pytest.fixture
def service(bed: Bed) -> Iterator[Service]:
    """Yield reprod.service, installed, without configuration, state and drop-ins; stopped at the end."""
    service = Service(bed)
    service.install()
    try:
        yield service
    finally:
        service.remove()
