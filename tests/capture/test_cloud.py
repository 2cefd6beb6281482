"""Clouds: no provider in the firmware is no socket; with one, only listed paths, one deadline and no proxy."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from machine_tree import plant

from reprod.capture.hosting import instance_metadata
from reprod.capture.hosting.cloud import read_cloud
from reprod.core.hosting import Cloud
from reprod.errors import IncompleteError

DMI = "sys/class/dmi/id"
AZURE = "7783-7084-3265-9085-8269-3286-77"
FIRMWARE = {
    "aws": {"sys_vendor": "Amazon EC2\n", "product_name": "p4d.24xlarge\n"},
    "gcp": {"product_name": "Google Compute Engine\n"},
    "azure": {"chassis_asset_tag": f"{AZURE}\n", "sys_vendor": "Microsoft Corporation\n"},
}
DOCUMENT = {
    "accountId": "CANARY-account",
    "availabilityZone": "eu-west-1b",
    "imageId": "ami-0abcdef1234567890",
    "instanceId": "CANARY-instance",
    "instanceType": "g5.xlarge",
    "privateIp": "10.9.8.7",
    "region": "eu-west-1",
}
TOKEN = "CANARY-token"
AWS = {
    "/latest/api/token": TOKEN,
    "/latest/dynamic/instance-identity/document": json.dumps(DOCUMENT),
    "/latest/meta-data/instance-life-cycle": "spot",
}
GCP = {
    "/computeMetadata/v1/instance/machine-type": "projects/1234567890/machineTypes/a2-highgpu-1g",
    "/computeMetadata/v1/instance/zone": "projects/1234567890/zones/us-central1-f",
    "/computeMetadata/v1/instance/image": "projects/CANARY-project/global/images/train-v7",
    "/computeMetadata/v1/instance/scheduling/preemptible": "FALSE",
}
_COMPUTE = "/metadata/instance/compute"
REFERENCE = {"id": "", "offer": "ubuntu-24_04-lts", "publisher": "Canonical", "sku": "server", "version": "latest"}
AZ = {
    f"{_COMPUTE}/vmSize": "Standard_ND96amsr_A100_v4",
    f"{_COMPUTE}/location": "westeurope",
    f"{_COMPUTE}/zone": "2",
    f"{_COMPUTE}/priority": "Regular",
    f"{_COMPUTE}/storageProfile/imageReference": json.dumps(REFERENCE),
}
ANSWERS = {"aws": AWS, "gcp": GCP, "azure": AZ}
FOUND = {
    "aws": Cloud("aws", "g5.xlarge", "eu-west-1", "eu-west-1b", "ami-0abcdef1234567890", True),
    "gcp": Cloud("gcp", "a2-highgpu-1g", "us-central1", "us-central1-f", "train-v7", False),
    "azure": Cloud(
        "azure", "Standard_ND96amsr_A100_v4", "westeurope", "2", "Canonical:ubuntu-24_04-lts:server:latest", False
    ),
}


class Stub(ThreadingHTTPServer):
    """A metadata service on the loopback that logs what it is asked; whatever is not an answer is a canary."""

    daemon_threads = True
    answers: dict[str, str]
    flavor: str | None = "Google"
    statuses: dict[str, int]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.answers, self.statuses = {}, {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def get_request(self):
        self.connections += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Stub

    def _answer(self) -> None:
        path, _, _ = self.path.partition("?")
        self.server.asked.append((self.command, self.path))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        body = self.server.answers.get(path, "CANARY: user-data, iam, join_token").encode()
        self.send_response(self.server.statuses.get(path, 200))
        if self.server.flavor:
            self.send_header("Metadata-Flavor", self.server.flavor)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_CONNECT = _answer  # noqa: N815 - the base class names them so

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def machine(tmp_path) -> Callable[[str], str]:
    """Make a machine whose firmware names a provider."""
    return lambda provider: plant(tmp_path, {f"{DMI}/{name}": text for name, text in FIRMWARE[provider].items()})


#: A budget that a loaded machine does not exceed, where the answer and not the time is looked at.
PATIENT = 30.0


@pytest.mark.parametrize("provider", FOUND)
def test_only_listed_paths_are_asked(machine, stub, provider) -> None:
    """Type, place, image and price class are told; nothing else is asked for and no secret comes out (test 9)."""
    stub.answers = ANSWERS[provider]
    cloud = read_cloud(machine(provider), endpoint=stub.url, budget_s=PATIENT)
    assert (cloud.evidence[1], cloud.problems) == ("metadata", ())
    fields = ("provider", "instance_type", "region", "zone", "image", "spot")
    assert [getattr(cloud, name) for name in fields] == [getattr(FOUND[provider], name) for name in fields]
    assert [path.partition("?")[0] for _, path in stub.asked] == list(ANSWERS[provider])
    assert "CANARY" not in repr(cloud)
    assert stub.connections == 1


def test_aws_is_asked_for_a_token_first(machine, stub) -> None:
    """The first request is the PUT of version 2, and every other carries what it gave (research, test 9)."""
    stub.answers = AWS
    read_cloud(machine("aws"), endpoint=stub.url, budget_s=PATIENT)
    assert stub.asked[0] == ("PUT", "/latest/api/token")
    assert stub.headers[0]["x-aws-ec2-metadata-token-ttl-seconds"] == "60"
    assert [headers["x-aws-ec2-metadata-token"] for headers in stub.headers[1:]] == [TOKEN, TOKEN]


def test_the_headers_that_providers_want(machine, stub) -> None:
    """Google and Azure only answer to a header of theirs; Azure's answers are asked for as text or JSON."""
    stub.answers = GCP | AZ
    read_cloud(machine("gcp"), endpoint=stub.url, budget_s=PATIENT)
    assert {headers["metadata-flavor"] for headers in stub.headers} == {"Google"}
    stub.headers.clear()
    stub.asked.clear()
    (Path(machine("azure")) / DMI / "product_name").unlink()
    read_cloud(machine("azure"), endpoint=stub.url, budget_s=PATIENT)
    assert {headers["metadata"] for headers in stub.headers} == {"true"}
    assert {path.partition("format=")[2] for _, path in stub.asked} == {"text", "json"}


def test_no_other_path_can_be_asked(stub) -> None:
    """The client itself refuses what is not listed, and no listed path holds secrets."""
    service = instance_metadata.MetadataService(stub.url, PATIENT)
    for path in (
        "/latest/user-data",
        "/latest/meta-data/iam/security-credentials/",
        "/computeMetadata/v1/?recursive=true",
    ):
        with pytest.raises(ValueError, match="not among the paths"):
            service.ask(path, {})
    assert stub.connections == 0
    words = ("user", "attribute", "iam", "custom", "secret", "key", "recursive", "tags", "identity-credentials")
    assert not [path for path in instance_metadata.PATHS for word in words if word in path.lower()]


def test_a_complete_answer_is_kept(machine, stub) -> None:
    """An instance does not change while it runs: it is asked once. An answer that failed is not kept."""
    stub.answers, stub.statuses = AWS, {"/latest/meta-data/instance-life-cycle": 500}
    root = machine("aws")
    first = read_cloud(root, endpoint=stub.url, budget_s=PATIENT)
    assert (first.instance_type, first.spot) == ("g5.xlarge", None)
    assert first.problems == ("metadata: it answers with status 500",)
    stub.statuses = {}
    assert read_cloud(root, endpoint=stub.url, budget_s=PATIENT).spot is True
    asked = len(stub.asked)
    assert read_cloud(root, endpoint=stub.url, budget_s=PATIENT).spot is True
    assert len(stub.asked) == asked


@pytest.mark.parametrize(
    ("provider", "answers", "statuses", "flavor", "problem"),
    [
        ("aws", AWS, {"/latest/api/token": 403}, "Google", "status 403"),
        ("aws", AWS, {"/latest/api/token": 302}, "Google", "status 302"),
        ("aws", AWS | {"/latest/dynamic/instance-identity/document": "[1]"}, {}, "Google", "not an object"),
        ("aws", AWS | {"/latest/dynamic/instance-identity/document": "<html>"}, {}, "Google", "Expecting value"),
        ("aws", AWS | {"/latest/dynamic/instance-identity/document": "[" * 9000}, {}, "Google", "recursion"),
        ("aws", AWS | {"/latest/api/token": "x" * 20000}, {}, "Google", "too long"),
        ("gcp", GCP, {}, None, "not Google's"),
        ("azure", AZ | {f"{_COMPUTE}/storageProfile/imageReference": "{"}, {}, "Google", "Expecting property"),
    ],
)
def test_answers_that_are_none(machine, stub, provider, answers, statuses, flavor, problem) -> None:
    """Whatever else is at that address, the provider is known from the firmware and the rest is None with a reason."""
    stub.answers, stub.statuses, stub.flavor = answers, statuses, flavor
    cloud = read_cloud(machine(provider), endpoint=stub.url, budget_s=PATIENT)
    assert cloud.provider == provider
    assert problem in cloud.problems[0]
    assert "metadata" not in cloud.evidence


def test_values_that_are_no_names(machine, stub) -> None:
    """A page, a number or a list where a name should be is left out."""
    document = {"instanceType": "<b>g5</b>", "region": 5, "availabilityZone": ["a"], "imageId": "a b"}
    stub.answers = AWS | {"/latest/dynamic/instance-identity/document": json.dumps(document)}
    cloud = read_cloud(machine("aws"), endpoint=stub.url, budget_s=PATIENT)
    assert (cloud.region, cloud.zone, cloud.image) == (None, None, None)
    assert cloud.instance_type == "p4d.24xlarge"


def test_what_a_provider_does_not_have(machine, stub) -> None:
    """A value that is not there (404) is None and no problem: many regions have no zones."""
    stub.answers, stub.statuses = AZ, {f"{_COMPUTE}/zone": 404, f"{_COMPUTE}/priority": 404}
    cloud = read_cloud(machine("azure"), endpoint=stub.url, budget_s=PATIENT)
    assert (cloud.zone, cloud.spot, cloud.problems, cloud.region) == (None, None, (), "westeurope")


@pytest.mark.parametrize(
    ("identity", "image"),
    [
        (
            "/subscriptions/CANARY-sub/resourceGroups/rg/providers/Microsoft.Compute/galleries/g/images/train/versions/1",
            "galleries/g/images/train/versions/1",
        ),
        ("/subscriptions/CANARY-sub/else", None),
        (7, None),
    ],
)
def test_images_of_ones_own_on_azure(machine, stub, identity, image) -> None:
    """An image without a publisher is named by its path, without the subscription that it belongs to."""
    reference = {"id": identity, "offer": "", "publisher": "", "sku": "", "version": ""}
    stub.answers = AZ | {f"{_COMPUTE}/storageProfile/imageReference": json.dumps(reference)}
    cloud = read_cloud(machine("azure"), endpoint=stub.url, budget_s=PATIENT)
    assert cloud.image == image
    assert "CANARY" not in repr(cloud)


def test_a_proxy_is_never_used(machine, stub, monkeypatch) -> None:
    """Whatever the variables say, the proxy that they name is not connected to (research, test 30)."""
    proxy = socket.create_server(("127.0.0.1", 0))
    proxy.setblocking(False)
    address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, address)
    stub.answers = AWS
    assert read_cloud(machine("aws"), endpoint=stub.url, budget_s=PATIENT).zone == "eu-west-1b"
    with proxy, pytest.raises(BlockingIOError):
        proxy.accept()


def test_a_silent_service_costs_its_budget(machine) -> None:
    """A service that takes connections and says nothing ends after 300 ms; the firmware's facts are kept (test 30)."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cloud = read_cloud(machine("aws"), endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert cloud.problems == ("metadata: no answer within 300 ms",)
    assert (cloud.provider, cloud.instance_type, cloud.region) == ("aws", "p4d.24xlarge", None)


def test_a_slow_service_cannot_outlast_the_budget(machine) -> None:
    """One byte now and then restarts no clock: the deadline is one for all (without it this would take ten minutes)."""
    ended = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.settimeout(30)
            connection.recv(4096)
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not ended.wait(0.01):
                    connection.sendall(b"x")
            except OSError:
                pass
            ended.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        cloud = read_cloud(machine("gcp"), endpoint=f"http://127.0.0.1:{server.getsockname()[1]}")
        assert cloud.problems == ("metadata: no answer within 300 ms",)
        assert ended.wait(60), "the connection is still open"
        thread.join(30)


def test_nobody_there(machine) -> None:
    """A refused connection is a reason, not an error."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    cloud = read_cloud(machine("azure"), endpoint=f"http://127.0.0.1:{port}")
    assert cloud.provider == "azure"
    assert "refused" in cloud.problems[0]


WATCHED = """
import sys
opened = []
sys.addaudithook(lambda name, arguments: opened.append(name) if name.startswith("socket.") else None)
from reprod.capture.hosting.cloud import read_cloud
print(read_cloud(sys.argv[1]))
print(opened, "http.client" in sys.modules)
"""


@pytest.mark.parametrize("vendor", ["Dell Inc.", "QEMU", "Hetzner"])
def test_no_provider_to_ask_is_no_socket(tmp_path, vendor) -> None:
    """Without a provider that has such a service not one socket is opened, nor the client imported (test 30)."""
    root = plant(tmp_path, {f"{DMI}/sys_vendor": f"{vendor}\n"})
    done = subprocess.run([sys.executable, "-c", WATCHED, root], capture_output=True, text=True, timeout=60, check=True)
    cloud, opened = done.stdout.splitlines()
    assert opened == "[] False"
    assert ("provider='hetzner'" in cloud) == (vendor == "Hetzner")


def test_a_machine_without_dmi_is_unknown(tmp_path) -> None:
    """Where the firmware tells nothing at all the provider is unknown, which is not none."""
    with pytest.raises(IncompleteError, match="DMI"):
        read_cloud(str(tmp_path))
    assert read_cloud(plant(tmp_path, {f"{DMI}/sys_vendor": "LENOVO\n"})) == Cloud()


@pytest.mark.parametrize(
    ("files", "sign"),
    [
        ({f"{DMI}/bios_version": "4.11.amazon\n", f"{DMI}/product_name": "HVM domU\n"}, "DMI bios_version"),
        ({"sys/hypervisor/uuid": "ec2e1916-9099-7caf-fd21-012345abcdef\n"}, "hypervisor uuid"),
    ],
)
def test_older_machines_of_amazon(tmp_path, stub, files, sign) -> None:
    """Those under Xen are known by other fields, and their product is not their type."""
    stub.statuses = {"/latest/api/token": 403}
    cloud = read_cloud(plant(tmp_path, files), endpoint=stub.url, budget_s=PATIENT)
    assert (cloud.provider, cloud.evidence, cloud.instance_type) == ("aws", (sign,), None)
