"""What one address may try."""

from collections.abc import Callable

import grpc
from mercat.auth.v1 import auth_pb2

from services.common.errors import from_rpc_error
from tests.platform import Platform


def test_sign_in_is_limited_by_address(own_platform: Callable[..., Platform]) -> None:
    platform = own_platform(env={"MERCAT_LIMIT_SCALE": "1"})
    reasons: list[str] = []
    for _ in range(12):
        try:
            request = auth_pb2.RefreshSessionRequest(refresh_token="mr_guess")
            platform.anonymous.auth.RefreshSession(request)
        except grpc.RpcError as e:
            error = from_rpc_error(e)
            reasons.append(error.reason)
    assert reasons[:10] == ["CREDENTIAL_INVALID"] * 10
    assert reasons[-1] == "RATE_LIMITED"
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 1
    # Other calls of the same address go on.
    assert platform.anonymous.auth.GetJwks(auth_pb2.GetJwksRequest()).keys
