"""Whether the container is well: every address in FCN_HEALTH_URLS answers 200.

Without FCN_HEALTH_URLS the container runs a plain command, which is well for as long as it runs. Needs Python alone, so
that it costs little every few seconds.
"""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 5.0


def trouble(url: str) -> str | None:
    """What is wrong with the answer at `url`; None when nothing is."""
    # The addresses are this container's own: a proxy in the environment is not for them.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return f"{url}: answered {error.code}"
    except (OSError, ValueError) as error:
        return f"{url}: {error}"


def main() -> int:
    troubles = [found for url in os.environ.get("FCN_HEALTH_URLS", "").split() if (found := trouble(url))]
    print("\n".join(troubles) or "well")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
