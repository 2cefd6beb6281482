"""What hosts say of themselves: one run of ``reprod-datasets`` for each, found by its tag ``reprod.host.id``.

Child process only. Each daemon writes its own run and reads all; nobody writes another's. The run is ended at once, so
that it never looks like work, and never carries ``reprod.dataset``.
"""

from collections.abc import Mapping
from typing import Any

from reprod.core.hosts import DATASET_TAG, HOST_ID
from reprod.sinks.deliver_run import set_tags, tags_of
from reprod.sinks.failures import kind_of
from reprod.sinks.host_messages import Advertise, Compared, Hosts, HostTags, Node
from reprod.sinks.many_hosts import STATE, node
from reprod.sinks.protocol import STORE_EXPERIMENT, SinkError
from reprod.sinks.searching import run_page, run_pages
from reprod.sinks.store_run import open_run

#: Hosts in one answer, MLflow's default for a page; more pages are asked for.
PAGE = 1000

HOSTS = "tags.`reprod.host.id` LIKE '%'"  # IS NOT NULL says the same, but servers before 3.11 refuse it


def answer(ask: Advertise | Hosts | Node, client: Any) -> Any:
    """Return the answer to a message of or for hosts."""
    match ask:
        case Advertise():
            return advertise(client, ask)
        case Hosts():
            return find_hosts(client)
        case Node():
            return compare(client, ask)


def advertise(client: Any, ask: Advertise) -> str:
    """Write what a host says to its run, made now if there is none; return the run's id. Repeating changes nothing."""
    from mlflow.entities import RunTag

    host_id = ask.tags.get("reprod.host.id", "")
    if not HOST_ID.match(host_id):
        raise SinkError("bug", f"{host_id!r} is no host id")
    run_id, has = _own_run(client, host_id, ask.run_id)
    if run_id is None:
        run_id = open_run(client, ask.name)
    tags = [RunTag(key, value) for key, value in ask.tags.items() if has.get(key) != value]
    if tags:
        client.log_batch(run_id, tags=tags)
    for key in has:
        if key.startswith(DATASET_TAG) and key not in ask.tags:
            client.delete_tag(run_id, key)
    if not has:
        client.set_terminated(run_id)
    return run_id


def find_hosts(client: Any) -> tuple[HostTags, ...]:
    """Return what all hosts say of themselves, as the tags of their runs."""
    experiment = client.get_experiment_by_name(STORE_EXPERIMENT)
    if experiment is None or experiment.lifecycle_stage != "active":
        return ()
    found = run_pages(client, [experiment.experiment_id], HOSTS, PAGE)
    return tuple(HostTags(str(run.info.run_id), _of_hosts(run.data.tags)) for run in found)


def compare(client: Any, asked: Node) -> Compared:
    """Say what a node of a run found, and return how far that is."""
    has = tags_of(client, asked.run_id)
    news = node(has, asked.found, asked.host_id)
    set_tags(client, asked.run_id, news)
    return "written" if news else "settled" if STATE in has else "unrecorded"


def _own_run(client: Any, host_id: str, hint: str | None) -> tuple[str | None, dict[str, str]]:
    """Return the run of a host and its tags: the hinted one if it still is that, else the oldest that there is."""
    if hint is not None:
        try:
            run = client.get_run(hint)
        except Exception as error:
            if kind_of(error) not in {"gone", "permanent"}:
                raise
        else:
            if run.info.lifecycle_stage == "active" and run.data.tags.get("reprod.host.id") == host_id:
                return hint, _of_hosts(run.data.tags)
    experiment = client.get_experiment_by_name(STORE_EXPERIMENT)
    if experiment is None or experiment.lifecycle_stage != "active":
        return None, {}
    for run in run_page(client, [experiment.experiment_id], f"tags.`reprod.host.id` = '{host_id}'", 1, None):
        return str(run.info.run_id), _of_hosts(run.data.tags)
    return None, {}


def _of_hosts(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: str(value) for key, value in tags.items() if key.startswith("reprod.host.")}
