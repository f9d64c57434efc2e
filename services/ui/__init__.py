"""The ui: a page with sessions in Redis, messages of the guestbook service, and a greeting."""
