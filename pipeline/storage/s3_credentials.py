"""Credentials that are renewed in good time, kept while they are valid, and named when they cannot be renewed.

botocore finds them, as the AWS CLI does, and knows how to renew them. But it gives up at the first renewal that fails,
also one of keys that are valid for minutes yet, and obstore makes a refusal of that. Here a failed renewal is
RenewalFailed, which storage waits for as it waits for S3.
"""

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import botocore.session
from botocore import exceptions as aws
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials

from fcn_core.text.printable import printable
from pipeline.logfmt import key_values
from pipeline.storage.uri import without_user

if TYPE_CHECKING:
    from obstore.store import S3Credential

log = logging.getLogger(__name__)

_HELD_BY_OBSTORE = timedelta(minutes=5)
"""What obstore is told; with that it asks again after a tenth of a second."""

_LAST_SECONDS = 5
"""Keys that live no longer than this are not used any more."""

_PAUSE = 1.0
"""Seconds between renewals that fail, while the old keys still work."""

_MARGINS = (900, 450, 225, 112, 56, 28)
"""Seconds before their end from which keys are renewed: the first that is at most half of what they live."""

_LOGIN_ERROR: type[Exception] = getattr(aws, "LoginError", aws.SSOError)  # older versions have none
_PERMANENT = (
    aws.ProfileNotFound,
    aws.InvalidConfigError,
    aws.PartialCredentialsError,
    aws.ConfigNotFound,
    aws.ConfigParseError,
    aws.RefreshWithMFAUnsupportedError,
    aws.UnauthorizedSSOTokenError,
    aws.SSOTokenLoadError,
    _LOGIN_ERROR,
)
_REFUSALS = {
    "AccessDenied",
    "AccessDeniedException",
    "ForbiddenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "ValidationError",
    "ResourceNotFoundException",
}
_SERVICES = {"GetRoleCredentials": "SSO", "CreateToken": "SSO"}


class RenewalFailed(Exception):
    """Credentials could not be found or renewed; its text is fit to show. `permanent`: waiting does not help."""

    def __init__(self, text: str, *, permanent: bool) -> None:
        super().__init__(text)
        self.permanent = permanent


class MFAWanted(Exception):
    """A profile asks for a code that nobody is there to type."""


class RenewedCredentials(Credentials):
    """The credentials of a profile, or of the environment; boto3 and obstore are both given these. Thread-safe."""

    def __init__(self, profile: str | None) -> None:
        super().__init__("", "", None)  # what is asked for is below
        self._profile = profile
        self._lock = threading.Lock()
        self._found: Credentials | None = None
        self._kept: ReadOnlyCredentials | None = None
        self._margin = _MARGINS[0]
        self._next_try = 0.0
        self._failed: RenewalFailed | None = None

    def exist(self) -> bool:
        """Whether there are any. Raises RenewalFailed where that cannot be found out now."""
        with self._lock:
            return self._find() is not None

    def load_credentials(self) -> "RenewedCredentials | None":
        """As botocore's own component of the name `credential_provider` does."""
        return self if self.exist() else None

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """The keys to sign the next request with. Raises RenewalFailed."""
        kept, found = self._kept, self._found
        if kept is not None and found is not None and not _ends_within(found, self._margin):
            return kept
        if kept is not None and found is not None and not _ends_within(found, _LAST_SECONDS):
            # Others need not wait for the one that renews them.
            if time.monotonic() < self._next_try or not self._lock.acquire(blocking=False):
                return kept
            try:
                return self._renewed(kept)
            finally:
                self._lock.release()
        with self._lock:
            return self._renewed(None)

    def renew(self, used: ReadOnlyCredentials | None) -> None:
        """Find the credentials anew, because the service did not accept `used`. Raises RenewalFailed."""
        with self._lock:
            if used is not None and self._kept is not None and used != self._kept:
                return  # another thread did
            self._found = self._kept = None
            self._renewed(None)

    def __call__(self) -> "S3Credential":
        """As obstore asks for them."""
        keys = self.get_frozen_credentials()
        credential: S3Credential = {
            "access_key_id": str(keys.access_key),
            "secret_access_key": str(keys.secret_key),
            "token": keys.token,
            "expires_at": datetime.now(UTC) + _HELD_BY_OBSTORE,
        }
        return credential

    def _renewed(self, kept: ReadOnlyCredentials | None) -> ReadOnlyCredentials:
        """The newest keys; `kept` where they cannot be renewed now. To be called with the lock."""
        if self._failed is not None and time.monotonic() < self._next_try:
            # What another thread has just waited for in vain.
            if kept is None:
                _raise(self._failed)
            return kept
        try:
            found = self._find()
            if found is None:
                raise aws.NoCredentialsError
            fresh = self._kept is not None and not _ends_within(found, self._margin)
            if not fresh:  # else another thread was first
                # botocore renews by its own margin, which may lie before ours: then there is nothing new.
                self._kept = found.get_frozen_credentials()
                self._margin = next((margin for margin in _MARGINS if not _ends_within(found, 2 * margin)), 10)
        except aws.NoCredentialsError:
            raise
        except Exception as error:
            self._failed = failure = self._failure(error)
            self._next_try = time.monotonic() + _PAUSE
            if kept is None:
                _raise(failure)
            log.warning("%s", key_values(credentials="not renewed, the old ones still work", reason=failure))
            return kept
        assert self._kept is not None, "read above"
        self._failed = None
        return self._kept

    def _find(self) -> Credentials | None:
        if self._found is None:
            try:
                logging.getLogger("botocore.credentials").addFilter(_without_traceback)
                session = botocore.session.Session(profile=self._profile)
                resolver: Any = session.get_component("credential_provider")
                resolver.get_provider("assume-role")._prompter = _refuse_to_ask
                self._found = resolver.load_credentials()
            except Exception as error:
                _raise(self._failure(error))
            if self._found is not None:
                self.method = self._found.method
        return self._found

    def _failure(self, error: Exception) -> RenewalFailed:
        if isinstance(error, RenewalFailed):
            return error
        profile = self._profile or botocore.session.Session().get_config_variable("profile")
        whose = f"credentials of profile {printable(str(profile))}" if profile else "this machine's credentials"
        login = f" --profile {printable(str(profile))}" if profile else ""
        if isinstance(error, aws.UnauthorizedSSOTokenError | aws.SSOTokenLoadError | aws.TokenRetrievalError):
            text = f"{whose} could not be renewed: the SSO session has ended; run `aws sso login{login}`"
        elif isinstance(error, _LOGIN_ERROR):
            text = f"{whose} could not be renewed: the login has ended; run `aws login{login}`"
        elif isinstance(error, MFAWanted | aws.RefreshWithMFAUnsupportedError):
            text = (
                f"{whose} want an MFA code, which nobody can type here; put the keys of `aws sts get-session-token` "
                "into a profile and use that one"
            )
            return RenewalFailed(text, permanent=True)
        elif isinstance(error, aws.ProfileNotFound | aws.InvalidConfigError):
            # botocore's sentences about the configuration name profiles and settings, never their values.
            text = f"{whose} are not configured: {printable(str(error)).rstrip('.')}"
        else:
            text = f"{whose} could not be renewed: {_reason(error)}"
        return RenewalFailed(text, permanent=_is_permanent(error))


def _raise(failure: RenewalFailed) -> NoReturn:
    """Without the original, whose text may hold what a credential process printed."""
    raise failure from None


def _ends_within(found: Credentials, seconds: int) -> bool:
    return isinstance(found, RefreshableCredentials) and bool(found.refresh_needed(refresh_in=seconds))


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, aws.ClientError):
        return error.response.get("Error", {}).get("Code") in _REFUSALS
    return isinstance(error, _PERMANENT)


def _reason(error: Exception) -> str:
    if isinstance(error, aws.ClientError):
        service = _SERVICES.get(error.operation_name, "STS")
        told = error.response.get("Error", {}).get("Code")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return f"{service} answers {printable(str(told or status))}"
    if isinstance(error, aws.CredentialRetrievalError):
        provider = str(error.kwargs.get("provider"))
        return {
            "custom-process": "the credential_process of the profile failed",
            "container-role": "the container's endpoint of credentials does not answer",
        }.get(provider, f"the provider {printable(provider)} failed")
    if isinstance(error, aws.MetadataRetrievalError):
        return "the endpoint of credentials does not answer"
    if isinstance(error, aws.HTTPClientError | aws.ConnectionError):
        return f"{_asked(error)} does not answer"
    return f"{type(error).__name__}"


def _asked(error: aws.BotoCoreError) -> str:
    endpoint = error.kwargs.get("endpoint_url")
    return without_user(str(endpoint)) if endpoint else "the service"


def _without_traceback(record: logging.LogRecord) -> bool:
    """botocore reports a renewal that failed with all that a credential process printed; we report it ourselves."""
    record.exc_info = None
    return True


def _refuse_to_ask(prompt: str) -> str:
    raise MFAWanted
