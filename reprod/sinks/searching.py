"""Searches on a tracking server, page by page: what every question to it goes through. Child process only.

Rule: an empty list of experiments finds nothing, so they are listed first, and asked for a thousand at a time.
"""

from collections.abc import Iterator, Sequence
from typing import Any

#: 260,000 ids of experiments in one question were a 500 (measured).
EXPERIMENTS_A_CALL = 1000


def active_experiments(client: Any) -> Iterator[Any]:
    """Yield all experiments that are not deleted, as MLflow's client gives them."""
    from mlflow.entities import ViewType

    token = None
    while True:
        page = client.search_experiments(
            view_type=ViewType.ACTIVE_ONLY, max_results=EXPERIMENTS_A_CALL, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def chunks(experiments: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield as many ids of experiments as one question takes."""
    for start in range(0, len(experiments), EXPERIMENTS_A_CALL):
        yield experiments[start : start + EXPERIMENTS_A_CALL]


def run_page(
    client: Any, experiments: Sequence[str], question: str, size: int, token: str | None, *, newest_first: bool = False
) -> Any:
    """Return one page of at most ``size`` active runs, with ``token`` for the next one.

    The oldest come first: then a run that starts meanwhile comes on a later page and moves none.
    """
    from mlflow.entities import ViewType

    return client.search_runs(
        experiments,
        filter_string=question,
        run_view_type=ViewType.ACTIVE_ONLY,
        max_results=size,
        order_by=[f"attributes.start_time {'DESC' if newest_first else 'ASC'}"],
        page_token=token,
    )


def run_pages(
    client: Any,
    experiments: Sequence[str],
    question: str,
    size: int,
    *,
    at_most: int | None = None,
    newest_first: bool = False,
) -> Iterator[Any]:
    """Yield the active runs that a question finds in up to a thousand experiments, from ``at_most`` pages."""
    token, count = None, 0
    while at_most is None or count < at_most:
        page = run_page(client, experiments, question, size, token, newest_first=newest_first)
        yield from page
        token, count = page.token, count + 1
        if not token:
            return
