-- What Envoy's transcoder cannot do to a reply.
--
-- An error is a google.rpc.Status as JSON, {"code":5,"message":"…","details":[…]}. REST shows it as AIP-193 does:
-- {"error":{"code":404,"status":"NOT_FOUND","message":"…","details":[…]}}. No other reply begins like that.
--
-- A reply whose binding names a `response_body` is one field, {"model":{…}}, of which REST shows the inside.
local NAMES = {
  [1] = "CANCELLED", [2] = "UNKNOWN", [3] = "INVALID_ARGUMENT", [4] = "DEADLINE_EXCEEDED", [5] = "NOT_FOUND",
  [6] = "ALREADY_EXISTS", [7] = "PERMISSION_DENIED", [8] = "RESOURCE_EXHAUSTED", [9] = "FAILED_PRECONDITION",
  [10] = "ABORTED", [11] = "OUT_OF_RANGE", [12] = "UNIMPLEMENTED", [13] = "INTERNAL", [14] = "UNAVAILABLE",
  [15] = "DATA_LOSS", [16] = "UNAUTHENTICATED",
}
local function wrapped(text, status)
  local code, rest = string.match(text, '^{"code":(%d+)(.*)$')
  if code == nil then
    return nil
  end
  local name = NAMES[tonumber(code)] or "UNKNOWN"
  return '{"error":{"code":' .. status .. ',"status":"' .. name .. '"' .. rest .. "}"
end

local function unwrapped(text, field)
  local prefix = '{"' .. field .. '":'
  if string.sub(text, 1, #prefix) ~= prefix then
    return nil
  end
  return string.sub(text, #prefix + 1, -2)
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = tonumber(headers:get(":status"))
  local field = handle:metadata():get("unwrap")
  if status ~= nil and status < 400 and handle:metadata():get("lines") then
    -- Whoever keeps the answer must not give it to the next, who would hear nothing new.
    headers:replace("cache-control", "no-store")
    if headers:get("content-type") == "application/json" then
      headers:replace("content-type", "application/x-ndjson")
    end
  end
  if status == nil or (status < 400 and field == nil) or headers:get("content-type") ~= "application/json" then
    return
  end
  local buffer = handle:body(true)
  local size = buffer:length()
  if size == 0 then
    return
  end
  local text = buffer:getBytes(0, size)
  local changed
  if status < 400 then
    changed = unwrapped(text, field)
  else
    changed = wrapped(text, status)
  end
  if changed ~= nil then
    -- What was got before the wait for the body is no longer valid.
    handle:headers():replace("content-length", tostring(buffer:setBytes(changed)))
  end
end
