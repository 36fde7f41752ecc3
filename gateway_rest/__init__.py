"""The web edge: the contracts as REST for places without Envoy, and what transcoding cannot do.

It holds no state and no rule of the business: every request becomes a call of the platform's gRPC services,
which decide. `gateway_rest.openapi` describes the same REST surface.
"""
