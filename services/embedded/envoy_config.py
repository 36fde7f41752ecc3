"""The front door's configuration, from the contracts and the addresses of the processes behind it. Pure: nothing is
started or written here. What does not depend on either lies in `envoy/` at the root, as YAML."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from google.protobuf import descriptor_pb2

from services.common.rpc.addresses import DOOR_KEY
from services.embedded.envoy_contracts import Method, transcodable
from services.embedded.envoy_replies import local_replies
from services.embedded.envoy_tracing import COLLECTOR, tracing

TEMPLATES = Path(__file__).parents[2] / "envoy"
DESCRIPTORS = Path(__file__).parents[2] / "gen" / "descriptors.binpb"

CONTROL, WORKERS, GATEWAY = "control", "workers", "gateway"
BODY_MOST = 64 * 1024 * 1024  # bytes of one unary request or reply through the transcoder
CONNECTION_BUFFER = 1024 * 1024  # bytes
CONTROL_TIMEOUT, WORKERS_TIMEOUT, STREAM_IDLE = "60s", "300s", "3600s"
OPENAI = "/openai/"
KSERVE = "inference.GRPCInferenceService"
_TYPE = "type.googleapis.com/envoy."
# gRPC and gRPC-Web, and what the transcoder has made of REST.
_GRPC = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
# What serves REST is not even made for a request that comes as gRPC; the transcoder's own are past the choice.
_NO_REST = {
    name: {"@type": _TYPE + "config.route.v3.FilterConfig", "config": {}, "disabled": True}
    for name in ("mercat.rest", "mercat.not_grpc", "envoy.filters.http.grpc_json_transcoder")
}


# The transcoder hands on what it has read before it has read everything, so that it never sees how long a body is.
# Uploads stream their body and have no limit here.
_TOO_LARGE = {
    "match": {
        "prefix": "/v1/",
        "headers": [
            {"name": "content-length", "range_match": {"start": BODY_MOST + 1, "end": 2**63 - 1}},
            {"name": ":path", "string_match": {"safe_regex": {"regex": ".*:write([?].*)?"}}, "invert_match": True},
        ],
    },
    "direct_response": {"status": 413},
    "typed_per_filter_config": {
        "envoy.filters.http.grpc_json_transcoder": {
            "@type": _TYPE + "config.route.v3.FilterConfig",
            "config": {},
            "disabled": True,
        },
    },
}

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


@dataclass(frozen=True)
class FrontDoor:
    """What clients reach and what is behind it. Addresses are `host:port`."""

    host: str
    port: int
    control: str
    workers: Sequence[str]
    gateway: str
    admin_socket: Path
    tls_port: int | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    cors_origins: Sequence[str] = ("*",)
    by_load: bool = False
    trusted_hops: int = 0
    # What tells the processes behind it that an address is as the front door saw it.
    token: str = ""
    trace_endpoint: str = ""
    trace_ratio: float = 0.0
    descriptors: Path = DESCRIPTORS
    max_connections: int = 20_000
    max_heap_bytes: int = 2 * 1024**3


def bootstrap(door: FrontDoor) -> dict[str, Any]:
    """The whole configuration, ready to be written as JSON."""
    values = {
        "ADMIN_SOCKET": str(door.admin_socket),
        "MAX_CONNECTIONS": door.max_connections,
        "MAX_HEAP_BYTES": door.max_heap_bytes,
    }
    config: dict[str, Any] = _filled("bootstrap.yaml", values)
    manager = connection_manager(door)
    listeners = [_listener("front", door.host, door.port, manager)]
    if door.tls_port is not None:
        listeners.append(_listener("front_tls", door.host, door.tls_port, manager, tls=_tls(door)))
    config["static_resources"] = {"listeners": listeners, "clusters": clusters(door)}
    return config


def connection_manager(door: FrontDoor) -> dict[str, Any]:
    """The filters, replies and routes that every listener shares."""
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(door.descriptors.read_bytes())
    methods = transcodable(descriptors)
    values = {
        "TRUSTED_HOPS": door.trusted_hops,
        "REST_LUA": (TEMPLATES / "rest.lua").read_text(),
        "AS_THEY_ARE": as_they_are(methods),
        "TRANSCODER": transcoder(descriptors, methods, sse=False),
        "LOCAL_REPLIES": local_replies(),
        "ROUTES": routes(door, methods, transcoder(descriptors, methods, sse=True)),
    }
    manager: dict[str, Any] = _filled("http.yaml", values)
    if door.trace_endpoint:
        manager |= tracing(door.trace_ratio)
    return {"@type": _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", **manager}


def as_they_are(methods: Sequence[Method]) -> dict[str, Any]:
    """Skips a filter for replies of methods that the transcoder makes as REST shows them."""
    skip = {"name": "skip", "typed_config": {"@type": _TYPE + "extensions.filters.common.matcher.action.v3.SkipFilter"}}
    path = {"@type": _TYPE + "type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": ":path"}
    plain = {method.path: {"action": skip} for method in methods if not method.unwrap and not method.lines}
    return {"matcher_tree": {"input": {"name": "path", "typed_config": path}, "exact_match_map": {"map": plain}}}


def transcoder(
    descriptors: descriptor_pb2.FileDescriptorSet, methods: Sequence[Method], *, sse: bool
) -> dict[str, Any]:
    """JSON in and out of the annotated methods; streams as lines of JSON, or as server-sent events."""
    return {
        "@type": _TYPE + "extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor_bin": base64.b64encode(descriptors.SerializeToString(deterministic=True)).decode(),
        "services": sorted({method.service for method in methods}),
        "convert_grpc_status": True,
        "max_request_body_size": BODY_MOST,
        "max_response_body_size": BODY_MOST,
        "print_options": {
            "always_print_primitive_fields": True,
            "stream_newline_delimited": not sse,
            "stream_sse_style_delimited": sse,
        },
        # `publisher/name%401.2.0` and `?query=a+b` mean what browsers and clients mean by them.
        "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_SLASH",
        "query_param_unescape_plus": True,
        "request_validation_options": {
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
    }


def routes(door: FrontDoor, methods: Sequence[Method], sse: Mapping[str, Any]) -> dict[str, Any]:
    """REST paths need none of their own: the transcoder turns them into the method's path, which is then routed."""
    # They are tried one after the other: what is called most comes first.
    table = [
        _grpc_route({"path": f"/{KSERVE}/ModelStreamInfer"}, WORKERS, None),
        _grpc_route({"prefix": f"/{KSERVE}/"}, WORKERS, Method("", KSERVE, streams=False)),
    ]
    table.append(_TOO_LARGE)
    # Seen only until the transcoder has rewritten the path. They must be routes, not direct responses: without one the
    # CORS filter knows no policy. What no binding fits goes on to the gateway, which says so.
    events = {"prefix": "/v1/", "headers": [{"name": "accept", "string_match": {"contains": "text/event-stream"}}]}
    per_filter = {"envoy.filters.http.grpc_json_transcoder": dict(sse)}
    # What a signature is of must be seen as it was sent: the transcoder would change it.
    signed = {"prefix": "/v1/", "headers": [{"name": "signature-input", "present_match": True}]}
    table.append(_gateway_route(signed) | {"typed_per_filter_config": _NO_REST})
    table.append(_gateway_route(events) | {"typed_per_filter_config": per_filter})
    table.append(_gateway_route({"prefix": "/v1/"}))
    served = sorted(methods, key=lambda method: _cluster_of(method.service) != WORKERS)
    table += [_grpc_route({"path": method.path}, _cluster_of(method.service), method) for method in served]
    table += [
        _grpc_route({"prefix": prefix}, CONTROL, None) for prefix in ("/grpc.reflection.", "/grpc.health.v1.Health/")
    ]
    unknown = {"match": {"prefix": "/", "headers": [_GRPC]}, "direct_response": {"status": 404}}
    table.append(unknown | {"typed_per_filter_config": _NO_REST})
    exact = ("/", "/docs", "/openapi.json", "/healthz", "/console", "/favicon.ico")
    prefixes = ("/docs/", "/console/", OPENAI, "/v2/", "/.well-known/")
    table += [_gateway_route({"path": path}) for path in exact]
    table += [_gateway_route({"prefix": prefix}) for prefix in prefixes]
    # REST paths end here until they are rewritten; without it they would have no route, and so no CORS.
    table.append({"match": {"prefix": "/"}, "direct_response": {"status": 404}})
    host = {
        "name": "all",
        "domains": ["*"],
        "routes": table,
        "typed_per_filter_config": {"envoy.filters.http.cors": _cors(door)},
    }
    seen = {"key": DOOR_KEY, "value": f"{door.token} %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}
    added = [{"header": seen, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}] if door.token else []
    return {"name": "front", "virtual_hosts": [host], "request_headers_to_add": added}


def _cluster_of(service: str) -> str:
    return WORKERS if service == KSERVE or service.startswith("mercat.inference.") else CONTROL


def _grpc_route(match: Mapping[str, Any], cluster: str, method: Method | None) -> dict[str, Any]:
    streams = method is None or method.streams
    action: dict[str, Any] = {
        "cluster": cluster,
        "timeout": "0s" if streams else WORKERS_TIMEOUT if cluster == WORKERS else CONTROL_TIMEOUT,
        # A caller's own deadline (grpc-timeout) is passed on and kept, however long.
        "max_stream_duration": {"grpc_timeout_header_max": "0s"},
        # Only where the request cannot have been handled.
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": 3,
            "host_selection_retry_max_attempts": 3,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": _TYPE + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
        },
    }
    if streams:
        action["idle_timeout"] = STREAM_IDLE
    route: dict[str, Any] = {
        "match": {**match, "headers": [_GRPC]}, "route": action, "typed_per_filter_config": _NO_REST
    }  # fmt: skip
    if method is not None:
        known: dict[str, Any] = {"lines": method.lines}
        known |= {"unwrap": method.unwrap} if method.unwrap else {}
        route["metadata"] = {"filter_metadata": {"envoy.filters.http.lua": known}}
    return route


def _gateway_route(match: Mapping[str, Any]) -> dict[str, Any]:
    action: dict[str, Any] = {"cluster": GATEWAY, "timeout": "0s", "upgrade_configs": [{"upgrade_type": "websocket"}]}
    if match.get("prefix") == OPENAI:
        action["idle_timeout"] = STREAM_IDLE  # before its first token a stream is as silent as one over gRPC
    return {"match": dict(match), "route": action}


def _cors(door: FrontDoor) -> dict[str, Any]:
    origins = [{"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin} for origin in door.cors_origins]
    # `*` is never the authorization. OpenAI's client describes itself in headers of its own.
    allowed = "authorization,content-type,idempotency-key,grpc-timeout,x-grpc-web,x-user-agent,traceparent,tracestate,*"
    shown = "grpc-status,grpc-message,grpc-status-details-bin,mercat-request-id,mercat-cost-nanos,mercat-model-version"
    return {
        "@type": _TYPE + "extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": origins,
        "allow_methods": "GET,POST,PUT,PATCH,DELETE,OPTIONS",
        "allow_headers": allowed,
        "expose_headers": f"{shown},mercat-cache,x-request-id,ratelimit,ratelimit-policy,retry-after",
        "max_age": "86400",
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
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(a)}} for a in addresses]}],
        },
    }


def _listener(
    name: str, host: str, port: int, manager: Mapping[str, Any], *, tls: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": dict(manager)}]
    }
    if tls is not None:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": dict(tls)}
    return {
        "name": name,
        "address": _address(f"{host}:{port}"),
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER,
        "tcp_backlog_size": 4096,
        "filter_chains": [chain],
    }


def _tls(door: FrontDoor) -> dict[str, Any]:
    pair = {
        "certificate_chain": {"filename": str(door.certificate)},
        "private_key": {"filename": str(door.private_key)},
    }
    return {
        "@type": _TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "tls_certificates": [pair],
        },
    }


def _address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _filled(file: str, values: Mapping[str, Any]) -> Any:
    """The YAML of a template with each `$NAME` that stands alone replaced by a value of any type."""
    return _replace(yaml.safe_load((TEMPLATES / file).read_text()), values)


def _replace(node: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(node, dict):
        return {key: _replace(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_replace(value, values) for value in node]
    if isinstance(node, str) and node.startswith("$"):
        return values[node[1:]]
    return node
