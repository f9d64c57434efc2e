"""The guestbook service: messages over HTTP in the HAL shape of Spring Data REST, kept in MySQL."""
