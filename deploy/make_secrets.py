"""Random secrets for a new site, on standard output: `compose` for an .env file, `kubernetes` for kubectl apply.

Needs Python alone. Every call makes new ones: keep what it printed out of git.
"""

import argparse
import json
import secrets


def compose() -> str:
    """Lines for deploy/compose/.env."""
    values = {
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "POSTGRES_PASSWORD": secrets.token_hex(16),
        "PREFECT_AUTH_STRING": f"fcn:{secrets.token_hex(16)}",
        "S3_ACCESS_KEY": f"site-{secrets.token_hex(6)}",
        "S3_SECRET_KEY": secrets.token_hex(20),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", choices=("compose", "kubernetes"))
    parser.add_argument("--namespace", default="fcn", help="where in Kubernetes")
    given = parser.parse_args()
    print(compose() if given.site == "compose" else kubernetes(given.namespace))


if __name__ == "__main__":
    main()
