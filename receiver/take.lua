-- Takes deliveries: one script, so that they are in Redis whole or not at all, in one round trip.
--
-- KEYS
--   1 leadsync:references          stream   an entry a lead reference
--   2 leadsync:deliveries          hash     counts of what was seen, by verdict
--   3 leadsync:bell                string   a doorbell is out or somebody listens; expires
--   4 leadsync:reconcile_wanted    hash     page_id -> unix ms, of the first since it was taken up
--   5 leadsync:set_aside           stream   bodies that could not be read
--   6 leadsync:reconcile_wanted_last   hash   page_id -> unix ms, of the last
-- ARGV
--   1 a word that no other bell has    2 seconds until a bell expires    3 how many bodies are kept
--   from 4 on parts, each of them: what it is, how many words follow, these words
--     entry     a reference's fields and values
--     aside     a body's fields and values
--     wanted    page_id, unix ms
--     count     verdict, how many
--
-- Returns the stream's length afterwards, and 1 where there are entries that nobody has been woken for.
--
-- The first write is one that needs memory: a Redis that is full refuses it, and with it all of the others.

local rings = 0
local place = 4
while ARGV[place] do
    local what, last = ARGV[place], place + 1 + tonumber(ARGV[place + 1])
    if what == 'entry' then
        redis.call('XADD', KEYS[1], '*', unpack(ARGV, place + 2, last))
        rings = 1
    elseif what == 'count' then
        redis.call('HINCRBY', KEYS[2], ARGV[place + 2], ARGV[place + 3])
    elseif what == 'wanted' then
        redis.call('HSETNX', KEYS[4], ARGV[place + 2], ARGV[place + 3])
        redis.call('HSET', KEYS[6], ARGV[place + 2], ARGV[place + 3])
    else
        redis.call('XADD', KEYS[5], 'MAXLEN', ARGV[3], '*', unpack(ARGV, place + 2, last))
    end
    place = last + 1
end
if rings == 1 and not redis.call('SET', KEYS[3], ARGV[1], 'NX', 'EX', ARGV[2]) then
    rings = 0
end
return {redis.call('XLEN', KEYS[1]), rings}
