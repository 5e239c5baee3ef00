"""The neighbour Postgres: the long memory. sql.py holds the statements, leads.py and pages.py run them."""
