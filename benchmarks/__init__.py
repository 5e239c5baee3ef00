"""Measurements of leadsync beside what a user would write instead; README.md says how to read them."""
