"""The page: sessions in Redis, messages from the guestbook service, a greeting from message."""
