"""What the commands of `fcn` share: exit codes, and how a flag is spelled."""

from typing import Annotated

from cyclopts import Parameter

DONE = 0
FAILED = 1
BAD_INPUT = 2
TOO_MANY_ERRORS = 3
INTERRUPTED = 130

Flag = Annotated[bool, Parameter(negative="")]
"""An option that is there or not, without a --no-... twin."""
