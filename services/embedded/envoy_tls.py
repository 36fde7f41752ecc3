"""TLS of the front door: towards clients with a certificate that Envoy takes again whenever its files change, and
towards Mercat's own processes."""

import json
from pathlib import Path
from typing import Any

from services.common.rpc.mutual import NAME, Mutual

_TYPE = "type.googleapis.com/envoy."
_NAME = "front"


def downstream(secrets: Path) -> dict[str, Any]:
    """TLS towards clients, with the certificate that the file `secrets` names."""
    source = {"resource_api_version": "V3", "path_config_source": {"path": str(secrets)}}
    return {
        "@type": _TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificate_sds_secret_configs": [{"name": _NAME, "sds_config": source}],
        },
    }


def secret(chain: Path, key: Path) -> str:
    """What that file says. Files that are moved into the folder of the certificate are read anew: so certbot,
    cert-manager and `mv` replace one. A chain whose key is not there yet is not taken."""
    certificate = {
        "@type": _TYPE + "extensions.transport_sockets.tls.v3.Secret",
        "name": _NAME,
        "tls_certificate": {
            "certificate_chain": {"filename": str(chain)},
            "private_key": {"filename": str(key)},
            "watched_directory": {"path": str(chain.parent)},
        },
    }
    return json.dumps({"resources": [certificate]}, indent=1)


def upstream(mutual: Mutual, protocol: str) -> dict[str, Any]:
    """TLS towards Mercat's own processes, both ways."""
    shown = {"certificate_chain": {"filename": str(mutual.certificate)}, "private_key": {"filename": str(mutual.key)}}
    name = {"san_type": "DNS", "matcher": {"exact": NAME}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TYPE + "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": NAME,
            "common_tls_context": {
                "alpn_protocols": [protocol],
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [shown],
                "validation_context": {
                    "trusted_ca": {"filename": str(mutual.ca)},
                    "match_typed_subject_alt_names": [name],
                },
            },
        },
    }
