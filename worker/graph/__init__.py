"""The neighbour Meta: wire.py, usage.py and faults.py are pure, client.py holds the only socket."""
