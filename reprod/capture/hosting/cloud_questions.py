"""Owns what AWS, Google and Azure are asked about an instance, and what is kept of their answers.

Instance type, place, image and price class; accounts, subscriptions, projects, addresses and instance ids are left out
or cut off. A complete answer is kept for the process's life: an instance cannot change while it runs.
"""

import http.client
import json
from collections.abc import Callable
from functools import lru_cache

from reprod.capture.hosting.instance_metadata import ENDPOINT, MetadataService, name_of

_AZURE_QUERY = "?api-version=2021-02-01&format="

_Fields = dict[str, str | bool]


class UnansweredError(Exception):
    """Raised when a service did not answer everything; ``fields`` are those that it did."""

    def __init__(self, fields: _Fields, reason: str) -> None:
        super().__init__(reason)
        self.fields, self.reason = fields, reason


@lru_cache(maxsize=4)
def ask(provider: str, endpoint: str | None, budget_s: float) -> tuple[tuple[str, str | bool], ...]:
    """Return what the provider's service tells; raises UnansweredError, which is not kept, if it is not everything."""
    fields: _Fields = {}
    service = MetadataService(endpoint or ENDPOINT, budget_s)
    try:
        _QUESTIONS[provider](service, fields)
    except TimeoutError as error:
        raise UnansweredError(fields, f"no answer within {budget_s * 1000:.0f} ms") from error
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise UnansweredError(fields, str(error) or type(error).__name__) from error
    finally:
        service.close()
    return tuple(fields.items())


def _ask_aws(service: MetadataService, fields: _Fields) -> None:
    # Version 2: version 1 is switched off on hardened machines, and can be tricked by others.
    token, _ = service.ask("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, method="PUT")
    headers = {"X-aws-ec2-metadata-token": token or ""}
    text, _ = service.ask("/latest/dynamic/instance-identity/document", headers)
    document = json.loads(text or "{}")
    if not isinstance(document, dict):
        raise ValueError("the identity document is not an object")
    names = {"instance_type": "instanceType", "region": "region", "zone": "availabilityZone", "image": "imageId"}
    fields |= {name: value for name, key in names.items() if (value := name_of(document.get(key)))}
    cycle, _ = service.ask("/latest/meta-data/instance-life-cycle", headers)
    if cycle:
        fields["spot"] = cycle == "spot"


def _ask_gcp(service: MetadataService, fields: _Fields) -> None:
    def ask(leaf: str) -> str | None:
        value, headers = service.ask(f"/computeMetadata/v1/instance/{leaf}", {"Metadata-Flavor": "Google"})
        if headers.get("Metadata-Flavor") != "Google":
            raise ValueError("it is not Google's")
        # "projects/NUMBER/zones/us-central1-a": the project is nobody's business.
        return name_of((value or "").rpartition("/")[2])

    for name, leaf in (("instance_type", "machine-type"), ("zone", "zone"), ("image", "image")):
        value = ask(leaf)
        if value:
            fields[name] = value
    zone = fields.get("zone")
    if isinstance(zone, str):
        fields["region"] = zone.rpartition("-")[0]
    preemptible = ask("scheduling/preemptible")
    if preemptible:
        fields["spot"] = preemptible.upper() == "TRUE"


def _ask_azure(service: MetadataService, fields: _Fields) -> None:
    def ask(leaf: str, form: str = "text") -> str | None:
        path = f"/metadata/instance/compute/{leaf}"
        return service.ask(path, {"Metadata": "true"}, query=_AZURE_QUERY + form)[0]

    for name, leaf in (("instance_type", "vmSize"), ("region", "location"), ("zone", "zone")):
        value = name_of(ask(leaf))
        if value:
            fields[name] = value
    priority = ask("priority")
    if priority is not None:
        fields["spot"] = priority in {"Spot", "Low"}
    image = _azure_image(json.loads(ask("storageProfile/imageReference", "json") or "{}"))
    if image:
        fields["image"] = image


def _azure_image(reference: object) -> str | None:
    """Return a marketplace image as ``publisher:offer:sku:version``, another by its path without the subscription."""
    if not isinstance(reference, dict):
        return None
    parts = [name_of(reference.get(key)) for key in ("publisher", "offer", "sku", "version")]
    if all(parts):
        return ":".join(part for part in parts if part)
    _, found, path = (name_of(reference.get("id")) or "").partition("/providers/Microsoft.Compute/")
    return path if found else None


_QUESTIONS: dict[str, Callable[[MetadataService, _Fields], None]] = {
    "aws": _ask_aws,
    "gcp": _ask_gcp,
    "azure": _ask_azure,
}
