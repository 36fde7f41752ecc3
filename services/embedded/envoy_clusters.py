"""Where the front door sends requests."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from services.embedded.envoy_door import CONTROL, GATEWAY, WORKERS, FrontDoor, socket_address
from services.embedded.envoy_tls import upstream
from services.embedded.envoy_tracing import COLLECTOR

CONNECTION_BUFFER = 1024 * 1024  # bytes
_TYPE = "type.googleapis.com/envoy."

# Workers that use less of their processors get more calls, by the load reports in their trailers.
_BY_LOAD = {
    "load_balancing_policy": {
        "policies": [
            {
                "typed_extension_config": {
                    "name": "envoy.load_balancing_policies.client_side_weighted_round_robin",
                    "typed_config": {
                        "@type": _TYPE + "extensions.load_balancing_policies.client_side_weighted_round_robin.v3"
                        ".ClientSideWeightedRoundRobin",
                        "blackout_period": "1s",
                        "weight_expiration_period": "10s",
                        "weight_update_period": "0.5s",
                    },
                }
            }
        ]
    }
}


def clusters(door: FrontDoor) -> list[dict[str, Any]]:
    """Where requests go. Workers are watched and chosen by load; the others are single."""
    workers = _cluster(WORKERS, door.workers, http2=True) | {
        "lb_policy": "LEAST_REQUEST",
        # Never all of them for want of a healthy one: an unhealthy worker has nothing to answer with.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                "no_traffic_interval": "0.25s",
                "no_traffic_healthy_interval": "1s",
                "unhealthy_interval": "0.25s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        # By broken connections only: an UNAVAILABLE that a worker answers says nothing about this worker.
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "2s",
            "max_ejection_time": "10s",
            "max_ejection_percent": 50,
        },
    }
    if door.by_load:
        workers |= _BY_LOAD
    found = [_cluster(CONTROL, [door.control], http2=True), workers, _cluster(GATEWAY, [door.gateway], http2=False)]
    if door.mutual is not None:
        for cluster, protocol in zip(found, ("h2", "h2", "http/1.1"), strict=True):
            cluster["transport_socket"] = upstream(door.mutual, protocol)
    if door.trace_endpoint:
        found.append(_collector(door.trace_endpoint))
    return found


def _collector(endpoint: str) -> dict[str, Any]:
    url = urlsplit(endpoint)
    cluster = _cluster(COLLECTOR, [f"{url.hostname}:{url.port or 4317}"], http2=True)
    if url.scheme == "https":
        tls = {"@type": _TYPE + "extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": url.hostname}
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": tls}
    return cluster


def _cluster(name: str, addresses: Sequence[str], *, http2: bool) -> dict[str, Any]:
    protocol: dict[str, Any] = {"http_protocol_options": {}}
    if http2:
        window = {"initial_stream_window_size": 1024 * 1024, "initial_connection_window_size": 16 * 1024 * 1024}
        # Calls to a process that says nothing any more end with its connection, not each by its own deadline.
        alive = {"connection_keepalive": {"interval": "1s", "timeout": "3s"}}
        protocol = {"http2_protocol_options": {"max_concurrent_streams": 10_000, **window, **alive}}
    limits = {"max_connections": 20_000, "max_pending_requests": 20_000, "max_requests": 100_000, "max_retries": 1000}
    named = any(not host.replace(".", "").isdigit() for host, _, _ in (a.rpartition(":") for a in addresses))
    return {
        "name": name,
        "type": "STRICT_DNS" if named else "STATIC",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER,
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": protocol,
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(a)}} for a in addresses]}],
        },
    }
