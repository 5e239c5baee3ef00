"""Webhook bytes -> lead references in the stream.

    bytes, signature -> proven bytes      signature.py   pure
    proven bytes     -> Delivery          delivery.py    pure
    Delivery         -> stream entries    publisher.py   Redis, and a ring at Celery's door
    stream entries   -> 200               app.py         Flask

The receiver never calls Graph, never opens Postgres and never sees a person's answer: a delivery carries ids.

Invariant: a 200 is sent only after Redis took the whole delivery; whatever prevents that is a 503, and Meta
sends the delivery again.
"""
