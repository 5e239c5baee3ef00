"""A soak: leads come in for minutes while a seeded plan of faults befalls every part -> nothing lost, doubled, altered.

    seed -> plan (faults, waves of leads) -> whole stack behind proxies -> faults struck, leads sent, everything watched
         -> settled -> facts (Graph's truth, rows, calls, answers, samples) -> violations -> report

plan.py, invariants.py and leaks.py are pure. What it proves and does not prove is in docs/soak.md.
"""
