"""What is wrong with a whole leadsync, and what to type: settings, neighbours, Pages and work -> findings.

    gather (I/O, side by side, each within its time) -> facts -> checks (pure) -> findings -> shown, or JSON

It looks and changes nothing, but for one empty delivery that it sends through the public callback and the calls that it
makes under each Page's budget. Invariant: what could not be found out is `not checked`, never red.
"""
