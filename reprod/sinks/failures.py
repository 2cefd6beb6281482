"""What an exception of MLflow's client means for a delivery: one of the kinds in `protocol.Kind`.

MLflow shows trouble in three ways (measured on 3.17.2): a refusal by the server is a RestException with an
``error_code``; trouble on the way is an MlflowException INTERNAL_ERROR whose cause hangs in ``__context__``; artifact
calls raise requests' own HTTPError. All three are looked at. Imports mlflow: for the child process only.
"""

import os
import re
import traceback

from reprod.core.redact_known import redact_known
from reprod.sinks.protocol import Failure, Kind, SinkError

#: Enough for MLflow's sentence; a proxy's HTML page is cut.
MESSAGE_LIMIT = 500

NOT_ACTIVE = re.compile(r"must be in (the )?'?active'?", re.IGNORECASE)
HTTP_STATUS = re.compile(r"failed with error code (\d{3})")

#: What the libraries below MLflow say, and what a person would.
PLAIN = (
    ("Connection refused", "connection refused"),
    ("Name or service not known", "its name is not known"),
    ("Temporary failure in name resolution", "its name cannot be resolved now"),
    ("No route to host", "no route to it"),
    ("Network is unreachable", "the network is unreachable"),
    ("ConnectTimeoutError", "no connection within the time limit"),
    ("Read timed out", "no answer within the time limit"),
    ("Connection reset by peer", "it closed the connection"),
    ("Connection aborted", "it closed the connection"),
    ("Remote end closed connection", "it closed the connection"),
)

KIND_OF_CODE: dict[str, Kind] = {
    "RESOURCE_DOES_NOT_EXIST": "gone",
    "NOT_FOUND": "gone",
    # 404 without MLflow's own JSON: a wrong address, or a proxy whose server is away. Not about this run.
    "ENDPOINT_NOT_FOUND": "unreachable",
    "PERMISSION_DENIED": "denied",
    "CUSTOMER_UNAUTHORIZED": "denied",
    "UNAUTHENTICATED": "denied",
    "INVALID_STATE": "unreachable",
    "DATA_LOSS": "unreachable",
    "NOT_IMPLEMENTED": "unreachable",
    "TEMPORARILY_UNAVAILABLE": "unreachable",
    "DEADLINE_EXCEEDED": "unreachable",
    "REQUEST_LIMIT_EXCEEDED": "unreachable",
    "RESOURCE_EXHAUSTED": "unreachable",
    # Lost a race against another writer.
    "ABORTED": "unreachable",
    "CANCELLED": "unreachable",
    "RESOURCE_CONFLICT": "unreachable",
}


def classify(error: Exception) -> Failure:
    """Return the failure to send for an exception that an operation raised."""
    if isinstance(error, SinkError):
        return Failure(error.kind, error.message, error.detail)
    kind = kind_of(error)
    # MLflow takes the password from a variable, and a server may send it back.
    message = redact_known(" ".join(str(error).split()), os.environ)[:MESSAGE_LIMIT]
    if kind == "unreachable":
        return Failure(kind, _plainly(message) or message or type(error).__name__)
    if kind != "bug":
        return Failure(kind, message or type(error).__name__)
    detail = redact_known("".join(traceback.format_exception(error)), os.environ)
    return Failure("bug", f"{type(error).__name__}: {message}", detail)


def _plainly(message: str) -> str:
    """Return in three words what urllib3 says in three lines; an empty string for anything else."""
    return next((plain for telling, plain in PLAIN if telling in message), "")


def kind_of(error: BaseException) -> Kind:
    """Return the kind alone."""
    from mlflow.exceptions import MlflowException
    from requests import exceptions

    if isinstance(error, MlflowException):
        return _kind_of_mlflow(error)
    if isinstance(error, exceptions.HTTPError) and error.response is not None:
        return _kind_of_status(error.response.status_code)
    if isinstance(error, exceptions.InvalidURL | exceptions.InvalidSchema | exceptions.MissingSchema):
        return "permanent"
    if isinstance(error, exceptions.RequestException | ConnectionError | TimeoutError):
        return "unreachable"
    return "bug"


def error_code(error: BaseException) -> str:
    """Return MLflow's error code, or an empty string for any other exception."""
    return str(getattr(error, "error_code", "") or "")


def _kind_of_mlflow(error: BaseException) -> Kind:
    from mlflow.exceptions import InvalidUrlException, RestException

    code = error_code(error)
    if isinstance(error, InvalidUrlException):
        return "permanent"
    if code in KIND_OF_CODE:
        return KIND_OF_CODE[code]
    if code != "INTERNAL_ERROR":
        return "gone" if NOT_ACTIVE.search(str(error)) else "permanent"
    if isinstance(error, RestException):
        return "unreachable"  # the server's own 500
    return _kind_on_the_way(error)


def _kind_on_the_way(error: BaseException) -> Kind:
    """Judge an INTERNAL_ERROR that the client made itself: by its cause, else by the status it names."""
    cause = error.__cause__ or error.__context__
    if cause is not None and (kind := kind_of(cause)) != "bug":
        return kind
    text = str(error)
    if found := HTTP_STATUS.search(text):
        return _kind_of_status(int(found.group(1)))
    # "failed with exception", "successful but the response body was not in a valid JSON format"
    return "unreachable" if text.startswith("API request to") else "bug"


def _kind_of_status(status: int) -> Kind:
    if status in {401, 403}:
        return "denied"
    if status in {408, 425, 429} or status >= 500:
        return "unreachable"
    return "permanent"
