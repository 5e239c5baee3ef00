"""The budget: every Graph call is granted before it is made."""
