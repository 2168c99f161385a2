"""What boto3 and obstore raise, turned into one `StorageError` with one sentence.

Their own messages are long and quote requests, where a session token can stand; none of their text is passed
on.
"""

import re
from typing import NoReturn

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError
from obstore import exceptions as rust

from pipeline.errors import (
    AccessDenied,
    CredentialsExpired,
    NameRefused,
    ObjectArchived,
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    PlaceMissing,
    StorageError,
    StorageUnavailable,
    UntrustedCertificate,
)
from pipeline.storage.s3_credentials import RenewalFailed

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
"""Keys that were right, or will be when they are renewed."""

_BAD_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "NotSignedUp",
    "UnauthenticatedAccess",
    "InvalidAuthenticationInfo",
    "401",
}
_FORBIDDEN = {
    "AccessDenied",
    "AllAccessDisabled",
    "AccountProblem",
    "Forbidden",
    "AuthorizationFailure",
    "403",
}
_REFUSALS = {
    "RequestTimeTooSkewed": (
        CredentialsExpired,
        "{where} refused the request because this machine's clock is wrong; set the clock",
    ),
    "InvalidObjectState": (
        ObjectArchived,
        "the object is in an archive storage class ({told}); restore it, then run with --retry-errors",
    ),
    "KeyTooLongError": (NameRefused, "the name is too long for {where}"),
    "InvalidRange": (ObjectChanged, "the object ends before the bytes that were asked for"),
    "SecondLevelDomainForbidden": (
        StorageError,
        "{where} wants the bucket as host name ({told}); set addressing_style = virtual in the profile's s3 section",
    ),
    "InvalidRegionName": (
        StorageError,
        "{where} knows no such region ({told}); give the one it names in its documentation as ?region= or "
        "AWS_DEFAULT_REGION",
    ),
    "InvalidRequestPayer": (StorageError, "the bucket wants its requesters to pay; say ?request_payer=requester"),
    **dict.fromkeys(
        ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"),
        (StorageError, "the bucket is in another region than the one asked; give ?region= or AWS_DEFAULT_REGION"),
    ),
}
"""Refusals that are no matter of permission, whatever their status, by code."""

_TRANSIENT = {
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "OperationAborted",
    "ConditionalRequestConflict",
    "ServerBusy",
}
_NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.SSOError,
    aws.TokenRetrievalError,
    aws.MetadataRetrievalError,
    aws.RefreshWithMFAUnsupportedError,
    aws.UnauthorizedSSOTokenError,
    aws.ConfigNotFound,
    aws.ConfigParseError,
)
_PROVIDER = "External AWS credential provider"
"""So obstore names where the keys come from that it is given."""

_TOKEN_REQUEST = "Error performing token request"
"""So obstore says that neither the environment nor the machine's own identity gave it a token."""

_IDENTITIES = {
    "Google Cloud Storage": "set GOOGLE_APPLICATION_CREDENTIALS, or run where a service account is attached",
    "Azure Blob Storage": "set AZURE_STORAGE_ACCOUNT_NAME and a key or token, or run where an identity is attached",
}

_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "certificate verify failed", "error: InvalidCertificate(")
_BROKEN = (
    rust.GenericError,
    aws.HTTPClientError,
    aws.ConnectionError,
    aws.IncompleteReadError,
    aws.ChecksumError,
    ResponseParserError,
    OSError,
)
_CODE = re.compile(r"<Code>\s*([A-Za-z0-9.]+)\s*</Code>")
_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})|status: (\d{3})")


def raise_fault(error: Exception, name: str, where: str) -> NoReturn:
    """Raise what `error` means for the object or folder `name` on the service `where`.

    The original is not chained: its text may hold a session token, and tracebacks end up in logs.
    """
    raise fault(error, name, where) from None


def fault(error: Exception, name: str, where: str) -> StorageError:
    """The StorageError that says what `error`, from boto3 or obstore, means."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, RenewalFailed):
        return (AccessDenied if error.permanent else StorageUnavailable)(f"{name}: {error}.")
    if isinstance(error, rust.UnauthenticatedError) and _PROVIDER in str(error):
        return StorageUnavailable(f"{name}: the credentials could not be renewed.")
    if isinstance(error, aws.ProfileNotFound):
        return AccessDenied(f"{name}: {error}; correct ?profile= or AWS_PROFILE, or configure it.")
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDenied(
            f"{name}: no usable credentials ({_plain(type(error).__name__)}); set AWS_PROFILE or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, log in, or give this machine a role."
        )
    if _TOKEN_REQUEST in str(error) and where in _IDENTITIES:
        return AccessDenied(f"{name}: no usable credentials for {where}; {_IDENTITIES[where]}.")
    if isinstance(error, rust.AlreadyExistsError):
        # obstore takes every 409 for this one, but S3 answers 409 also where another request was at the same key.
        code, _ = _code_and_status(error)
        if code in _TRANSIENT:
            return StorageUnavailable(f"{name}: {where} keeps answering {code}; try again later.")
        return ObjectExists(f"{name} exists already.")
    if isinstance(error, rust.PreconditionError):
        # obstore resumes an answer that broke off with If-Match: begin again.
        return StorageUnavailable(f"{name} changed while it was read.")
    code, status = _code_and_status(error)
    if code is None and status is None:
        return _no_response(error, name, where)
    told = code or str(status)
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return PlaceMissing(f"{name}: there is no such bucket at {where}; create it or correct the URI.")
    if code in ("NoSuchKey", "BlobNotFound", "NoSuchVersion") or status == 404 or code == "404":
        return ObjectMissing(f"{name} does not exist.")
    if code == "PreconditionFailed" or status == 412:
        return ObjectExists(f"{name} exists already.")
    if code in _REFUSALS or status == 416:
        kind, sentence = _REFUSALS[code if code in _REFUSALS else "InvalidRange"]
        return kind(f"{name}: {sentence.format(where=where, told=told)}.")
    if code in _EXPIRED or (status == 400 and code in (None, "400")):
        # An answer to HEAD has no code, and nothing else in such a request can be wrong.
        return CredentialsExpired(f"{name}: {where} does not accept the credentials ({told}); check or renew them.")
    if code is not None and code.upper().startswith("KMS"):
        return StorageError(
            f"{name}: the key that encrypts the object cannot be used ({told}); see to the key in KMS, not to the "
            "credentials."
        )
    if code in _BAD_CREDENTIALS or status == 401:
        return AccessDenied(f"{name}: {where} does not accept the credentials ({told}); check or renew them.")
    if code in _FORBIDDEN or (status == 403 and code is None):
        others = ", or say ?request_payer=requester where the requester pays, ?unsigned=true where anybody may read"
        return AccessDenied(
            f"{name}: the credentials are not allowed to do this ({told}); widen their policy"
            f"{others if name.startswith('s3') else ''}."
        )
    if code in _TRANSIENT or (status is not None and (status >= 500 or status == 429)):
        return StorageUnavailable(f"{name}: {where} keeps answering {told}; try again later.")
    if status == 403:
        return AccessDenied(f"{name}: {where} refused ({told}); check the credentials and their policy.")
    return StorageError(f"{name}: {where} refused the request ({told}).")


def _no_response(error: Exception, name: str, where: str) -> StorageError:
    """An error that no server's answer stands behind."""
    text = str(error)
    if isinstance(error, rust.PermissionDeniedError | rust.UnauthenticatedError):
        return AccessDenied(f"{name}: {where} refused; check the credentials and their policy.")
    if isinstance(error, FileNotFoundError):
        return ObjectMissing(f"{name} does not exist.")
    if any(words in text for words in _UNTRUSTED):
        return UntrustedCertificate(f"{name}: {where} shows a certificate that is not trusted; set AWS_CA_BUNDLE.")
    if isinstance(error, _BROKEN) or "timed out" in text:
        return StorageUnavailable(f"{name}: {where} {_network_trouble(error, text)}.")
    if isinstance(error, aws.BotoCoreError | rust.BaseError | ValueError | TypeError):
        return StorageError(f"{name}: cannot be asked for at {where} ({_plain(type(error).__name__)}).")
    return StorageError(f"{name}: {_plain(type(error).__name__)} from the client of {where}.")


def _network_trouble(error: Exception, text: str) -> str:
    if "dns error" in text or "resolve" in text or "Name or service not known" in text:
        return "is not known to the name service; check the endpoint's spelling and the network"
    if "tcp connect error" in text or isinstance(error, aws.EndpointConnectionError | aws.ConnectTimeoutError):
        return "cannot be reached; check the endpoint and the network"
    if "TimedOut" in text or "timed out" in text or isinstance(error, aws.ReadTimeoutError):
        return "did not answer in time"
    return "broke off the connection or its answer"


def _code_and_status(error: Exception) -> tuple[str | None, int | None]:
    """The service's error code and the HTTP status, as far as the error has them."""
    if isinstance(error, aws.ClientError):
        code = error.response.get("Error", {}).get("Code")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return code, status
    text = str(error)
    code_found, status_found = _CODE.search(text), _STATUS.search(text)
    return (
        code_found.group(1) if code_found else None,
        int(status_found.group(1) or status_found.group(2)) if status_found else None,
    )


def _plain(name: str) -> str:
    """`NoCredentialsError` -> `no credentials error`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
