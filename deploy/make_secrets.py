"""Random secrets for a new site: `compose` writes deploy/compose/.env, `kubernetes` prints what kubectl apply takes.

Needs Python alone. Every call makes new ones. A file is its owner's alone, whatever the umask, and is never replaced:
the site's volumes have the passwords of the old one.
"""

import argparse
import json
import os
import secrets
import sys
from pathlib import Path

ENV_FILE = Path(__file__).parent / "compose" / ".env"


def compose() -> str:
    """Lines for deploy/compose/.env."""
    values = {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "PREFECT_AUTH_STRING": f"fcn:{secrets.token_hex(16)}",
        "S3_ACCESS_KEY": f"site-{secrets.token_hex(6)}",
        "S3_SECRET_KEY": secrets.token_hex(20),
        "S3_RAY_ACCESS_KEY": f"ray-{secrets.token_hex(6)}",
        "S3_RAY_SECRET_KEY": secrets.token_hex(20),
        "S3_PREFECT_ACCESS_KEY": f"prefect-{secrets.token_hex(6)}",
        "S3_PREFECT_SECRET_KEY": secrets.token_hex(20),
        "GRAFANA_PASSWORD": secrets.token_hex(12),
    }
    return "\n".join(f"{name}={value}" for name, value in values.items())


def kubernetes(namespace: str) -> str:
    """The Secrets that deploy/kuberay/base names, as one List. JSON is YAML to kubectl."""
    values = {
        "fcn-ray-token": {"auth_token": secrets.token_hex(32)},
        "fcn-redis": {"password": secrets.token_hex(16)},
        "fcn-postgres": {"password": secrets.token_hex(16)},
        "fcn-prefect": {"auth_string": f"fcn:{secrets.token_hex(16)}"},
    }
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "Opaque",
            "stringData": data,
        }
        for name, data in values.items()
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2)


def write(file: Path, text: str) -> None:
    """Write a new file that its owner alone may read. Ends the program where there is one."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        sys.exit(f"{file} is there already; move it away, and remove the volumes of the site that it belongs to")
    except OSError as error:
        sys.exit(f"cannot write {file} ({error.strerror}); choose another place with --output")
    with open(descriptor, "w") as opened:
        os.fchmod(descriptor, 0o600)  # a umask may have taken away more than it should
        opened.write(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", choices=("compose", "kubernetes"))
    parser.add_argument("--namespace", default="fcn", help="where in Kubernetes")
    parser.add_argument(
        "--output",
        help="the file to write; - is standard output. Default: deploy/compose/.env for compose, - for kubernetes",
    )
    given = parser.parse_args()
    text = compose() if given.site == "compose" else kubernetes(given.namespace)
    output = given.output or (str(ENV_FILE) if given.site == "compose" else "-")
    if output == "-":
        print(text)
    else:
        write(Path(output), text + "\n")
        print(f"{output} has the site's secrets, for its owner alone", file=sys.stderr)


if __name__ == "__main__":
    main()
