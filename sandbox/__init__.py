"""The sandbox: a simulated Graph API and webhook sender, so that one can develop and test without Meta.

    seed -> world -> leads            call -> answer            created leads -> signed deliveries

Faithful where it hurts: limits and usage headers, cursors, error bodies, delays, payload variants, and
every fault on demand. It knows nothing of leadsync but its log set-up, keeps everything in memory, and is
never part of a production set-up: its control routes ask for no password. docs/sandbox.md is its manual.
"""
