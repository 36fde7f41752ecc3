"""The front door's configuration, from the contracts and the addresses of the processes behind it. Pure: nothing is
started or written here. What does not depend on either lies in `envoy/` at the root, as YAML."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import descriptor_pb2

from services.common.rpc.addresses import DOOR_KEY
from services.embedded.envoy_clusters import CONNECTION_BUFFER, clusters
from services.embedded.envoy_contracts import Method, transcodable
from services.embedded.envoy_door import CONTROL, GATEWAY, WORKERS, FrontDoor, socket_address
from services.embedded.envoy_limits import by_address
from services.embedded.envoy_replies import local_replies
from services.embedded.envoy_tls import downstream
from services.embedded.envoy_tracing import tracing

TEMPLATES = Path(__file__).parents[2] / "envoy"

BODY_MOST = 64 * 1024 * 1024  # bytes of one unary request or reply through the transcoder
CONTROL_TIMEOUT, WORKERS_TIMEOUT, STREAM_IDLE = "60s", "300s", "3600s"
HANDSHAKE = "10s"  # in which a client must have said its part of TLS
OPENAI, TUS = "/openai/", "/tus/"
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
        listeners.append(
            _listener(
                "front_tls", door.tls_host or door.host, door.tls_port, _over_tls(manager), tls=downstream(door.secrets)
            )
        )
    config["static_resources"] = {"listeners": listeners, "clusters": clusters(door)}
    return config


def connection_manager(door: FrontDoor) -> dict[str, Any]:
    """The filters, replies and routes that every listener shares."""
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(door.descriptors.read_bytes())
    methods = transcodable(descriptors)
    values = {
        "TRUSTED_HOPS": door.trusted_hops,
        "BY_ADDRESS": by_address(door.address_rate),
        "REST_LUA": (TEMPLATES / "rest.lua").read_text(),
        "AS_THEY_ARE": as_they_are(methods),
        "TRANSCODER": transcoder(descriptors, methods, sse=False),
        "LOCAL_REPLIES": local_replies(),
        "ROUTES": routes(door, methods, transcoder(descriptors, methods, sse=True)),
    }
    manager: dict[str, Any] = _filled("http.yaml", values)
    manager["http_filters"] = [known for known in manager["http_filters"] if known]
    if door.trace_endpoint:
        manager |= tracing(door.trace_ratio)
    return {"@type": _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", **manager}


def _over_tls(manager: Mapping[str, Any]) -> dict[str, Any]:
    """Who came by TLS once is told to come by nothing else (RFC 6797)."""
    told = {"header": {"key": "strict-transport-security", "value": "max-age=31536000"}}
    return {**manager, "route_config": {**manager["route_config"], "response_headers_to_add": [told]}}


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
    described = ("/grpc.reflection.",) if door.reflection else ()
    table += [_grpc_route({"prefix": prefix}, CONTROL, None) for prefix in (*described, "/grpc.health.v1.Health/")]
    unknown = {"match": {"prefix": "/", "headers": [_GRPC]}, "direct_response": {"status": 404}}
    table.append(unknown | {"typed_per_filter_config": _NO_REST})
    exact = ("/", "/docs", "/openapi.json", "/healthz", "/console", "/favicon.ico")
    prefixes = ("/docs/", "/console/", OPENAI, TUS, "/oauth/", "/v2/", "/.well-known/")
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
    if match.get("prefix") in (OPENAI, TUS):
        # Before its first token a stream is as silent as one over gRPC, and so is an upload whose bytes are all there
        # until they have been read again and stored. Neither its body nor its time has a limit here.
        action["idle_timeout"] = STREAM_IDLE
    return {"match": dict(match), "route": action}


def _cors(door: FrontDoor) -> dict[str, Any]:
    origins = [{"safe_regex": {"regex": ".*"}} if origin == "*" else {"exact": origin} for origin in door.cors_origins]
    # `*` is never the authorization. OpenAI's client describes itself in headers of its own.
    allowed = "authorization,content-type,idempotency-key,grpc-timeout,x-grpc-web,x-user-agent,traceparent,tracestate,*"
    shown = "grpc-status,grpc-message,grpc-status-details-bin,mercat-request-id,mercat-cost-nanos,mercat-model-version"
    tus = (
        "location,mercat-digest,tus-resumable,tus-version,tus-extension,tus-max-size,tus-checksum-algorithm,"
        "upload-offset,upload-length,upload-metadata,upload-expires"
    )
    return {
        "@type": _TYPE + "extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": origins,
        "allow_methods": "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS",
        "allow_headers": allowed,
        "expose_headers": f"{shown},mercat-cache,deprecation,sunset,link,"
        f"x-request-id,ratelimit,ratelimit-policy,retry-after,{tus}",
        "max_age": "86400",
    }


def _listener(
    name: str, host: str, port: int, manager: Mapping[str, Any], *, tls: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": dict(manager)}]
    }
    if tls is not None:
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": dict(tls)}
        chain["transport_socket_connect_timeout"] = HANDSHAKE
    return {
        "name": name,
        "address": socket_address(f"{host}:{port}"),
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER,
        "tcp_backlog_size": 4096,
        "filter_chains": [chain],
    }


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
