-- The ledger of calls: one script, so that every step is atomic over all workers and one round trip.
--
-- KEYS, and what they hold
--   1 leadsync:budget:page:<page_id>   hash    epoch    of which life of the ledger this Page's count is
--                                              limit    calls a window that are granted at most
--                                              told     calls a window that Meta allows; its percentages are of these
--                                              live waiting backfill upkeep saved refused    sums over the buckets
--                                              want:<lane>    unix ms until which a refused lane's minimum is kept
--                                              slow     unix ms of the next call of backfill or upkeep near the limit
--   2 leadsync:budget:calls:<page_id>  list    a text a bucket, oldest first: its number and the same six
--   3 leadsync:budget:scopes           hash    <scope> -> until strikes trial percent told_at: closed until, how often in
--                                              a row, whether one call is trying it, Meta's percentage and its time;
--                                              link:<page_id> -> ad account whose throttle this Page's reads have met
--   4 leadsync:budget:ledger           hash    epoch    a word that no other life of the ledger has
--                                              clock:<machine>    this clock less the machine's steady one, ms
-- Keys 1 and 2 expire once every call in them has left; of a day a Page has at most 292 buckets of some 30 bytes.
--
-- `saved` calls were not needed, `refused` ones were asked for live leads in vain; neither was made.
-- A bucket's calls leave together, `hold` ms after its end: hold is window + life of a grant + clock jump not noticed.
-- All times are unix ms of the ledger's clock (Redis' own unless ARGV says one), durations are ms.

-- A write that needs no memory comes first: after it a full Redis takes the others too, and can be drained.
redis.call('HDEL', KEYS[4], '')

local step = ARGV[1]
local bucket, hold, window, phase, nonce = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local now = tonumber(ARGV[2])
if not now then
    local time = redis.call('TIME')
    now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local PAGE, CALLS, SCOPES, LEDGER = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local LANES = {'live', 'waiting', 'backfill', 'upkeep', 'saved', 'refused'}
local PLACE = {live = 1, waiting = 2, backfill = 3, upkeep = 4, saved = 5, refused = 6}

local function whole(number) return string.format('%.0f', number) end

local function numbers(text)
    local found = {}
    for number in string.gmatch(text, '%S+') do found[#found + 1] = tonumber(number) end
    return found
end

local function bucket_of(time) return math.floor((time - phase) / bucket) end
local function leaves_at(number) return (number + 1) * bucket + phase + hold end

-- Takes away the buckets that have left, and answers the sums of the others by lane.
local function sums()
    local gone, left = {0, 0, 0, 0, 0, 0}, 0
    while true do
        local entries = redis.call('LRANGE', CALLS, left, left + 15)
        local before = left
        for _, text in ipairs(entries) do
            local entry = numbers(text)
            if leaves_at(entry[1]) > now then break end
            for lane = 1, #LANES do gone[lane] = gone[lane] + entry[lane + 1] end
            left = left + 1
        end
        if left - before < 16 then break end
    end
    if left > 0 then
        redis.call('LTRIM', CALLS, left, -1)
        for lane = 1, #LANES do
            if gone[lane] > 0 then redis.call('HINCRBY', PAGE, LANES[lane], -gone[lane]) end
        end
    end
    local kept = redis.call('HMGET', PAGE, unpack(LANES))
    for lane = 1, #LANES do kept[lane] = tonumber(kept[lane] or 0) or 0 end
    return kept
end

local function expire()
    redis.call('PEXPIRE', PAGE, whole(hold + 2 * bucket))
    redis.call('PEXPIRE', CALLS, whole(hold + 2 * bucket))
end

-- Notes calls in the present bucket. A clock that went back a little notes them in the newest one there is.
local function note(place, calls)
    local number = bucket_of(now)
    local newest = redis.call('LINDEX', CALLS, -1)
    local entry = newest and numbers(newest)
    if entry and entry[1] >= number then
        entry[place + 1] = entry[place + 1] + calls
        for each = 1, #entry do entry[each] = whole(entry[each]) end
        redis.call('LSET', CALLS, -1, table.concat(entry, ' '))
    else
        entry = {whole(number), '0', '0', '0', '0', '0', '0'}
        entry[place + 1] = whole(calls)
        redis.call('RPUSH', CALLS, table.concat(entry, ' '))
    end
    redis.call('HINCRBY', PAGE, LANES[place], calls)
    expire()
end

local function scope_of(name)
    local entry = numbers(redis.call('HGET', SCOPES, name) or '')
    return {
        name = name, ends = entry[1] or 0, strikes = entry[2] or 0, trial = entry[3] or 0,
        percent = entry[4] or 0, told_at = entry[5] or 0,
    }
end

local function keep_scope(scope)
    redis.call('HSET', SCOPES, scope.name, table.concat({
        whole(scope.ends), whole(scope.strikes), whole(scope.trial), tostring(scope.percent), whole(scope.told_at),
    }, ' '))
end

local function new_life()
    redis.call('HSET', LEDGER, 'epoch', nonce)
    return {'unknown', nonce}
end

-- request: lane, calls, machine, steady, jump, recent, trial, slow, six shares, scope names
--   -> granted calls left now limit, scopes on trial | refused not_before why now | unknown epoch
local function request()
    local lane, asked = PLACE[ARGV[8]], tonumber(ARGV[9])
    local clock, steady, jump = 'clock:' .. ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])
    local recent, trial_for, slow_for = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
    local share = {
        live = tonumber(ARGV[16]), over_waiting = tonumber(ARGV[17]), most = tonumber(ARGV[18]),
        tonumber(ARGV[19]), tonumber(ARGV[20]), tonumber(ARGV[21]),
    }

    local about = redis.call('HMGET', LEDGER, 'epoch', clock)
    local epoch, offset = about[1], tonumber(about[2] or '')
    -- Half of the jump either way: from one end to the other it is all that the hold has room for.
    local jumped = offset and math.abs(now - steady - offset) > jump / 2
    if jumped or not offset then
        -- What the buckets say of time is void, and so is what other machines' clocks were compared with.
        if jumped or redis.call('HLEN', LEDGER) > 1000 then redis.call('DEL', LEDGER) end
        redis.call('HSET', LEDGER, clock, whole(now - steady))
        return new_life()
    end
    if not epoch then return new_life() end
    local page = redis.call('HMGET', PAGE, 'epoch', 'limit', 'told', 'slow', 'want:waiting', 'want:backfill', 'want:upkeep')
    if page[1] ~= epoch then return {'unknown', epoch} end
    local limit, told, slow = tonumber(page[2]), tonumber(page[3]), tonumber(page[4] or 0)

    local scopes, percent, floor, floor_ends = {}, 0, 0, 0
    for each = 22, #ARGV do scopes[#scopes + 1] = scope_of(ARGV[each]) end
    local linked = redis.call('HGET', SCOPES, 'link:' .. string.sub(ARGV[23], 6))
    if linked then scopes[#scopes + 1] = scope_of(linked) end
    local trying, closed = {}, nil
    for _, scope in ipairs(scopes) do
        if scope.ends > now then
            if not closed or scope.ends > closed.ends then closed = scope end
        elseif scope.strikes > 0 then
            trying[#trying + 1] = scope
        end
        if scope.told_at + recent > now then
            percent = math.max(percent, scope.percent)
            if scope.name == ARGV[23] then
                -- Meta may have rounded up.
                floor, floor_ends = math.floor((scope.percent - 1) * told / 100), scope.told_at + recent
            end
        end
    end
    if closed then return {'refused', whole(closed.ends), closed.name, whole(now)} end
    local is_extra = lane >= 3
    local is_slow = is_extra and percent >= 90
    if is_slow and slow > now then return {'refused', whole(slow), 'slow', whole(now)} end

    local used = sums()
    local wants = {}
    for other = 2, 4 do
        wants[other] = other ~= lane and tonumber(page[other + 3] or 0) > now
    end
    local live_recently, since = 0, bucket_of(now - recent)
    if lane > 1 then
        for _, text in ipairs(redis.call('LRANGE', CALLS, -math.ceil(recent / bucket) - 1, -1)) do
            local entry = numbers(text)
            if entry[1] > since then
                live_recently = live_recently + entry[2] + (is_extra and entry[3] or entry[7])
            end
        end
    end

    -- What this lane may still spend if `sum` is what each lane has spent.
    local function room(sum, least)
        local spent = math.max(sum[1] + sum[2] + sum[3] + sum[4], least)
        local free = limit - spent
        for other = 2, 4 do
            if wants[other] then free = free - math.max(0, math.floor(share[other - 1] * limit) - sum[other]) end
        end
        if lane == 1 then return free end
        local minimum = math.floor(share[lane - 1] * limit) - sum[lane]
        local kept, own
        if lane == 2 then
            -- Whatever else is spent, the next live lead finds some calls left.
            free = free - math.min(math.max(1, math.ceil(share.over_waiting * limit)), limit - 1)
            kept, own = 4 * live_recently, sum[2] + sum[3] + sum[4]
        else
            minimum = math.min(minimum, limit - math.ceil(share.live * limit) - sum[3] - sum[4])
            kept = math.max(math.ceil(share.live * limit), math.ceil(1.1 * (sum[1] + sum[2])), 4 * live_recently)
            own = sum[3] + sum[4]
        end
        local shared = limit - math.min(kept, math.floor(share.most * limit)) - own
        -- Backfill and upkeep step back to their minimum while references of announced leads wait.
        if is_extra and wants[2] then shared = 0 end
        return math.min(free, math.max(shared, minimum))
    end

    local free = room(used, floor)
    local calls = math.min(asked, free)
    if calls >= 1 then
        if is_slow then
            calls = math.max(1, math.min(calls, math.floor(free / 10)))
            redis.call('HSET', PAGE, 'slow', whole(now + slow_for))
        end
        if #trying > 0 then
            calls = 1
            for _, scope in ipairs(trying) do
                scope.ends, scope.trial = now + trial_for, 1
                keep_scope(scope)
            end
        end
        note(lane, calls)
        if calls == asked and lane > 1 then redis.call('HDEL', PAGE, 'want:' .. LANES[lane]) end
        local answer = {'granted', whole(calls), whole(free - calls), whole(now), whole(limit)}
        for _, scope in ipairs(trying) do answer[#answer + 1] = scope.name end
        return answer
    end

    if lane > 1 then
        redis.call('HSET', PAGE, 'want:' .. LANES[lane], whole(now + recent))
        expire()
    else
        note(PLACE.refused, asked)
    end
    local enough = math.max(1, math.min(asked, math.floor(limit * bucket / window)))
    local at, first = nil, 0
    -- Refused by Meta's percentage alone, nobody waits for calls of our own to leave.
    if room(used, 0) >= enough then at = floor_ends end
    while not at do
        local entries = redis.call('LRANGE', CALLS, first, first + 31)
        if #entries == 0 then break end
        for _, text in ipairs(entries) do
            local entry = numbers(text)
            for each = 1, 4 do used[each] = used[each] - entry[each + 1] end
            if room(used, 0) >= enough then at = leaves_at(entry[1]) break end
        end
        first = first + 32
    end
    at = at or now + (limit < 1 and recent or bucket)
    if floor_ends > at and limit - floor < 1 then at = floor_ends end
    -- What is kept for others may be free much sooner: they may stop asking.
    if lane > 1 then at = math.min(at, now + recent / 4) end
    if wants[2] or wants[3] or wants[4] then at = math.min(at, now + recent) end
    return {'refused', whole(math.max(at, now + 1)), 'budget', whole(now)}
end

-- seed: epoch, limit, told, then age, lane, calls for each bucket, oldest first
--   -> 1, or 0 where the ledger began another life meanwhile
local function seed()
    if redis.call('HGET', LEDGER, 'epoch') ~= ARGV[8] then return 0 end
    if redis.call('HGET', PAGE, 'epoch') == ARGV[8] then return 1 end
    redis.call('DEL', PAGE, CALLS)
    redis.call('HSET', PAGE, 'epoch', ARGV[8], 'limit', ARGV[9], 'told', ARGV[10])
    local last, real_now = nil, now
    for each = 11, #ARGV, 3 do
        now = math.max(real_now - tonumber(ARGV[each]), last or 0)
        last = now
        if leaves_at(bucket_of(now)) > real_now then note(PLACE[ARGV[each + 1]], tonumber(ARGV[each + 2])) end
    end
    now = real_now
    expire()
    return 1
end

-- limit: limit, told -> 1, or 0 where the ledger does not know the Page
local function change_limit()
    if redis.call('HEXISTS', PAGE, 'epoch') == 0 then return 0 end
    redis.call('HSET', PAGE, 'limit', ARGV[8], 'told', ARGV[9])
    return 1
end

-- tell: scope, percent or '', regain, throttled, first pause, longest pause, page id to link or ''
--   -> unix ms until which the scope is closed, now
local function tell()
    local scope = scope_of(ARGV[8])
    local percent, regain, throttled = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11] == '1'
    if percent then scope.percent, scope.told_at = percent, now end
    if ARGV[14] ~= '' then redis.call('HSET', SCOPES, 'link:' .. ARGV[14], scope.name) end
    local is_closed = scope.ends > now and scope.trial == 0
    if throttled or regain > 0 or (percent or 0) >= 100 then
        if is_closed then
            -- Several calls were under way when the scope closed: one strike.
            scope.ends = math.max(scope.ends, now + regain)
        else
            -- 100% beside an answer may be a percentage that was rounded up: no reason to wait longer each time.
            local so_far = (throttled or regain > 0) and scope.strikes or 0
            local pause = math.min(tonumber(ARGV[12]) * 2 ^ math.min(so_far, 16), tonumber(ARGV[13]))
            scope.strikes = so_far + 1
            scope.ends = now + (regain > 0 and regain or pause)
        end
        scope.trial = 0
    elseif not is_closed then
        scope.ends, scope.strikes, scope.trial = 0, 0, 0
    end
    keep_scope(scope)
    return {whole(scope.ends), whole(now)}
end

-- saved: calls -> 1
local function saved()
    if redis.call('HEXISTS', PAGE, 'epoch') == 0 then return 0 end
    note(PLACE.saved, tonumber(ARGV[8]))
    return 1
end

-- restart -> unknown epoch: the server may have forgotten something, so every Page's count is void
if step == 'request' then return request() end
if step == 'seed' then return seed() end
if step == 'limit' then return change_limit() end
if step == 'tell' then return tell() end
if step == 'saved' then return saved() end
if step == 'restart' then return new_life() end
return redis.error_reply('ERR unknown step')
