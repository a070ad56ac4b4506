-- The load of the benchmarks: requests as az sends them, each with an id of its own.
-- Arguments: the value of Connection, and a number that tells this wrk from the others.

local requests, turn = {}, 0

function init(args)
  math.randomseed(tonumber(args[2]))
  local path = "/metadata/identity/oauth2/token?api-version=2018-02-01"
    .. "&resource=https%3A%2F%2Fmanagement.core.windows.net%2F"
  for each = 1, 64 do
    local id = string.gsub("xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx", "x", function()
      return string.format("%x", math.random(0, 15))
    end)
    requests[each] = wrk.format("GET", path, {
      ["Host"] = "169.254.169.254",
      ["User-Agent"] = "python-requests/2.32.5",
      ["Accept-Encoding"] = "gzip, deflate",
      ["Accept"] = "*/*",
      ["Connection"] = args[1],
      ["Metadata"] = "true",
      ["x-client-SKU"] = "MSAL.Python",
      ["x-client-Ver"] = "1.36.0",
      ["x-ms-client-request-id"] = id,
    })
  end
end

function request()
  turn = turn % 64 + 1
  return requests[turn]
end

-- Every latency that was seen, in microseconds, with how often: percentiles of several wrk can
-- then be told exactly.
function done(summary, latency, _)
  local counts = {}
  for each = 1, #latency do
    local value, count = latency(each)
    counts[each] = string.format("[%d,%d]", value, count)
  end
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"seconds":%f,"refused":%d,"failed":%d,"latencies":[%s]}\n',
    summary.requests, summary.duration / 1e6, e.status,
    e.connect + e.read + e.write + e.timeout, table.concat(counts, ",")))
end
