"""The worker: lead references -> rows. It never imports the receiver and never answers Meta's webhook."""
