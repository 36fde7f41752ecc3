-- gRPC says at the end of a reply what HTTP says at its beginning. For a transcoded call whose reply is one message,
-- what Mercat says there (cost, request id, limits) becomes headers; the transcoder would drop it.
local function kept(name)
  local start = string.sub(name, 1, 7)
  return start == "mercat-" or start == "ratelim" or name == "retry-after" or name == "idempotent-replayed"
end

function envoy_on_response(handle)
  local headers = handle:headers()
  -- A failure without a reply has its trailers as headers already.
  if handle:metadata():get("unary") ~= true or headers:get("grpc-status") ~= nil then
    return
  end
  handle:body()
  local trailers = handle:trailers()
  if trailers == nil then
    return
  end
  headers = handle:headers()  -- what was got before the wait is no longer valid
  for name, value in pairs(trailers) do
    if kept(name) then
      headers:replace(name, value)
    end
  end
end
