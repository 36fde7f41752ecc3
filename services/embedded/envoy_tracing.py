"""Spans of the front door: where a trace begins, or goes on from its caller's."""

from typing import Any

COLLECTOR = "traces"
_TYPE = "type.googleapis.com/envoy."


def tracing(ratio: float) -> dict[str, Any]:
    """What the connection manager is given. A call whose caller sent a `traceparent` is traced as that says, of the
    others the share `ratio`."""
    named = {"service.name": "mercat", "service.instance.id": "envoy"}
    share = {"numerator": round(1e6 * ratio), "denominator": "MILLION"}
    some = _extension("samplers.trace_id_ratio_based", "TraceIdRatioBasedSamplerConfig", sampling_percentage=share)
    spans = {
        "spawn_upstream_span": False,
        # Of the address only the path: a query may hold what its caller should not have put there.
        "max_path_tag_length": 0,
        "custom_tags": [{"tag": "http.path", "value": "%PATH(NQ)%"}],
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": _TYPE + "config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": COLLECTOR}, "timeout": "5s"},
                "service_name": named["service.name"],
                "sampler": _extension("samplers.parent_based", "ParentBasedSamplerConfig", wrapped_sampler=some),
                "resource_detectors": [
                    _extension(
                        "resource_detectors.static_config", "StaticConfigResourceDetectorConfig", attributes=named
                    )
                ],
            },
        },
    }
    # The front door makes no request ids, and so cannot choose by them.
    uuid = _TYPE + "extensions.request_id.uuid.v3.UuidRequestIdConfig"
    ids = {"typed_config": {"@type": uuid, "use_request_id_for_trace_sampling": False}}
    return {"tracing": spans, "request_id_extension": ids}


def _extension(name: str, kind: str, **config: Any) -> dict[str, Any]:
    path = f"extensions.tracers.opentelemetry.{name.partition('.')[0]}.v3.{kind}"
    return {"name": f"envoy.tracers.opentelemetry.{name}", "typed_config": {"@type": _TYPE + path, **config}}
