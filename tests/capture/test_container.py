"""Containers: what each runtime leaves to be seen from inside and from the host, and what is no proof."""

import os
import sys
from pathlib import Path

import msgspec
import pytest
from live_process import WAIT
from machine_tree import link, mountinfo, plant

from reprod.capture.hosting.container import read_container
from reprod.core.hosting import Container, ContainerInstance

C1, C2 = "c1" * 32, "d2" * 32
POD = "8a6b0a5e-6f35-4f3c-9e0e-7a4cbe9e2a11"
DIGEST = "sha256:" + "ab" * 32
NOT_VISIBLE = ("image_digest: not visible from here; set REPROD_IMAGE_DIGEST to have it recorded",)
FIRST, OTHER = "pid:[4026531836]", "pid:[4026532999]"


def bind(root: str, point: str) -> tuple[str, str, str, str, str]:
    """A file of the runtime's that is mounted into the container."""
    return (root, point, "ext4", "/dev/sda1", "rw")


def inside(root: Path, groups: str = "0::/\n", mounts=(), files=None, namespace: str = FIRST, who: str = "self") -> str:
    """Make what a process sees of itself."""
    lines = [("/", "/", "overlay", "overlay", "rw,lowerdir=/a"), *mounts]
    plant(root, {f"proc/{who}/cgroup": groups, f"proc/{who}/mountinfo": mountinfo(lines), **(files or {})})
    link(root, f"proc/{who}/ns/pid", namespace)
    return str(root)


def test_no_container(tmp_path) -> None:
    """A process of the host is in none, and that is known."""
    groups = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-1.scope\n"
    assert read_container(root=inside(tmp_path, groups), environ={}) == (Container(present=False), None)


def test_weak_signs_prove_nothing(tmp_path) -> None:
    """What images carry along and sandboxes have too leaves it open: this development machine has /.dockerenv."""
    root = inside(tmp_path, files={".dockerenv": "", "run/.containerenv": ""}, namespace=OTHER)
    container, instance = read_container(root=root, environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    assert (container.present, container.runtime, instance) == (None, None, None)
    assert container.evidence == (
        "/run/.containerenv (weak)",
        "/.dockerenv (weak)",
        "a pid namespace of its own (weak)",
        "KUBERNETES_SERVICE_HOST (weak)",
    )


@pytest.mark.parametrize(
    ("groups", "runtime", "identity"),
    [
        (f"4:memory:/docker/{C1}\n1:name=systemd:/docker/{C1}\n0::/\n", "docker", C1),
        (f"0::/system.slice/docker-{C1}.scope\n", "docker", C1),
        (f"0::/machine.slice/libpod-{C1}.scope/container\n", "podman", C1),
        (f"2:cpu:/libpod_parent/libpod-{C1}\n", "podman", C1),
        (f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice/crio-{C1}.scope\n", "cri-o", C1),
        (f"0::/kubepods.slice/kubepods-podx.slice/cri-containerd-{C1}.scope\n", "containerd", C1),
        (f"3:cpu:/system.slice/containerd.service/kubepods-podx.slice:cri-containerd:{C1}\n", "containerd", C1),
        (f"3:cpu:/kubepods/besteffort/pod{POD}/{C1}\n", None, C1),
        (f"3:cpu:/ecs/1f2e/{C1}\n", None, C1),
        ("3:cpu:/ecs/8f03e41243824aea923aca126495f665/8f03e41243824aea923aca126495f665-1234567890\n", None, "8f03"),
        # A node that is a container itself: the innermost is the process's.
        (f"0::/docker/{C2}/kubelet/kubepods/podx/cri-containerd-{C1}.scope\n", "containerd", C1),
    ],
)
def test_cgroups(tmp_path, groups, runtime, identity) -> None:
    """The cgroup names runtime and id, from inside and from the host alike."""
    container, instance = read_container(root=inside(tmp_path, groups), environ={})
    assert (container.present, container.runtime, container.evidence) == (True, runtime, ("cgroup",))
    assert (container.image, container.image_digest, container.problems) == (None, None, NOT_VISIBLE)
    assert instance is not None
    assert instance.id.startswith(identity)
    assert instance.evidence == "cgroup"


@pytest.mark.parametrize(
    "groups",
    [
        f"0::/machine.slice/libpod-conmon-{C1}.scope\n",
        f"0::/kubepods.slice/crio-conmon-{C1}.scope\n",
        f"0::/batch/{C1}\n",
        "0::/lxc.monitor.web\n",
        "0::/machine.slice/machine-qemu\\x2d1\\x2dvm.scope\n",
        f"0::/docker/{C1[:-1]}\n",
        f"0::/docker/{C1}0\n",
    ],
)
def test_cgroups_that_are_none(tmp_path, groups) -> None:
    """A container's guard, a batch system's hash, a virtual machine: none of them is a container."""
    assert read_container(root=inside(tmp_path, groups), environ={}) == (Container(present=False), None)


@pytest.mark.parametrize(
    ("groups", "runtime", "name"),
    [
        ("0::/lxc.payload.web/system.slice/x.service\n", "lxc", "web"),
        ("3:cpu:/lxc/web\n", "lxc", "web"),
        ("0::/machine.slice/machine-web.scope/payload\n", "systemd-nspawn", "web"),
    ],
)
def test_system_containers(tmp_path, groups, runtime, name) -> None:
    """LXC and systemd-nspawn have names and no ids."""
    container, instance = read_container(root=inside(tmp_path, groups), environ={})
    assert (container.present, container.runtime) == (True, runtime)
    assert instance == ContainerInstance(name=name, evidence="cgroup")


@pytest.mark.parametrize(
    ("mounts", "runtime", "evidence"),
    [
        ([bind(f"/var/lib/docker/containers/{C1}/hostname", "/etc/hostname")], "docker", "mount of /etc/hostname"),
        ([bind(f"/docker/containers/{C1}/resolv.conf", "/etc/resolv.conf")], "docker", "mount of /etc/resolv.conf"),
        (
            # It shares the network of another container, whose files it has; the note is its own.
            [
                bind(f"/var/lib/containers/storage/overlay-containers/{C2}/userdata/hosts", "/etc/hosts"),
                bind(f"/containers/overlay-containers/{C1}/userdata/.containerenv", "/run/.containerenv"),
            ],
            "podman",
            "mount of /run/.containerenv",
        ),
        ([bind(f"/var/lib/nerdctl/1935db59/containers/default/{C1}/hosts", "/etc/hosts")], "containerd", None),
    ],
)
def test_mounts(tmp_path, mounts, runtime, evidence) -> None:
    """Where the cgroup says nothing (version 2 from inside) the runtime's own files that are mounted name the id."""
    container, instance = read_container(root=inside(tmp_path, mounts=mounts, namespace=OTHER), environ={})
    assert (container.present, container.runtime) == (True, runtime)
    assert instance is not None
    assert instance.id == C1
    assert evidence is None or instance.evidence == evidence
    assert container.evidence[-1] == "a pid namespace of its own (weak)"


@pytest.mark.parametrize(
    "sandbox",
    [
        bind(f"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{C2}/hostname", "/etc/hostname"),
        bind(f"/containers/storage/overlay-containers/{C2}/userdata/hostname", "/etc/hostname"),
        bind(f"/var/lib/docker/containers/{C2}/hostname", "/etc/hostname"),
    ],
)
def test_the_sandbox_of_a_pod_is_not_the_container(tmp_path, sandbox) -> None:
    """In a pod the mounted files are those of the pause container: its id is never taken for the process's."""
    mounts = [
        sandbox,
        bind(f"/var/lib/kubelet/pods/{POD}/etc-hosts", "/etc/hosts"),
        bind(f"/var/lib/kubelet/pods/{POD}/containers/trainer/0a1b2c3d", "/dev/termination-log"),
    ]
    container, instance = read_container(root=inside(tmp_path, mounts=mounts), environ={})
    assert (container.present, container.evidence) == (True, ("mounts of a pod",))
    assert instance == ContainerInstance(id=None, name="trainer", pod_uid=POD)
    assert "id: the mounts only name the pod's sandbox" in container.problems


def test_the_sandbox_alone(tmp_path) -> None:
    """Where nothing but the sandbox's files is seen, it is a pod without a name."""
    mounts = [bind(f"/x/io.containerd.grpc.v1.cri/sandboxes/{C2}/resolv.conf", "/etc/resolv.conf")]
    container, instance = read_container(root=inside(tmp_path, mounts=mounts), environ={})
    assert (container.present, instance) == (True, None)


def test_a_node_is_no_pod(tmp_path) -> None:
    """The host that mounts the volumes of its pods is in none of them."""
    volume = f"/var/lib/kubelet/pods/{POD}/containers/trainer/x"
    mounts = [
        ("/", f"/var/lib/kubelet/pods/{POD}/volumes/token", "tmpfs", "tmpfs", "rw"),
        bind(volume, "/mnt/elsewhere"),
    ]
    container, instance = read_container(
        root=inside(tmp_path, "0::/system.slice/kubelet.service\n", mounts), environ={}
    )
    assert (container.present, instance) == (False, None)


def test_podman_describes_itself(tmp_path) -> None:
    """With --privileged podman writes name, image and the image's configuration; that is not the image's digest."""
    note = (
        f'engine="podman-4.9.3"\nname="trainer"\nid="{C1}"\nimage="docker.io/library/python:3.11"\n'
        f'imageid="{C2}"\nrootless=0\n'
    )
    root = inside(tmp_path, files={"run/.containerenv": note})
    container, instance = read_container(root=root, environ={"container": "podman"})
    assert (container.runtime, container.image) == ("podman", "docker.io/library/python:3.11")
    assert (container.image_id, container.image_digest) == (C2, None)
    assert instance == ContainerInstance(id=C1, name="trainer", evidence="/run/.containerenv")


def test_an_image_that_was_pulled_by_its_digest(tmp_path) -> None:
    """A reference with a digest proves it."""
    note = f'engine="podman-5.0"\nimage="quay.io/u/train@{DIGEST}"\n'
    container, _ = read_container(root=inside(tmp_path, files={"run/.containerenv": note}), environ={})
    assert container.image_digest == DIGEST
    assert container.problems == ()


@pytest.mark.parametrize(
    ("stated", "image", "digest"),
    [
        (DIGEST, None, DIGEST),
        (f"registry.example:5000/ml/train:v1@{DIGEST}", "registry.example:5000/ml/train:v1", DIGEST),
        ("latest", None, None),
        (DIGEST[:-1], None, None),
        (f"{DIGEST}0", None, None),
        ("sha256:" + "AB" * 32, None, None),
    ],
)
def test_a_digest_that_was_passed_in(tmp_path, stated, image, digest) -> None:
    """REPROD_IMAGE_DIGEST counts if it is a digest; else the field is None, and the record says why."""
    root = inside(tmp_path, f"0::/docker/{C1}\n")
    container, _ = read_container(root=root, environ={"REPROD_IMAGE_DIGEST": stated})
    assert (container.image, container.image_digest) == (image, digest)
    assert bool(container.problems) == (digest is None)
    assert all("REPROD_IMAGE_DIGEST" in problem for problem in container.problems)


def test_a_user_in_the_name_of_an_image_does_not_come_out(tmp_path) -> None:
    """An image that was named by an address with a password loses it."""
    environ = {"APPTAINER_CONTAINER": "docker://bob:CANARY@registry.example/train"}
    container, _ = read_container(root=inside(tmp_path), environ=environ)
    assert container.image == "docker://registry.example/train"


def test_apptainer(tmp_path) -> None:
    """Apptainer names its image file; the older name works too, and its folder alone shows that it is one."""
    root = inside(tmp_path, files={".singularity.d/labels.json": "{}"})
    for kind in ("APPTAINER", "SINGULARITY"):
        container, instance = read_container(root=root, environ={f"{kind}_CONTAINER": "/images/train.sif"})
        assert (container.present, container.runtime, container.image) == (True, kind.lower(), "/images/train.sif")
        assert (container.image_digest, instance) == (None, None)
    container, _ = read_container(root=root, environ={})
    assert (container.present, container.runtime, container.evidence) == (True, None, ("/.singularity.d",))


def test_what_systemd_notes(tmp_path) -> None:
    """systemd as a container's first process writes down which manager started it."""
    container, _ = read_container(root=inside(tmp_path, files={"run/systemd/container": "lxc\n"}), environ={})
    assert (container.present, container.runtime) == (True, "lxc")


@pytest.mark.parametrize("target", ["/etc/shadow-of-host", "../../etc/shadow-of-host", "loop"])
def test_links_stay_inside(tmp_path, target) -> None:
    """A link in the container is followed inside of its root: what lies outside is never read."""
    (tmp_path / "etc").mkdir()
    plant(tmp_path, {"etc/shadow-of-host": 'name="CANARY"\n'})
    root = tmp_path / "root"
    inside(root)
    link(root, "run/.containerenv", target)
    link(root, "run/loop", "loop")
    container, instance = read_container(root=str(root), environ={})
    assert "CANARY" not in repr((container, instance))
    assert instance is None


def test_fifos_and_gigantic_files(tmp_path) -> None:
    """A FIFO does not block and a file without end costs its cap."""
    root = Path(inside(tmp_path, files={"run/systemd/x": ""}))
    os.mkfifo(root / "run/.containerenv")
    with (root / "run/systemd/container").open("wb") as file:
        file.truncate(1 << 33)
    container, _ = read_container(root=str(root), environ={})
    assert "/run/.containerenv: not a regular file" in container.problems


def test_what_cannot_be_read_is_not_no(tmp_path) -> None:
    """A process whose files are not there to be read may be in a container: None and the reasons."""
    container, instance = read_container(4242, root=str(tmp_path))
    assert (container.present, instance) == (None, None)
    assert {problem.partition(":")[0] for problem in container.problems} == {"cgroup", "mounts"}


def test_another_process(tmp_path) -> None:
    """Of another process its own cgroup, mounts and root are read, and the reader's variables are not its own."""
    inside(tmp_path)
    root = inside(tmp_path, f"0::/docker/{C1}\n", who="77")
    plant(tmp_path, {"proc/77/root/run/.containerenv": 'engine="podman-4"\nname="its-own"\n', "proc/77/root/x": ""})
    os.environ["REPROD_IMAGE_DIGEST"] = DIGEST
    try:
        container, instance = read_container(77, root=root)
    finally:
        del os.environ["REPROD_IMAGE_DIGEST"]
    assert container.image_digest is None
    assert instance == ContainerInstance(id=C1, name="its-own", evidence="cgroup")


def test_this_machine_and_what_is_stored() -> None:
    """The real answer can be stored and read back, and what is no container is said to be none or open."""
    container, instance = read_container(environ={})
    assert msgspec.json.decode(msgspec.json.encode(container), type=Container) == container
    if container.present is not True:
        assert instance is None
        assert container.image_digest is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change another root directory")
def test_a_real_process_with_another_root(tmp_path, start) -> None:
    """The note in the root of a real process is found by its pid, not the reader's own."""
    plant(tmp_path, {"run/.containerenv": f'engine="podman-4.9"\nid="{C1}"\n'})
    child = start(sys.executable, "-c", f"import os; os.chroot({str(tmp_path)!r}); {WAIT}")
    container, instance = read_container(child.pid)
    assert (container.present, container.runtime) == (True, "podman")
    assert instance is not None
    assert instance.id == C1
